"""A device of the file, as its server keeps it, and what is found by a dotted path."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.device_server._layers import Layer
from bec_bluesky.messages.devices import DeviceInfo

__all__ = ["CONNECTING", "Entry", "Found"]

CONNECTING = "it is being built and connected"


@dataclass
class Entry:
    """A device of the file and what became of it."""

    name: str
    spec: DeviceSpec
    device: Any = None
    state: Literal["connected", "failed", "disconnected", "disabled"] = "failed"
    reason: str = CONNECTING
    generation: int = 0
    infos: list[DeviceInfo] = field(default_factory=list[DeviceInfo])
    is_mistaken: bool = False
    """Whether its entry in the file is wrong, so that trying again is of no use."""
    constructing: "Future[Any] | None" = None
    """The call of its class in a thread, which nobody can end if it hangs."""
    is_waiting: bool = False
    """Whether it is lazy and was not connected yet."""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is built, so that nobody else builds or removes it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A device, or a part of one, by its dotted path."""

    path: str
    entry: Entry
    device: Any
    layer: Layer
    moved: tuple[str, ...]
    """Devices that are held when this is used: its own, and those that this one moves."""
