"""A session's way to the devices: one link to their servers, shared by all device objects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.client._device import Device
from bec_bluesky.client._device_access import DeviceAccess, open_device_access
from bec_bluesky.client._device_notes import DeviceNotes
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.client._viewing import CallbackThread, Reading, Viewing
from bec_bluesky.messages.devices import DeviceInfo, Readback

__all__ = ["DeviceDoor", "open_device_door"]


class DeviceDoor:
    """Knows what there is, and makes one object for each device; its calls wait in the calling thread."""

    def __init__(self, loop: LoopThread, access: DeviceAccess, user: str, notes: DeviceNotes) -> None:
        self._loop = loop
        self._user = user
        self.notes = notes
        """Of what this session has devices do."""
        self.link = access.link
        self._facts = access.facts
        self._live = access.live
        self._threads = CallbackThread()
        self._devices: dict[str, Device] = {}

    def device(self, path: str) -> Device:
        """Give the one object of this session for a device or a part of one, whether it is there or not."""
        return self._devices.setdefault(path, Device(self, path))

    def close(self) -> None:
        """End the thread of callbacks."""
        self._threads.stop()

    # ── what is known ──

    def state(self, info: DeviceInfo) -> str:
        """Give the state of a device, `no server` if its server gives no sign of life."""
        return self._facts.state(info)

    def reason(self, info: DeviceInfo) -> str:
        """Say why a device is not connected."""
        return self._facts.reason(info)

    def holders(self) -> dict[str, str]:
        """Say who holds each device that is held."""
        return self._loop.call(self._facts.holders())

    def holder(self, info: DeviceInfo) -> str | None:
        """Say who holds a device; None if nobody does."""
        return self._loop.call(self._facts.holder(info))

    def readbacks(self) -> dict[str, Readback]:
        """Give what was published last, by device."""
        return self._loop.call(self._facts.readbacks())

    def readback(self, info: DeviceInfo) -> Readback | None:
        """Give what was published last of a device; parts are not."""
        return self._loop.call(self._facts.readback(info))

    # ── holding ──

    @contextlib.contextmanager
    def holding(self, paths: Iterable[str], why: str) -> Iterator[None]:
        """Hold devices for this session while the block lasts."""
        context = self.link.holding(paths, f"{self._user} ({why})" if why else self._user, user=self._user)
        self._loop.call(context.__aenter__())
        try:
            yield
        finally:
            self._loop.call(context.__aexit__(None, None, None))

    # ── subscriptions ──

    def subscribe(self, path: str, callback: Callable[[Reading], None]) -> Viewing:
        """Tell a callback what a device reads, now and at each change."""
        viewing = Viewing(path, callback, self._threads, self._end)
        self._loop.call(_in_loop(self._live.add, path, viewing.hear))
        return viewing

    def _end(self, viewing: Viewing) -> None:
        self.link.call_in_loop(self._live.remove, viewing.path, viewing.hear)


@contextlib.asynccontextmanager
async def open_device_door(loop: LoopThread, bus: Bus, user: str, notes: DeviceNotes) -> AsyncIterator[DeviceDoor]:
    """Open a door in the running loop, which is that of `loop`, while the block lasts."""
    async with open_device_access(bus) as access:
        following = asyncio.create_task(access.live.run(), name="readings for people")
        try:
            yield DeviceDoor(loop, access, user, notes)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _in_loop(function: Callable[..., None], *args: Any) -> None:
    function(*args)
