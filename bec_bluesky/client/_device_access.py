"""What one event loop needs to use devices, a person's session or the HTTP API."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bec_bluesky.bus import Bus
from bec_bluesky.client._device_facts import DeviceFacts
from bec_bluesky.client._live_readings import LiveReadings
from bec_bluesky.proxy import DeviceLink

__all__ = ["DeviceAccess", "open_device_access"]

_FIRST_BEAT = 0.5
"""Seconds for which the servers' first sign of life is waited for."""


@dataclass(frozen=True)
class DeviceAccess:
    """The link to the device servers and what is made of it; `live.run()` must run for those who watch."""

    link: DeviceLink
    facts: DeviceFacts
    live: LiveReadings


@contextlib.asynccontextmanager
async def open_device_access(bus: Bus) -> AsyncIterator[DeviceAccess]:
    """Connect while the block lasts; the device servers may come and go."""
    link = await DeviceLink.connect(bus.address, bus.beamline, is_light=True)
    try:
        await link.wait_until_ready(_FIRST_BEAT)
        yield DeviceAccess(link, DeviceFacts(link, bus), LiveReadings(link, bus))
    finally:
        await link.close()
