"""What the device file forbids: refused before a device hears of it."""

from collections.abc import Mapping
from typing import Any

from ophyd.utils import LimitError, ReadOnlyError

from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.messages.devices import Op

__all__ = ["guard"]

_WRITES = frozenset({"set", "put", "configure"})
_MOVES = frozenset({"prepare", "kickoff"})
"""Those move what can be `set`; a detector only gets ready."""
_SETPOINTS = frozenset({"user_setpoint", "setpoint"})
"""Parts by which a device is moved as well: its limits hold for them."""


def guard(found: Found, op: Op, entries: Mapping[str, Entry]) -> None:
    """Raise ReadOnlyError, LimitError or TypeError, with a sentence, for what the device file forbids.

    A device that moves others (`devices.burst`) is prepared with `positions: {device: [value, …]}`; what the file says
    of those, which are among the `entries`, holds for it.
    """
    spec = found.entry.spec
    if op.verb == "prepare" and op.args and isinstance(op.args[0], dict):
        _check_others(op.args[0].get("positions"), entries)
    if spec.read_only and (op.verb in _WRITES or (op.verb in _MOVES and hasattr(found.device, "set"))):
        raise _read_only(op.device)
    if spec.limits is None or not op.args:
        return
    if op.verb in ("set", "put", "check_value") and _is_moved_by(found.entry, op.device):
        _check(found.entry, op.args[0])
    elif op.verb == "prepare" and isinstance(op.args[0], dict):  # a FlyMotorInfo that is not made yet
        for key in ("start_position", "end_position"):
            _check(found.entry, op.args[0].get(key))


def _is_moved_by(entry: Entry, path: str) -> bool:
    parent, _, last = path.rpartition(".")
    return path == entry.name or (parent == entry.name and last in _SETPOINTS)


def _check_others(positions: Any, entries: Mapping[str, Entry]) -> None:
    if not isinstance(positions, dict):
        return
    for name, values in positions.items():
        entry = entries.get(name)
        if entry is None or not isinstance(values, list):
            continue  # a part of a device, or a mistake of which the device will tell
        if entry.spec.read_only:
            raise _read_only(name)
        for value in values:
            _check(entry, value)


def _read_only(name: str) -> ReadOnlyError:
    return ReadOnlyError(f"{name} is read-only: `read_only: true` in the device file")


def _check(entry: Entry, value: Any) -> None:
    limits = entry.spec.limits
    if limits is not None and isinstance(value, str):  # from a form or a command line; devices say less clearly why not
        raise TypeError(f"{entry.name} moves to a number, {limits.low:g} to {limits.high:g}, not to {value!r}")
    if limits is None or isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not limits.low <= value <= limits.high:  # NaN too
        raise LimitError(f"{entry.name}: {value:g} is outside its limits, {limits.low:g} to {limits.high:g}")
