"""What a plan takes as a JSON schema, from which any library of forms makes one."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import Parameter, PlanInfo

__all__ = ["form_of"]

_PLAIN = {
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "text": {"type": "string"},
    "boolean": {"type": "boolean"},
    "nothing": {"type": "null"},
    "mapping": {"type": "object"},
}
_KEYS = {
    "min": "minimum",
    "max": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
    "step": "multipleOf",
    "text": "description",
    "name": "title",
}
Devices = Mapping[str, DeviceInfo]


def form_of(plan: PlanInfo, devices: Devices) -> dict[str, Any]:
    """Describe the arguments of a plan by name, those of `*args` as a list; functions are left out."""
    asked = [each for each in plan.parameters if each.kind != "var_keyword" and not _is_callable(each.accepts)]
    required = [each.name for each in asked if not each.has_default and each.kind != "var_positional"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": plan.name,
        "description": plan.text or plan.summary,
        "type": "object",
        "properties": {each.name: _parameter(each, devices) for each in asked},
        "required": required,
        "additionalProperties": any(each.kind == "var_keyword" for each in plan.parameters),
    }


def _is_callable(accepts: Mapping[str, Any] | None) -> bool:
    if accepts is None:
        return False
    kinds = [each["kind"] for each in accepts["of"]] if accepts["kind"] == "any_of" else [accepts["kind"]]
    return "callable" in kinds and set(kinds) <= {"callable", "nothing"}


def _parameter(parameter: Parameter, devices: Devices) -> dict[str, Any]:
    written = _type(parameter.accepts, devices)
    if parameter.kind == "var_positional" and (parameter.accepts or {}).get("kind") != "group":
        written = {"type": "array", "items": written}
    if parameter.text:
        written["description"] = parameter.text
    if parameter.default_value is not None or parameter.default == "None":
        written["default"] = parameter.default_value
    return written


def _type(accepts: Mapping[str, Any] | None, devices: Devices) -> dict[str, Any]:
    if accepts is None:
        return {}
    written = _kind(accepts, devices)
    if "units" in accepts:
        written["x-units"] = accepts["units"]
    return written | {_KEYS[key]: value for key, value in accepts.items() if key in _KEYS}


def _kind(accepts: Mapping[str, Any], devices: Devices) -> dict[str, Any]:
    of = accepts.get("of", ())
    match accepts["kind"]:
        case "device":
            return {"type": "string", "x-device": True, "examples": _names(accepts, devices)}
        case "choice":
            return {"enum": list(accepts["values"])}
        case "list":
            return {"type": "array", "items": _type(of, devices)}
        case "any_of":
            return {"anyOf": [_type(each, devices) for each in of if each["kind"] != "callable"]}
        case "group":
            return {"type": "array", **_group(accepts, devices)}
        case kind:
            return dict(_PLAIN.get(kind, {}))


def _group(accepts: Mapping[str, Any], devices: Devices) -> dict[str, Any]:
    """Describe arguments that follow each other again and again: any list of them; `x-group` has their order."""
    each = [_type(one, devices) for one in accepts["of"]]
    last = [_type(one, devices) for one in accepts.get("then", ())]
    return {"items": {"anyOf": [*each, *last]}, "x-group": {"of": each, "then": last}}


def _names(accepts: Mapping[str, Any], devices: Devices) -> list[str]:
    """Name the whole devices that fit; parts of devices are accepted too, and not listed."""
    if accepts.get("names"):
        return list(accepts["names"])
    needs, labels = set(accepts.get("protocols", ())), set(accepts.get("labels", ()))
    return sorted(
        path
        for path, device in devices.items()
        if device.parent is None
        and device.enabled
        and needs <= set(device.protocols)
        and (not labels or labels & set(device.labels))
    )
