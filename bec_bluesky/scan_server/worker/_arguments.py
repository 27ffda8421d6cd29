"""From what crosses (device names) to what a plan is called with (devices)."""

import enum
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, UnknownDeviceError
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.scan_server._accepts import Type, type_at
from bec_bluesky.scan_server.worker._plans import OfferedPlan

__all__ = ["bind", "call"]


def call(plan: OfferedPlan, item: QueueItem, devices: Mapping[str, Any]) -> Any:
    """Call the plan with the item's arguments; gives a generator of messages.

    Raises UnknownDeviceError and BadArgumentError, whose text names plan and argument.
    """
    args, kwargs = bind(plan, item, devices)
    return plan.function(*args, **kwargs)


def bind(plan: OfferedPlan, item: QueueItem, devices: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put devices in the place of their names, where a parameter takes devices.

    Where nothing is known of a parameter, every text that equals the name of a device becomes that device.
    """
    try:
        bound = plan.signature.bind(*item.args, **item.kwargs)
    except TypeError as error:
        raise BadArgumentError(f"{plan.info.name}: {error}; it is {plan.info.name}{_short(plan)}") from None
    accepts = {parameter.name: parameter.accepts for parameter in plan.info.parameters}
    find = _Finder(plan.info.name, devices)
    for name, value in bound.arguments.items():
        kind = plan.signature.parameters[name].kind
        given = accepts.get(name)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(
                find.resolve(each, type_at(given, index, len(value)), name) for index, each in enumerate(value)
            )
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[name] = {key: find.resolve(each, given, key) for key, each in value.items()}
        else:
            bound.arguments[name] = _member(find.resolve(value, given, name), plan.enumerations.get(name))
    return bound.args, bound.kwargs


def _member(value: Any, enumeration: type[enum.Enum] | None) -> Any:
    """Give the member of an enumeration for its value, where a parameter is one."""
    if enumeration is None:
        return value
    return next((member for member in enumeration if member.value == value), value)


class _Finder:
    def __init__(self, plan: str, devices: Mapping[str, Any]) -> None:
        self._plan = plan
        self._devices = devices
        self._by_kind: dict[str, Callable[[Any, Type, str], Any]] = {
            "device": self._device,
            "list": self._list,
            "any_of": self._any_of,
            "any": lambda value, accepts, argument: self._anywhere(value) if accepts.get("devices", True) else value,
        }

    def resolve(self, value: Any, accepts: Type | None, argument: str) -> Any:
        if accepts is None:
            return self._anywhere(value)
        resolve = self._by_kind.get(accepts["kind"])
        return value if resolve is None else resolve(value, accepts, argument)

    def _device(self, value: Any, accepts: Type, argument: str) -> Any:
        if not isinstance(value, str):
            return value
        if value not in self._devices:
            raise UnknownDeviceError(value, self._devices, where=f"{self._plan}, argument {argument!r}")
        return self._devices[value]

    def _list(self, value: Any, accepts: Type, argument: str) -> Any:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            return value
        return [self.resolve(each, accepts["of"], argument) for each in value]

    def _any_of(self, value: Any, accepts: Type, argument: str) -> Any:
        kinds = {each["kind"]: each for each in accepts["of"]}
        if isinstance(value, str):
            if value in self._devices and kinds.keys() & {"device", "any"}:
                return self._devices[value]
            if "device" in kinds and not kinds.keys() & {"any", "text", "choice"}:
                return self._device(value, kinds["device"], argument)
            return value
        if isinstance(value, list | tuple) and "list" in kinds:
            return self._list(value, kinds["list"], argument)
        return self._anywhere(value) if "any" in kinds else value

    def _anywhere(self, value: Any) -> Any:
        if isinstance(value, str):
            # not get(), which waits for KeyError: an unknown device is an UnknownDeviceError
            return self._devices[value] if value in self._devices else value  # noqa: SIM401
        if isinstance(value, list | tuple):
            return [self._anywhere(each) for each in value]
        if isinstance(value, dict):
            return {key: self._anywhere(each) for key, each in value.items()}
        return value


def _short(plan: OfferedPlan) -> str:
    """Write the signature with names and defaults only."""
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in plan.signature.parameters.values()]
    return str(inspect.Signature(parameters))
