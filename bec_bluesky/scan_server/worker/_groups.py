"""What a plan's `*args` repeat: motor, start, stop, and again."""

import re
from typing import Any

__all__ = ["group_of"]

_SPOKEN = re.compile(r"[Gg]roups of ``([\w, ]+)``")
"""In the text of `*args` of a plan: ``groups of ``motor, start, stop`` ``."""
_MOTOR: dict[str, Any] = {"kind": "device", "protocols": ["Movable"], "name": "motor"}
_START: dict[str, Any] = {"kind": "number", "name": "start"}
_STOP: dict[str, Any] = {"kind": "number", "name": "stop"}
_NUM: dict[str, Any] = {"kind": "integer", "name": "num", "min": 1}
_POSITIONS: dict[str, Any] = {"kind": "list", "of": {"kind": "any"}, "name": "positions"}
_VALUE: dict[str, Any] = {"kind": "any", "name": "value", "devices": False}
_LINE: dict[str, Any] = {"kind": "group", "of": [_MOTOR, _START, _STOP], "then": [_NUM]}
_GRID: dict[str, Any] = {"kind": "group", "of": [_MOTOR, _START, _STOP, _NUM]}
_LISTS: dict[str, Any] = {"kind": "group", "of": [_MOTOR, _POSITIONS]}
_MOVES: dict[str, Any] = {"kind": "group", "of": [_MOTOR, _VALUE]}
_OF_BLUESKY: dict[str, dict[str, Any]] = {
    "scan": _LINE,
    "rel_scan": _LINE,
    "grid_scan": _GRID,
    "rel_grid_scan": _GRID,
    "list_scan": _LISTS,
    "rel_list_scan": _LISTS,
    "list_grid_scan": _LISTS,
    "rel_list_grid_scan": _LISTS,
    "mv": _MOVES,
    "mvr": _MOVES,
}


def group_of(plan: str, text: str) -> dict[str, Any] | None:
    """Give the group that `*args` of a plan takes: as the text of the parameter says, else as bluesky's plans do."""
    spoken = _SPOKEN.search(text)
    if spoken is None:
        return _OF_BLUESKY.get(plan)
    return {"kind": "group", "of": [_meant_by(name.strip()) for name in spoken.group(1).split(",")]}


def _meant_by(name: str) -> dict[str, Any]:
    if "motor" in name or name == "device":
        return {"kind": "device", "protocols": ["Movable"], "name": name}
    if "detector" in name:
        return {"kind": "device", "protocols": ["Readable"], "name": name}
    if name in ("positions", "points"):
        return {"kind": "list", "of": {"kind": "number"}, "name": name}
    if name.startswith("num"):
        return {"kind": "integer", "name": name, "min": 1}
    return dict(_VALUE) if name == "value" else {"kind": "number", "name": name}
