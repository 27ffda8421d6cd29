"""Descriptions of plans in short, for forms on web pages."""

import ast
import contextlib
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["reduce_plans"]

_TYPES = ("float", "int", "str")
"""The first that the annotation names is the type: what takes numbers takes whole ones."""
_LIST = re.compile(r"(typing\.)?list\[.+\]", re.IGNORECASE)


def reduce_plans(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Say of each parameter {type, enum, is_list, is_optional, default, min, max, step}, as far as they are known."""
    return {name: _plan(plan) for name, plan in plans.items()}


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    short: dict[str, Any] = {key: plan[key] for key in ("name", "description") if key in plan}
    parameters = [_parameter(each) for each in plan.get("parameters") or ()]
    return short | ({"parameters": parameters} if parameters else {})


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    short: dict[str, Any] = {key: parameter[key] for key in ("name", "kind", "description") if key in parameter}
    annotation = parameter.get("annotation")
    if annotation:
        short |= _annotation(annotation)
    if "default" in parameter:
        # a default that has no literal is not told
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            short["default"] = ast.literal_eval(parameter["default"])
    short["is_optional"] = "default" in short
    return short | _bounds(parameter)


def _annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    short: dict[str, Any] = {}
    text = str(annotation.get("type") or "")
    chosen = [name for key in ("devices", "plans", "enums") for name in _names(annotation.get(key))]
    found = next((name for name in _TYPES if re.search(rf"\b{name}\b", text.lower())), "")
    if chosen:
        short |= {"type": "str", "enum": chosen}
    elif found:
        short["type"] = found
    if text:
        short["is_list"] = _LIST.fullmatch(text) is not None
    return short


def _names(groups: Mapping[str, Any] | None) -> list[Any]:
    values = (groups or {}).values()
    return [name for each in values for name in (each if isinstance(each, list | tuple) else [each])]


def _bounds(parameter: Mapping[str, Any]) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for key in ("min", "max", "step"):
        text = str(parameter.get(key, ""))
        try:
            bounds[key] = int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            continue
    return bounds
