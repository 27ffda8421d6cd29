"""Whether a request fits its plan, told from the plan's description and the devices alone: quick, and nothing moves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError, UnknownDeviceError, UnknownPlanError, choices
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import AddItem, Parameter, PlanInfo
from bec_bluesky.scan_server._accepts import Type, mismatch, type_at, write
from bec_bluesky.scan_server._item_devices import texts

__all__ = ["Bound", "bind", "place_of", "validate"]

_POSITIONAL = ("positional_only", "positional_or_keyword")
_RESERVED = frozenset({"uid", "time"})
"""Keys of a start document that only the RunEngine gives."""


@dataclass(frozen=True)
class Bound:
    """A value and the parameter that takes it; for `*args` and `**kwargs` it is the whole tuple or dict."""

    parameter: Parameter
    value: Any


def validate(asked: AddItem, plans: Mapping[str, PlanInfo], devices: Mapping[str, DeviceInfo]) -> None:
    """Refuse an item that can't run: raises UnknownPlanError, UnknownDeviceError or BadArgumentError."""
    plan = plans.get(asked.plan)
    if plan is None:
        raise UnknownPlanError(asked.plan, plans)
    reserved = sorted(_RESERVED.intersection(asked.metadata))
    if reserved:
        raise BadArgumentError(f"{plan.name}: metadata may not contain {', '.join(reserved)}: the RunEngine gives it")
    judge = _Judge(plan.name, devices)
    for bound in bind(plan, asked.args, asked.kwargs):
        judge.argument(bound)


def bind(plan: PlanInfo, args: list[Any], kwargs: Mapping[str, Any]) -> Iterator[Bound]:
    """Give each argument with its parameter, as Python would; raises BadArgumentError."""
    positional = [each for each in plan.parameters if each.kind in _POSITIONAL]
    var_positional = next((each for each in plan.parameters if each.kind == "var_positional"), None)
    var_keyword = next((each for each in plan.parameters if each.kind == "var_keyword"), None)
    if len(args) > len(positional) and var_positional is None:
        raise BadArgumentError(
            f"{plan.name}: {len(args)} positional arguments are too many: "
            + (f"it takes {', '.join(each.name for each in positional)}" if positional else "it takes none")
        )
    given = {each.name for each in positional[: len(args)]}
    by_name = {each.name: each for each in plan.parameters if each.kind in ("positional_or_keyword", "keyword_only")}
    twice = sorted(given & set(kwargs) & set(by_name))
    if twice:
        raise BadArgumentError(f"{plan.name}: argument {twice[0]!r} is given twice, by position and by name")
    unknown = {name: value for name, value in kwargs.items() if name not in by_name}
    if unknown and var_keyword is None:
        name = next(iter(unknown))
        raise BadArgumentError(f"{plan.name}: no argument {name!r}: {choices(name, by_name)}")
    _refuse_missing(plan, given | set(kwargs))
    yield from (Bound(parameter, value) for parameter, value in zip(positional, args, strict=False))
    if var_positional is not None:
        yield Bound(var_positional, list(args[len(positional) :]))
    yield from (Bound(by_name[name], value) for name, value in kwargs.items() if name in by_name)
    if var_keyword is not None:
        yield Bound(var_keyword, unknown)


def place_of(path: str, plan: PlanInfo, args: list[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Say in which argument a device, or what it is a part of, was given; None: the plan brings it along."""
    for bound in bind(plan, args, kwargs):
        for place, value, _ in _each(bound):
            if any(path == text or path.startswith(f"{text}.") for text in texts(value)):
                return place
    return None


def _each(bound: Bound) -> Iterator[tuple[str, Any, Type | None]]:
    """Give each value that a parameter takes, with its place in words and its type."""
    parameter = bound.parameter
    if parameter.kind == "var_positional":
        for index, value in enumerate(bound.value):
            accepts = type_at(parameter.accepts, index, len(bound.value))
            name = f" ({accepts['name']})" if accepts is not None and "name" in accepts else ""
            yield f"number {index + 1} of *{parameter.name}{name}", value, accepts
    elif parameter.kind == "var_keyword":
        for name, value in bound.value.items():
            yield f"argument {name!r}", value, parameter.accepts
    else:
        yield f"argument {parameter.name!r}", bound.value, parameter.accepts


def _refuse_missing(plan: PlanInfo, given: set[str]) -> None:
    named = (*_POSITIONAL, "keyword_only")
    missing = [
        each.name for each in plan.parameters if each.kind in named and not each.has_default and each.name not in given
    ]
    if missing:
        words = "argument is" if len(missing) == 1 else "arguments are"
        raise BadArgumentError(f"{plan.name}: {len(missing)} {words} missing: {', '.join(missing)}")


class _Judge:
    """Judges the arguments of one plan by what its parameters accept."""

    def __init__(self, plan: str, devices: Mapping[str, DeviceInfo]) -> None:
        self._plan = plan
        self._devices = devices

    def argument(self, bound: Bound) -> None:
        """Raise BadArgumentError or UnknownDeviceError, or RefusedError for a device that can't be used now."""
        if bound.parameter.kind == "var_positional":
            self._group(bound)
        for place, value, accepts in _each(bound):
            self._value(value, accepts, place)

    def _group(self, bound: Bound) -> None:
        """Refuse values that do not come out even: `motor, start, stop` and again `motor, start`."""
        accepts, count = bound.parameter.accepts, len(bound.value)
        if accepts is None or accepts["kind"] != "group":
            return
        rest = count % len(accepts["of"])
        if count < len(accepts["of"]) or (rest and rest > len(accepts.get("then", []))):
            raise BadArgumentError(
                f"{self._plan}: *{bound.parameter.name} takes {write(accepts)}: {count} values do not come out even"
            )

    def _value(self, value: Any, accepts: Type | None, place: str) -> None:
        asked: list[str] = []

        def protocols(name: str) -> list[str] | None:
            asked.append(name)
            info = self._devices.get(name)
            return None if info is None else [*info.protocols, *(f"label {label}" for label in info.labels)]

        why = mismatch(value, accepts, protocols)
        named = texts(value) if (accepts or {}).get("devices", True) else ()
        for name in (*asked, *named):  # first: of a device that was not built no protocols are known
            if name in self._devices:
                self._refuse_unusable(self._devices[name], place)
        if why is not None:
            unknown = next((name for name in asked if name not in self._devices), None)
            if unknown is not None and f"there is no device {unknown!r}" in why:
                top = [path for path, info in self._devices.items() if info.parent is None]
                raise UnknownDeviceError(unknown, top, where=f"{self._plan}, {place}")
            raise BadArgumentError(f"{self._plan}, {place}: {why}")

    def _refuse_unusable(self, info: DeviceInfo, place: str) -> None:
        state = info.state if info.enabled else "disabled"
        if state != "connected":
            verb = "has" if state == "failed" else "is"
            reason = f": {info.reason}" if info.reason else ""
            raise RefusedError(
                f"{self._plan}, {place}: device {info.path!r} on {info.server} {verb} {state}{reason}",
                "device_unavailable",
            )
