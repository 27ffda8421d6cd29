"""Readings as they change, for all who look on in one event loop.

Nothing is monitored for a viewer: an ophyd-async signal that somebody monitors answers `read()` from its cache, and a
running scan would get other readings than without a viewer. The device server reads what is viewed, publishes what
changed (the log READBACK_CHANGES), and everybody reads that one log.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACK_CHANGES
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Readback
from bec_bluesky.proxy import DeviceLink

__all__ = ["LiveReadings"]

_log = logger(__name__)
_LEASE = 10.0
"""Seconds for which the server goes on reading a device that nobody asks for again."""
_RENEW_PERIOD = 3.0
_LOOK_PERIOD = 0.5
"""Seconds between looks at whether servers live."""

Hear = Callable[[Readback], None]


class LiveReadings:
    """Tells viewers what a device, or a part of one, reads now and whenever that changes; `run` must run."""

    def __init__(self, link: DeviceLink, bus: Bus) -> None:
        self._link = link
        self._bus = bus
        self._viewers: dict[str, set[Hear]] = {}
        self._latest: dict[str, Readback] = {}
        self._due: dict[str, float] = {}
        """{path: monotonic time at which its server must be asked again}"""
        self._epochs: dict[str, str] = {}
        """{server: its incarnation when it was heard last; empty: it is lost}"""
        self._is_wanted = asyncio.Event()
        self._is_following = asyncio.Event()
        self._something_is_due = asyncio.Event()

    def add(self, path: str, hear: Hear) -> None:
        """Call `hear(readback)` in this loop now and at each change; raises UnknownDeviceError."""
        self._link.directory.info(path)
        self._viewers.setdefault(path, set()).add(hear)
        if path in self._latest:
            hear(self._latest[path])
        else:
            self._due[path] = 0.0
        self._is_wanted.set()
        self._something_is_due.set()

    def remove(self, path: str, hear: Hear) -> None:
        """Call it no more; harmless when repeated."""
        viewers = self._viewers.get(path, set())
        viewers.discard(hear)
        if not viewers:
            self._viewers.pop(path, None)
            self._latest.pop(path, None)
            self._due.pop(path, None)
        if not self._viewers:
            self._is_wanted.clear()

    async def run(self) -> None:
        """Follow what is published, and keep the servers publishing; until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="readings of devices")
            tasks.create_task(self._keep_viewing(), name="views of devices")

    async def _follow(self) -> None:
        while True:
            await self._is_wanted.wait()
            try:
                after = await self._bus.last_id(READBACK_CHANGES)
                self._is_following.set()
                while self._viewers:
                    for entry_id, readback in await self._bus.read(READBACK_CHANGES, after, block=1.0):
                        after = entry_id
                        self._tell(readback)
            except BusError as error:
                _log.debug("readings are not followed: %s", error)
                await asyncio.sleep(_LOOK_PERIOD)
                self._due = dict.fromkeys(self._viewers, 0.0)
            finally:
                self._is_following.clear()

    async def _keep_viewing(self) -> None:
        while True:
            await self._is_wanted.wait()
            await self._is_following.wait()  # what changes after the answer must not be missed
            self._look_at_servers()
            self._something_is_due.clear()
            due = [path for path, when in self._due.items() if when <= time.monotonic()]
            await asyncio.gather(*map(self._view, due))
            with contextlib.suppress(TimeoutError):  # time for a look
                async with asyncio.timeout(_LOOK_PERIOD):
                    await self._something_is_due.wait()

    def _look_at_servers(self) -> None:
        """Tell that what a lost server owns is not connected; ask again one that is back."""
        for path in self._viewers:
            server = self._server_of(path)
            epoch = self._link.server(server).epoch if server and self._link.is_heard(server) else ""
            known = self._epochs.get(path)
            if epoch != known:
                self._epochs[path] = epoch
                self._due[path] = 0.0
                if not epoch and path in self._latest:
                    self._tell(msgspec.structs.replace(self._latest[path], connected=False))

    def _server_of(self, path: str) -> str:
        try:
            return self._link.directory.info(path).server
        except RefusedError:
            return ""

    async def _view(self, path: str) -> None:
        self._due[path] = time.monotonic() + _RENEW_PERIOD
        try:
            answer = await self._link.request(path, "view", _LEASE)
        except Exception as error:  # noqa: BLE001  # whatever the device raised; it is asked again
            _log.debug("%s cannot be viewed now: %s", path, error)
            return
        self._tell(msgspec.convert(answer, Readback))

    def _tell(self, readback: Readback) -> None:
        path = readback.device
        if path not in self._viewers:
            return
        known = self._latest.get(path)
        if known is not None and (readback.time < known.time or _is_same(readback, known)):
            return
        self._latest[path] = readback
        for hear in tuple(self._viewers[path]):
            hear(readback)


def _is_same(one: Readback, other: Readback) -> bool:
    """Whether both say the same; readings may hold arrays, whose timestamps tell."""
    if one.connected != other.connected or one.reading.keys() != other.reading.keys():
        return False
    return all(
        entry.get("timestamp") == other.reading[key].get("timestamp") and _text(entry) == _text(other.reading[key])
        for key, entry in one.reading.items()
    )


def _text(entry: dict[str, object]) -> str:
    return repr(entry.get("value"))
