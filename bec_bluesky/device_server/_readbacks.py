"""Latest readings for whoever looks on; published without touching how a scan reads."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

import ophyd
from ophyd.positioner import PositionerBase
from ophyd.utils import DisconnectedError
from ophyd_async.core import NotConnectedError

from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACK_CHANGES, READBACKS
from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._reading import Reader
from bec_bluesky.device_server._registry import Entry, Found, Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.errors import BusError, DeviceDisconnected
from bec_bluesky.log import logger
from bec_bluesky.messages import encode
from bec_bluesky.messages.devices import Readback

__all__ = ["Readbacks"]

_log = logger(__name__)
_PERIOD = 0.1
"""Seconds between two publications of a device that moves."""
_IDLE_PERIOD = 2.0
"""Seconds between two looks at devices that nobody moves."""
_LONGEST_READ = 1.0
"""Seconds."""
_MOST_BYTES = 16_384
"""Larger readings (images) are not published."""
_GONE = (TimeoutError, ConnectionError, DisconnectedError, NotConnectedError)
"""What reading a device raises whose control system does not answer."""


class Readbacks:
    """Reads what changed ten times a second, everything now and then, and publishes what is new.

    A device has changed when something ended on it, is under way on it, or, if it is of ophyd, when it says so. No
    monitor is set up on ophyd-async: it would make a running scan's `read()` answer from a cache.
    """

    def __init__(
        self,
        server: str,
        registry: Registry,
        reader: Reader,
        statuses: Statuses,
        bus: Bus,
    ) -> None:
        self._server = server
        self._registry = registry
        self._reader = reader
        self._statuses = statuses
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, Entry] = {}
        self._published: dict[str, bytes] = {}
        self._readings: dict[str, dict[str, Any]] = {}
        self._met: dict[str, int] = {}
        """{device: its generation, once it is followed and its units are known}"""
        self._units: dict[str, dict[str, str]] = {}
        self._something_changed = asyncio.Event()
        self._is_ending = False

    def note(self, entries: Iterable[Entry]) -> None:
        """Devices may read differently now."""
        self._changed |= {entry.name: entry for entry in entries}
        self._something_changed.set()

    def forget(self) -> None:
        """Publish everything again: Redis lost it."""
        self._published.clear()

    def end(self) -> None:
        """Publish no more.

        Cancelling would not do: ophyd-async reads by `asyncio.wait_for`, which before Python 3.12 swallows a
        cancellation that comes with the result.
        """
        self._is_ending = True
        self._something_changed.set()

    async def run(self) -> None:
        """Publish until the end."""
        next_look = 0.0
        while not self._is_ending:
            if time.monotonic() >= next_look:
                self._changed |= {entry.name: entry for entry in self._registry.connected()}
                next_look = time.monotonic() + _IDLE_PERIOD
            changed, self._changed = self._changed, {}
            self._something_changed.clear()
            try:
                await self._publish([entry for entry in changed.values() if entry.device is not None])
            except BusError as error:
                _log.debug("readbacks are not published: %s", error)
            await asyncio.sleep(_PERIOD)
            self._changed |= {name: self._registry.entries[name] for name in self._statuses.moving()}
            if not self._changed:
                await self._wait(next_look - time.monotonic())

    async def _wait(self, longest: float) -> None:
        with contextlib.suppress(TimeoutError):  # time for a look at everything
            async with asyncio.timeout(max(0.0, longest)):
                await self._something_changed.wait()

    async def _publish(self, entries: list[Entry]) -> None:
        fresh: dict[str, Readback] = {}
        there: list[Found] = []
        for entry in entries:
            if entry.spec.blocking or not hasattr(entry.device, "read"):
                continue
            if getattr(entry.device, "connected", True):  # ophyd-async has none: there the reading tells
                there.append(self._registry.find(entry.name))
            else:
                self._lost(entry, _silence(entry.device), fresh)
                # the status of a move does not end without its IOC
                self._statuses.fail(entry, DeviceDisconnected(f"{entry.name} was lost: {entry.reason}"))
        for found, reading in zip(there, await self._reader.read_many(there, timeout=_LONGEST_READ), strict=True):
            if isinstance(reading, _GONE):
                said = (
                    f"{type(reading).__name__}: {reading}" if str(reading) else f"no reading within {_LONGEST_READ:g} s"
                )
                self._lost(found.entry, said, fresh)
            elif not isinstance(reading, BaseException):  # other errors are for who wants the reading
                await self._read(found, dict(reading), fresh)
        await self._bus.put_fields(READBACKS, fresh, server=self._server)
        for readback in fresh.values():
            await self._bus.append(READBACK_CHANGES, readback)

    async def _read(self, found: Found, reading: dict[str, Any], fresh: dict[str, Readback]) -> None:
        entry = found.entry
        if entry.state == "disconnected":
            self._registry.mark(entry, "connected", "")
            self._published.pop(entry.name, None)
        if self._met.get(entry.name) != entry.generation:
            self._met[entry.name] = entry.generation
            await self._meet(found)
        if not reading:
            return  # nothing to show: frames go to files
        data = encode(reading)
        if data == self._published.get(entry.name) or len(data) > _MOST_BYTES:
            return
        self._published[entry.name] = data
        self._readings[entry.name] = reading
        fresh[entry.name] = Readback(
            device=entry.name, time=time.time(), reading=reading, units=self._units.get(entry.name, {})
        )

    def _lost(self, entry: Entry, reason: str, fresh: dict[str, Readback]) -> None:
        if entry.state == "disconnected":
            return
        _log.warning("device %s is disconnected: %s", entry.name, reason, extra={"device": entry.name})
        self._registry.mark(entry, "disconnected", reason)
        fresh[entry.name] = Readback(
            device=entry.name, time=time.time(), reading=self._readings.get(entry.name, {}), connected=False
        )

    async def _meet(self, found: Found) -> None:
        """Learn the units of a device, and have it say when it moves."""
        device = found.device
        with contextlib.suppress(Exception):  # a stranger's; a detector describes itself only once it is prepared
            async with asyncio.timeout(_LONGEST_READ):
                described = await self._reader.described(found)
            units = {key: str(entry["units"]) for key, entry in described.items() if entry.get("units")}
            self._units[found.entry.name] = units
        if isinstance(device, PositionerBase) or type(device) is ophyd.Signal:

            def changed(*_: Any, **__: Any) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: the server ended meanwhile
                    self._loop.call_soon_threadsafe(self.note, (found.entry,))

            device.subscribe(changed, run=False)


def _silence(device: Any) -> str:
    """Say which PVs of an ophyd device do not answer."""
    first, *others = _layers.mute(device) or [device.name]
    more = f" and {len(others)} more PVs do" if others else " does"
    return f"{first}{more} not answer"
