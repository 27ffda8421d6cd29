"""What a running item holds of devices."""

import asyncio
from typing import Any

from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.proxy import DeviceLink, Holding
from bec_bluesky.scan_server._item_devices import all_devices

__all__ = ["ItemClaim"]


class ItemClaim:
    """Holds the devices of an item from before its plan begins until it has ended; for the main thread.

    Devices of which nobody knew beforehand are held from their first use on.
    """

    def __init__(self, link: DeviceLink, item: QueueItem) -> None:
        self._link = link
        who = ", ".join(part for part in (f"item {item.item_id[:8]}", item.user) if part)
        facts = {"item_id": item.item_id, "user": item.user}
        devices = all_devices(item, item.properties.get("devices") or (), link.devices)
        self._holding = Holding(devices, f"{item.plan} ({who})", facts)
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
