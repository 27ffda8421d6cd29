"""What a running item holds of devices."""

import asyncio
from collections.abc import Container, Iterator
from typing import Any

from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.proxy import DeviceLink, Holding

__all__ = ["ItemClaim", "devices_of"]


class ItemClaim:
    """Holds the devices of an item from before its plan begins until it has ended; for the main thread.

    Devices of which nobody knew beforehand are held from their first use on.
    """

    def __init__(self, link: DeviceLink, item: QueueItem) -> None:
        self._link = link
        who = ", ".join(part for part in (f"item {item.item_id[:8]}", item.user) if part)
        facts = {"item_id": item.item_id, "user": item.user}
        self._holding = Holding(devices_of(item, link.devices), f"{item.plan} ({who})", facts)
        self._is_begun = False

    def begin(self) -> None:
        """Hold them, or raise DeviceHeld, which says who does: then nothing has moved."""
        self._in_loop(self._link.claims.begin(self._holding))
        self._is_begun = True

    def end(self) -> None:
        """Let go of everything; whoever hears that the item has ended can use the devices."""
        if self._is_begun:
            self._in_loop(self._link.claims.end(self._holding))

    def _in_loop(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._link.loop).result()


def devices_of(item: QueueItem, devices: Container[str]) -> tuple[str, ...]:
    """Give the paths of the devices that an item names, and those that its check found."""
    asked = [item.properties.get("devices", []), item.args, list(item.kwargs.values())]
    return tuple(dict.fromkeys(text for text in _texts(asked) if text in devices))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
