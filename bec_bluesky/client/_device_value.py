"""The value of a device: one where it has one, else all by their keys."""

from typing import Any

from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.proxy import value_of

__all__ = ["has_one_value", "value_in"]


def has_one_value(info: DeviceInfo) -> bool:
    """Whether the verb `get` gives all that a device reads: signals, and what can be somewhere."""
    is_movable = "position" in info.properties or "locate" in info.methods
    return is_movable or "get" in info.methods or not info.children


def value_in(info: DeviceInfo, reading: dict[str, dict[str, Any]]) -> Any:
    """Give the value in a reading: that of the device's own name or the only one, else {key: value}."""
    if info.name in reading or len(reading) == 1:
        return value_of(reading, info.name)["value"]
    return {key: entry["value"] for key, entry in reading.items()}
