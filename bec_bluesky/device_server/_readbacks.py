"""Latest readings for whoever looks on; published without touching how a scan reads."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import ophyd
from ophyd.positioner import PositionerBase
from ophyd.utils import DisconnectedError
from ophyd_async.core import NotConnectedError

from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACK_CHANGES, READBACKS
from bec_bluesky.device_server._connections import Connections
from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.device_server._reading import Reader
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.errors import BusError, DeviceError
from bec_bluesky.log import logger
from bec_bluesky.messages import pack
from bec_bluesky.messages.devices import Readback

__all__ = ["Readbacks"]

_log = logger(__name__)
_PERIOD = 0.1
"""Seconds between two publications of a device that moves."""
_IDLE_PERIOD = 2.0
"""Seconds between two looks at devices that nobody moves."""
_VIEW_PERIOD = 0.2
"""Seconds between two looks at devices that somebody views."""
_LONGEST_READ = 1.0
"""Seconds."""
_MOST_BYTES = 16_384
"""Of a larger reading, what is large (images) is not published."""
_GONE = (TimeoutError, ConnectionError, DisconnectedError, NotConnectedError)
"""What reading a device raises whose control system does not answer."""


class Readbacks:
    """Reads what changed ten times a second, everything now and then, and publishes what is new.

    A device has changed when something ended on it, is under way on it, or, if it is of ophyd, when it says so. No
    monitor is set up on ophyd-async: it would make a running scan's `read()` answer from a cache. What a person views
    (`view`), parts of devices too, is looked at more often; parts go to the log only. Devices that block are not read
    for this: what others read of them is published.
    """

    def __init__(
        self,
        server: str,
        registry: Registry,
        reader: Reader,
        statuses: Statuses,
        connections: Connections,
        bus: Bus,
    ) -> None:
        self._server = server
        self._registry = registry
        self._reader = reader
        self._statuses = statuses
        self._connections = connections
        self._lost: list[str] = []
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, Entry] = {}
        self._published: dict[str, bytes] = {}
        self._readings: dict[str, dict[str, Any]] = {}
        self._met: dict[str, int] = {}
        """{device: its generation, once it is followed and its units are known}"""
        self._units: dict[str, dict[str, str]] = {}
        self._viewed: dict[str, float] = {}
        """{path: monotonic time until which it is viewed}"""
        self._gone: set[str] = set()
        """Parts whose control system does not answer."""
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

    async def view(self, found: Found, seconds: float) -> Readback:
        """Give what a device, or a part of one, reads now, and publish for so many seconds what changes.

        Raises what reading it raises; one that blocks gives its last reading, empty if there is none.
        """
        path = found.path
        self._viewed[path] = time.monotonic() + seconds
        self._something_changed.set()
        asked = time.time()
        if found.entry.spec.blocking or found.entry.is_waiting:
            reading = self._reader.taken.get(path, {})
        else:
            await self._meet_once(found)
            (reading,) = await self._reader.read_many([found], timeout=_LONGEST_READ)
            if isinstance(reading, BaseException):
                raise reading
        return Readback(device=path, time=asked, reading=_small(dict(reading)), units=self._units.get(path, {}))

    def _viewed_now(self) -> list[str]:
        now = time.monotonic()
        self._viewed = {path: until for path, until in self._viewed.items() if until > now}
        return list(self._viewed)

    async def run(self) -> None:
        """Publish until the end."""
        next_look = 0.0
        while not self._is_ending:
            if time.monotonic() >= next_look:
                self._changed |= {entry.name: entry for entry in self._registry.connected()}
                next_look = time.monotonic() + _IDLE_PERIOD
            viewed = {path.partition(".")[0] for path in self._viewed_now()}
            self._changed |= {name: self._registry.entries[name] for name in viewed if name in self._registry.entries}
            changed, self._changed = self._changed, {}
            self._something_changed.clear()
            try:
                await self._publish([entry for entry in changed.values() if entry.device is not None])
            except BusError as error:
                _log.debug("readbacks are not published: %s", error)
            await asyncio.sleep(_PERIOD)
            self._changed |= {name: self._registry.entries[name] for name in self._statuses.moving()}
            if not self._changed and not self._lost:
                await self._wait(_VIEW_PERIOD - _PERIOD if self._viewed else next_look - time.monotonic())

    async def _wait(self, longest: float) -> None:
        with contextlib.suppress(TimeoutError):  # time for a look at everything
            async with asyncio.timeout(max(0.0, longest)):
                await self._something_changed.wait()

    async def _publish(self, entries: list[Entry]) -> None:
        fresh: dict[str, Readback] = {}
        there: list[Found] = []
        for found in self._to_read(entries):
            if found.entry.spec.blocking:
                self._take(found, dict(self._reader.taken.get(found.path, {})), fresh)
            elif found.entry.state == "connected":
                there.append(found)
        for found, reading in zip(there, await self._reader.read_many(there, timeout=_LONGEST_READ), strict=True):
            if isinstance(reading, _GONE) and found.path == found.entry.name:
                self._connections.suspect(found, reading)
            elif isinstance(reading, _GONE):
                self._lose_part(found.path, fresh)
            elif not isinstance(reading, BaseException):  # other errors are for who wants the reading
                await self._read(found, dict(reading), fresh)
        fresh |= self._take_lost()
        devices = {path: readback for path, readback in fresh.items() if path in self._registry.entries}
        await self._bus.put_fields(READBACKS, devices, server=self._server)
        if fresh:
            await self._bus.append_all(READBACK_CHANGES, fresh.values())

    def _to_read(self, entries: Iterable[Entry]) -> Iterator[Found]:
        """Give the devices, and those of their parts that are viewed."""
        parts = [path for path in self._viewed if "." in path]
        for entry in entries:
            for path in (entry.name, *(part for part in parts if part.startswith(f"{entry.name}."))):
                with contextlib.suppress(LookupError, DeviceError):  # another generation may lack a part
                    found = self._registry.find(path)
                    if hasattr(found.device, "read"):
                        yield found

    async def _read(self, found: Found, reading: dict[str, Any], fresh: dict[str, Readback]) -> None:
        if found.path in self._gone:
            self._gone.discard(found.path)
            self._published.pop(found.path, None)
        await self._meet_once(found)
        self._take(found, reading, fresh)

    def _take(self, found: Found, reading: dict[str, Any], fresh: dict[str, Readback]) -> None:
        path, reading = found.path, _small(reading)
        if not reading:
            return  # nothing to show: frames go to files
        data = pack(reading)
        if data == self._published.get(path):
            return
        self._published[path] = data
        self._readings[path] = reading
        fresh[path] = Readback(device=path, time=time.time(), reading=reading, units=self._units.get(path, {}))

    def lose(self, entry: Entry) -> None:
        """Publish that the last reading of a device is not of now."""
        self._lost.append(entry.name)
        self._published.pop(entry.name, None)
        self._something_changed.set()

    def _take_lost(self) -> dict[str, Readback]:
        lost, self._lost = self._lost, []
        return {path: self._outdated(path) for path in lost}

    def _lose_part(self, path: str, fresh: dict[str, Readback]) -> None:
        if path not in self._gone:
            self._gone.add(path)
            fresh[path] = self._outdated(path)

    def _outdated(self, path: str) -> Readback:
        return Readback(device=path, time=time.time(), reading=self._readings.get(path, {}), connected=False)

    async def _meet_once(self, found: Found) -> None:
        if self._met.get(found.path) != found.entry.generation:
            self._met[found.path] = found.entry.generation
            self._published.pop(found.path, None)
            await self._meet(found)

    async def _meet(self, found: Found) -> None:
        """Learn the units of a device, and have it say when it moves."""
        device = found.device
        with contextlib.suppress(Exception):  # a stranger's; a detector describes itself only once it is prepared
            async with asyncio.timeout(_LONGEST_READ):
                described = await self._reader.described(found)
            units = {key: str(entry["units"]) for key, entry in described.items() if entry.get("units")}
            self._units[found.path] = units
        if isinstance(device, PositionerBase) or type(device) is ophyd.Signal:

            def changed(*_: Any, **__: Any) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: the server ended meanwhile
                    self._loop.call_soon_threadsafe(self.note, (found.entry,))

            device.subscribe(changed, run=False)


def _small(reading: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is too large to be published."""
    if len(pack(reading)) <= _MOST_BYTES:
        return reading
    return {key: entry for key, entry in reading.items() if len(pack(entry)) <= _MOST_BYTES // 16}
