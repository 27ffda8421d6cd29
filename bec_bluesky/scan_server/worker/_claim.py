"""What a running item holds of devices."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from bec_bluesky.errors import DeviceHeld
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.proxy import DeviceLink, Holding
from bec_bluesky.scan_server._item_devices import all_devices

__all__ = ["ItemClaim"]

_LOOKS = 0.1
"""Seconds between two tries to hold devices that somebody else holds."""


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

    def begin(self, tell: Callable[[str], None], is_unwanted: Callable[[], bool]) -> None:
        """Hold them; while somebody else does, `tell` who, and wait until they are free or the item is to end.

        That is as long as it takes: people see who holds them, and may end the item. Nothing of it is held meanwhile.
        """
        told = ""
        while not is_unwanted():
            try:
                self._in_loop(self._link.claims.begin(self._holding))
            except DeviceHeld as held:
                if told != str(held):
                    told = str(held)
                    tell(told)
                time.sleep(_LOOKS)
            else:
                self._is_begun = True
                break
        if told:
            tell("")

    def end(self) -> None:
        """Let go of everything; whoever hears that the item has ended can use the devices."""
        if self._is_begun:
            self._in_loop(self._link.claims.end(self._holding))

    def _in_loop(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._link.loop).result()
