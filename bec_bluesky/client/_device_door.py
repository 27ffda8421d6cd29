"""A session's way to the devices: one link to their servers, shared by all device objects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACKS
from bec_bluesky.client._device import Device
from bec_bluesky.client._live_readings import LiveReadings
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.client._viewing import CallbackThread, Reading, Viewing
from bec_bluesky.messages.devices import DeviceInfo, Readback
from bec_bluesky.proxy import DeviceLink

__all__ = ["DeviceDoor", "open_device_door", "published", "reason_of", "state_of"]

_FIRST_BEAT = 0.5
"""Seconds for which the servers' first sign of life is waited for."""


class DeviceDoor:
    """Knows what there is, and makes one object for each device; its calls wait in the calling thread."""

    def __init__(self, loop: LoopThread, bus: Bus, link: DeviceLink, live: LiveReadings) -> None:
        self._loop = loop
        self._bus = bus
        self.link = link
        self._live = live
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
        return state_of(self.link, info)

    def reason(self, info: DeviceInfo) -> str:
        """Say why a device is not connected."""
        return reason_of(self.link, info)

    def holders(self) -> dict[str, str]:
        """Say of each device that is held who holds it."""
        return {}

    def published(self) -> dict[str, Readback]:
        """Give what was published last, of all devices."""
        return self._loop.call(published(self.link, self._bus))

    def published_of(self, info: DeviceInfo) -> Readback | None:
        """Give what was published last of a device; parts are not."""
        return self._loop.call(self._bus.field(READBACKS, info.path, server=info.server))

    # ── subscriptions ──

    def subscribe(self, path: str, callback: Callable[[Reading], None]) -> Viewing:
        """Tell a callback what a device reads, now and at each change."""
        viewing = Viewing(path, callback, self._threads, self._end)
        self._loop.call(_in_loop(self._live.add, path, viewing.hear))
        return viewing

    def _end(self, viewing: Viewing) -> None:
        self.link.call_in_loop(self._live.remove, viewing.path, viewing.hear)


@contextlib.asynccontextmanager
async def open_device_door(loop: LoopThread, bus: Bus) -> AsyncIterator[DeviceDoor]:
    """Open a door in the running loop, which is that of `loop`, while the block lasts."""
    link = await DeviceLink.connect(bus.address, bus.beamline, is_light=True)
    live = LiveReadings(link, bus)
    following = asyncio.create_task(live.run(), name="readings for people")
    try:
        await link.wait_until_ready(_FIRST_BEAT)
        yield DeviceDoor(loop, bus, link, live)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await link.close()


def state_of(link: DeviceLink, info: DeviceInfo) -> str:
    """Give the state of a device, `no server` if its server gives no sign of life."""
    return info.state if link.is_heard(info.server) else "no server"


def reason_of(link: DeviceLink, info: DeviceInfo) -> str:
    """Say why a device is not connected; empty if it is."""
    if link.is_heard(info.server):
        return info.reason
    return f"device server {info.server!r} gives no sign of life (`bec-bluesky status`)"


async def published(link: DeviceLink, bus: Bus) -> dict[str, Readback]:
    """Give what was published last, of all devices of all servers."""
    servers = {link.directory.info(name).server for name in link.directory.names()}
    tables: list[dict[str, Readback]] = [await bus.fields(READBACKS, server=server) for server in sorted(servers)]
    return {path: readback for table in tables for path, readback in table.items()}


async def _in_loop(function: Callable[..., None], *args: Any) -> None:
    function(*args)
