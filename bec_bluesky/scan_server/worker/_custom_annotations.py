"""What `parameter_annotation_decorator` of bluesky-queueserver says of a plan; the decorator itself is not needed."""

import collections.abc
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bec_bluesky.messages.queue import Parameter
from bec_bluesky.scan_server.worker._annotations import Means, accepts_of, with_facts
from bec_bluesky.scan_server.worker._default_data import as_data

__all__ = ["CustomAnnotations"]

_ATTRIBUTE = "_custom_parameter_annotation_"
_KINDS: dict[str, Any] = {
    "__READABLE__": {"kind": "device", "protocols": ["Readable"]},
    "__MOVABLE__": {"kind": "device", "protocols": ["Movable"]},
    "__FLYABLE__": {"kind": "device", "protocols": ["Flyable"]},
    "__DEVICE__": {"kind": "device", "protocols": []},
    "__PLAN__": {"kind": "text"},
    "__PLAN_OR_DEVICE__": {"kind": "any_of", "of": [{"kind": "device", "protocols": []}, {"kind": "text"}]},
    "__CALLABLE__": {"kind": "callable"},
}
"""Types that may be written in a text without being defined."""
_NUMBERS = ("min", "max", "step")


class CustomAnnotations:
    """The decorator's texts, types, defaults and limits, which go before those of the signature."""

    def __init__(self, plan: Callable[..., Any]) -> None:
        said: Any = _found(plan)
        self._parameters: Mapping[str, Any] = said.get("parameters", {}) if isinstance(said, Mapping) else {}
        self.summary = " ".join(str(said.get("description", "")).split()) if isinstance(said, Mapping) else ""
        self.properties: dict[str, Any] = {"parameter_annotation": _plain(said)} if said else {}

    def applied(self, parameter: Parameter) -> Parameter:
        """Give a parameter with what the decorator says of it."""
        said = self._parameters.get(parameter.name)
        if not isinstance(said, Mapping):
            return parameter
        changes: dict[str, Any] = {}
        accepts = parameter.accepts
        if "annotation" in said:
            changes["annotation"] = said["annotation"]
            accepts = _accepts(said)
            if parameter.has_default and parameter.default == "None":
                accepts = _or_nothing(accepts)
        bounds = {key: said[key] for key in _NUMBERS if key in said}
        if bounds:
            accepts = with_facts(accepts or {"kind": "number"}, bounds)
        if "default" in said:
            default = said["default"]
            changes |= {"has_default": True, "default": repr(default), "default_value": as_data(default)}
        if "description" in said:
            changes["text"] = " ".join(str(said["description"]).split())
        return msgspec.structs.replace(parameter, accepts=accepts, **changes)


def _found(plan: Any) -> Any:
    """Look at the plan and at what it wraps: other decorators may lie over this one."""
    while plan is not None:
        if hasattr(plan, _ATTRIBUTE):
            return getattr(plan, _ATTRIBUTE)
        plan = getattr(plan, "__wrapped__", None)
    return {}


def _accepts(said: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate an annotation that is a text: `typing.List[Motors]` with {"devices": {"Motors": ("motor1", …)}}."""
    kinds = dict(_KINDS)
    for name, texts in said.get("devices", {}).items():
        kinds[name] = {"kind": "device", "protocols": []} | ({} if _has_pattern(texts) else {"names": list(texts)})
    for name, texts in said.get("plans", {}).items():
        kinds[name] = {"kind": "text"} if _has_pattern(texts) else {"kind": "choice", "values": list(texts)}
    for name, texts in said.get("enums", {}).items():
        kinds[name] = {"kind": "choice", "values": list(texts)}
    stand_ins = {name: typing.Annotated[Any, Means(kind)] for name, kind in kinds.items()}
    try:
        annotation = eval(said["annotation"], vars(typing) | {"typing": typing, "collections": collections} | stand_ins)
    except Exception:  # noqa: BLE001  # here a process meets a plug-in: a type that nobody knows
        return {"kind": "any"}
    return accepts_of(annotation) or {"kind": "any"}


def _or_nothing(accepts: dict[str, Any]) -> dict[str, Any]:
    nothing = {"kind": "nothing"}
    kinds = accepts["of"] if accepts["kind"] == "any_of" else [accepts]
    if accepts["kind"] == "any" or nothing in kinds:
        return accepts
    return {"kind": "any_of", "of": [*kinds, nothing]}


def _has_pattern(texts: Any) -> bool:
    """Whether names are given by regular expressions (they begin with a colon)."""
    return any(str(each).startswith(":") for each in texts)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
