"""Instructions of the queue: items that are no plans."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError, UnknownDeviceError, choices
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import AddItem
from bec_bluesky.scan_server._queue import STOP_HERE

__all__ = ["WAIT", "check_instruction"]

WAIT = "wait"
"""The instruction that has the queue wait: `seconds`, or until a `device` is `above`, `below` or `equals` something."""
_IT_IS = "it is wait(seconds), or wait(device=, above=, below=, equals=, timeout=) with at least one condition"


def check_instruction(asked: AddItem, devices: Mapping[str, DeviceInfo]) -> AddItem:
    """Give an instruction with all its arguments by name; raises RefusedError if there is none like that."""
    if asked.plan == STOP_HERE:
        if asked.args or asked.kwargs:
            raise BadArgumentError(f"{STOP_HERE} takes no arguments")
        return asked
    if asked.plan != WAIT:
        known = choices(asked.plan, (STOP_HERE, WAIT))
        raise RefusedError(f"No instruction {asked.plan!r}: {known}", "unknown_instruction")
    given = dict(zip(["seconds"], asked.args, strict=False)) | asked.kwargs
    if len(asked.args) > 1 or (asked.args and "seconds" in asked.kwargs):
        raise BadArgumentError(f"{WAIT}: too many arguments; {_IT_IS}")
    for name in given.keys() - {"seconds", "device", "above", "below", "equals", "timeout"}:
        raise BadArgumentError(f"{WAIT}: no argument {name!r}; {_IT_IS}")
    for name in given.keys() & {"seconds", "above", "below", "timeout"}:
        _check_number(name, given[name])
    if "device" in given:
        _check_condition(given, devices)
    elif given.keys() != {"seconds"}:
        raise BadArgumentError(f"{WAIT}: neither seconds nor a device; {_IT_IS}")
    return AddItem(
        plan=asked.plan,
        kwargs=given,
        metadata=asked.metadata,
        title=asked.title,
        note=asked.note,
        kind=asked.kind,
        properties=asked.properties,
    )


def _check_condition(given: Mapping[str, Any], devices: Mapping[str, DeviceInfo]) -> None:
    if "seconds" in given or not given.keys() & {"above", "below", "equals"}:
        raise BadArgumentError(f"{WAIT}: for what of {given['device']!r}? {_IT_IS}")
    device = devices.get(given["device"]) if isinstance(given["device"], str) else None
    if device is None:
        raise UnknownDeviceError(str(given["device"]), devices)
    if "read" not in device.methods:
        raise BadArgumentError(f"{WAIT}: {device.path} cannot be read")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise BadArgumentError(f"{WAIT}: {name}={value!r} is no number")
    if name in ("seconds", "timeout") and value < 0:
        raise BadArgumentError(f"{WAIT}: {name}={value!r} is negative")
