"""Plans and devices as bluesky-queueserver describes them, made from ours.

Types of parameters are texts that its clients evaluate: names of `typing` and builtins, of its own kinds of devices
(`__READABLE__` …), and of lists of choices that stand beside the type (`enums`).
"""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import Parameter, PlanInfo
from bec_bluesky.people import UserGroups

__all__ = ["allowed_devices", "describe_devices", "describe_plans"]

_PLAIN = {
    "number": "float",
    "integer": "int",
    "text": "str",
    "boolean": "bool",
    "nothing": "None",
    "mapping": "typing.Dict[str, typing.Any]",
    "callable": "__CALLABLE__",
    "any": "typing.Any",
}
_DEVICE_KINDS = (
    ({"Movable", "NamedMovable", "Locatable"}, "__MOVABLE__"),
    ({"Flyable"}, "__FLYABLE__"),
    ({"Readable", "Triggerable", "Collectable", "EventCollectable"}, "__READABLE__"),
)
_MOST_DEPTH = 5


# ── plans ─────────────────────────────────────────────────────────────────────────────────────────


def describe_plans(plans: Mapping[str, PlanInfo]) -> dict[str, Any]:
    """Describe plans by name."""
    return {name: _plan(plan) for name, plan in plans.items()}


def _plan(plan: PlanInfo) -> dict[str, Any]:
    written: dict[str, Any] = {"name": plan.name, "properties": {"is_generator": True}}
    if plan.text or plan.summary:
        written["description"] = plan.text or plan.summary
    written["parameters"] = [_parameter(each) for each in plan.parameters]
    written["module"] = plan.module
    return written


def _parameter(parameter: Parameter) -> dict[str, Any]:
    kind = inspect._ParameterKind[parameter.kind.upper()]
    written: dict[str, Any] = {"name": parameter.name, "kind": {"name": kind.name, "value": kind.value}}
    if parameter.text:
        written["description"] = parameter.text
    accepts = parameter.accepts
    if accepts is not None and accepts["kind"] != "any":
        enums: dict[str, list[str]] = {}
        written["annotation"] = {"type": _type(accepts, enums)} | ({"enums": enums} if enums else {})
        if _names_devices(accepts):
            written["convert_device_names"] = True
        written |= _bounds(accepts)
    if parameter.has_default:
        written["default"] = _default(parameter.default)
    return written


def _type(accepts: Mapping[str, Any], enums: dict[str, list[str]]) -> str:
    kind = accepts["kind"]
    if kind == "device":
        protocols = set(accepts.get("protocols", ()))
        return next((name for names, name in _DEVICE_KINDS if names & protocols), "__DEVICE__")
    if kind == "choice":
        return _choice(accepts["values"], enums)
    if kind == "list":
        return f"collections.abc.Sequence[{_type(accepts['of'], enums)}]"
    if kind in ("any_of", "group"):
        each = dict.fromkeys(_type(of, enums) for of in (*accepts["of"], *accepts.get("then", ())))
        return next(iter(each)) if len(each) == 1 else f"typing.Union[{', '.join(each)}]"
    return _PLAIN.get(kind, "typing.Any")


def _choice(values: list[Any], enums: dict[str, list[str]]) -> str:
    if not all(isinstance(value, str) for value in values):
        return f"typing.Literal[{', '.join(map(repr, values))}]"
    name = "Choice" if not enums else f"Choice{len(enums) + 1}"
    enums[name] = list(values)
    return name


def _names_devices(accepts: Mapping[str, Any]) -> bool:
    of = accepts.get("of", ())
    parts = [of] if isinstance(of, Mapping) else [*of, *accepts.get("then", ())]
    return accepts["kind"] == "device" or any(_names_devices(part) for part in parts)


def _bounds(accepts: Mapping[str, Any]) -> dict[str, str]:
    """Give bounds of a number, or of all numbers that a list or a union takes."""
    of = accepts.get("of")
    if accepts["kind"] == "list" and isinstance(of, Mapping):
        return _bounds(of)
    return {key: str(accepts[key]) for key in ("min", "max") if key in accepts}


def _default(text: str) -> str:
    """Give a default that its clients can evaluate: an object is shown as the text that stands for it."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return repr(text)
    return text


# ── devices ───────────────────────────────────────────────────────────────────────────────────────


def describe_devices(devices: Mapping[str, DeviceInfo]) -> dict[str, Any]:
    """Describe top-level devices by name, with their parts."""
    tops = [info for info in devices.values() if info.parent is None and info.enabled]
    return {info.path: _device(info, devices, 1) for info in sorted(tops, key=lambda info: info.path)}


def _device(info: DeviceInfo, devices: Mapping[str, DeviceInfo], depth: int) -> dict[str, Any]:
    module, _, name = info.device_class.replace(":", ".").rpartition(".")
    protocols = set(info.protocols)
    written: dict[str, Any] = {
        "is_readable": "Readable" in protocols,
        "is_movable": bool(protocols & {"Movable", "NamedMovable"}),
        "is_flyable": "Flyable" in protocols,
        "classname": name,
        "module": module,
    }
    parts = {child: devices[f"{info.path}.{child}"] for child in info.children if f"{info.path}.{child}" in devices}
    if parts and depth < _MOST_DEPTH:
        written["components"] = {child: _device(part, devices, depth + 1) for child, part in parts.items()}
    return written


def allowed_devices(described: Mapping[str, Any], groups: UserGroups, group: str) -> dict[str, Any]:
    """Leave the devices and parts that a group may use; one that it may not, but some of whose parts, is `excluded`."""
    return _allowed(described, groups, group, "")


def _allowed(described: Mapping[str, Any], groups: UserGroups, group: str, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, facts in described.items():
        path = f"{prefix}{name}"
        parts = _allowed(facts.get("components", {}), groups, group, f"{path}.")
        kept = {key: value for key, value in facts.items() if key != "components"}
        if parts:
            kept["components"] = parts
        if groups.is_device_allowed(group, path, facts):
            found[name] = kept
        elif parts:
            found[name] = kept | {"excluded": True}
    return found
