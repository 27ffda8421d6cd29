"""Interlocks: conditions on what devices read, watched whatever runs, and what is done when they trip and clear."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import AROUND
from bec_bluesky.errors import BusError, RefusedError, SettingsError
from bec_bluesky.guards import Interlock
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Readback
from bec_bluesky.messages.queue import ControlRun, ExecuteItem, Request
from bec_bluesky.plugins import read_profile
from bec_bluesky.proxy import DeviceLink, value_of
from bec_bluesky.scan_server._interlock_state import InterlockState
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._queue_events import Started, StopAsked, StopCancelled
from bec_bluesky.scan_server._surroundings import Surroundings
from bec_bluesky.settings import Settings

__all__ = ["Interlocks"]

_log = logger(__name__)
_PERIOD = 0.2
"""Seconds between two looks."""
_LONGEST_READ = 1.0
_LEASE = 2.0
"""Seconds for which a device server counts the device as viewed; others see it change sooner, too."""
_FIRST_LOOK = 5.0
"""Seconds that devices have to be found after the start; until they are read nothing begins."""
_FIELD = "interlocks"
_NOT_YET = "interlocks: their devices are being read for the first time"


class Interlocks:
    """Watches what `[[interlocks]]` name, and acts on the queues.

    While one is tripped whose action is more than an alarm, no item begins, and none is resumed.
    """

    def __init__(
        self,
        settings: Settings,
        keeper: QueueKeeper,
        pool: WorkerPool,
        around: Surroundings,
        alarm: Callable[..., Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._settings, self._keeper, self._pool = settings, keeper, pool
        self._around, self._alarm, self._changed = around, alarm, changed
        self._path = read_profile(settings).path
        self._read = 0
        """When the profile was changed last, as far as it was read."""
        self._states = {entry.name: InterlockState(entry) for entry in self._enabled()}
        self._is_ready = not self._states
        """Whether devices were looked at."""
        self._kept = b""
        """What is in Redis of what those did that are tripped."""

    # ── for others ──

    @property
    def forbids(self) -> str:
        """Why nothing may begin; empty: it may."""
        if not self._is_ready:
            return _NOT_YET
        return next((state.text for state in self._states.values() if _holds(state)), "")

    def check(self, request: Request) -> None:
        """Refuse what would go on past a tripped interlock."""
        body = request.body
        if not isinstance(body, ExecuteItem) and not (isinstance(body, ControlRun) and body.action == "resume"):
            return
        if why := self.forbids:
            raise RefusedError(f"{why}; nothing begins or goes on until that is over", "interlocked")

    # ── life ──

    async def run(self, bus: Bus) -> None:
        """Watch for ever."""
        await self._remember(bus)
        link = await self._connect(bus)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LOOK):
                    while not all(path in link.devices for path in self._paths):  # noqa: ASYNC110  # they appear when announced
                        await asyncio.sleep(_PERIOD)
            while True:
                known = await self._look(link)
                await self._judge(known)
                await self._keep(bus)
                if not self._is_ready:
                    self._is_ready = True
                    self._tell()
                    self._keeper.nudge()
                await asyncio.sleep(_PERIOD)
                await self._reload()
        finally:
            await link.close()

    async def _remember(self, bus: Bus) -> None:
        """Take over what was tripped, and what that did, from the scan server before this one."""
        while True:
            with contextlib.suppress(BusError):
                self._kept = await bus.field(AROUND, _FIELD) or b""
                break
            await asyncio.sleep(1.0)
        for name, memory in (msgspec.msgpack.decode(self._kept) if self._kept else {}).items():
            if name in self._states:
                self._states[name].remember(memory)
        self._tell()

    async def _keep(self, bus: Bus) -> None:
        tripped = {name: state.memory for name, state in self._states.items() if state.is_tripped}
        kept = msgspec.msgpack.encode(tripped) if tripped else b""
        if kept != self._kept:
            with contextlib.suppress(BusError):  # then the next look keeps it
                await bus.put_raw_field(AROUND, _FIELD, kept)
                self._kept = kept

    async def _connect(self, bus: Bus) -> DeviceLink:
        """Connect when there is something to watch."""
        while True:
            with contextlib.suppress(BusError):
                if await self._reload():
                    return await DeviceLink.connect(bus.address, self._settings.beamline, is_light=True)
            await asyncio.sleep(1.0)

    @property
    def _paths(self) -> list[str]:
        """Devices that are watched."""
        conditions = (each for state in self._states.values() for each in state.entry.when)
        return list(dict.fromkeys(each.device for each in conditions))

    async def _look(self, link: DeviceLink) -> dict[str, Any]:
        """Give what the devices read now; those that cannot be read are left out."""
        paths = self._paths
        values = await asyncio.gather(*(_value(link, path) for path in paths))
        return {path: found[0] for path, found in zip(paths, values, strict=True) if found}

    def _enabled(self) -> tuple[Interlock, ...]:
        """Give what the profile asks for; raises SettingsError."""
        self._read = self._path.stat().st_mtime_ns
        return tuple(entry for entry in read_profile(self._settings).interlocks if entry.enabled)

    async def _reload(self) -> bool:
        """Take an edit of the profile, if there was one; a mistake in it leaves everything as it is. Is there any?"""
        try:
            if self._path.stat().st_mtime_ns == self._read:
                return bool(self._states)
            entries = self._enabled()
        except (SettingsError, OSError) as error:
            await self._alarm(f"interlocks are as they were before: {error}", level="error")
            return bool(self._states)
        before, self._states = self._states, {}
        for entry in entries:
            known = before.pop(entry.name, None)
            self._states[entry.name] = known if known and known.entry == entry else InterlockState(entry)
        for gone in before.values():
            self._release(gone)
        self._tell()
        return bool(entries)

    # ── what is done ──

    async def _judge(self, known: dict[str, Any]) -> None:
        now = time.monotonic()
        for state in list(self._states.values()):
            match state.take(known, now):
                case "tripped":
                    self._tell()
                    self._act(state)
                    await self._alarm(f"{state.text}: {state.entry.action}", level="error")
                case "clear":
                    self._release(state)
                    self._tell()
                    await self._alarm(f"interlock {state.entry.name} is clear", level="info")
                case None:
                    pass

    def _tell(self) -> None:
        self._around.interlocks = tuple(state.text for state in self._states.values() if state.is_tripped)
        self._changed()

    def _act(self, state: InterlockState) -> None:
        """Do what a tripped interlock is for, in every queue."""
        action = state.entry.action
        for name, queue in self._keeper.states.items():
            if action in ("stop_queue", "abort") and queue.mode == "running":
                state.stopped.add(name)
                self._keeper.post(name, StopAsked())
            if queue.running is None:
                continue
            activity = self._pool.activity(queue.running)
            is_paused = activity is not None and activity.state == "paused"
            if action in ("pause", "pause_now") and not is_paused:
                state.paused.add(queue.running.item_id)
                self._pool.control(queue.running.item_id, action, state.text)
            elif action == "abort":
                self._pool.control(queue.running.item_id, "abort", state.text)

    def _release(self, state: InterlockState) -> None:
        """Take back what one did that is clear, unless another one holds: then that one has to."""
        other = next((each for each in self._states.values() if each is not state and _holds(each)), None)
        paused, stopped = state.paused, state.stopped
        state.paused, state.stopped = set(), set()
        if other is not None:
            other.paused |= paused if state.entry.when_clear == "resume" else set()
            other.stopped |= stopped if state.entry.when_clear == "start_queue" else set()
            return
        if state.entry.when_clear == "resume":
            for item_id in paused:
                self._pool.control(item_id, "resume", "")
        elif state.entry.when_clear == "start_queue":
            for name in stopped:
                queue = self._keeper.states[name]
                if queue.mode == "stopping":
                    self._keeper.post(name, StopCancelled())
                elif queue.mode == "stopped" and queue.waiting:
                    self._keeper.post(name, Started())
        self._keeper.nudge()


def _holds(state: InterlockState) -> bool:
    return state.is_tripped and state.entry.action != "alarm"


async def _value(link: DeviceLink, path: str) -> tuple[Any] | None:
    """Give what a device reads; None if it cannot be read."""
    try:
        async with asyncio.timeout(_LONGEST_READ):
            device = link.devices[path]
            readback = msgspec.convert(await link.request(path, "view", _LEASE), Readback)
    except Exception as error:  # noqa: BLE001  # whatever the device raised; it is asked again
        _log.debug("%s cannot be read: %s", path, error)
        return None
    reading = readback.reading
    if not readback.connected or not (device.name in reading or len(reading) == 1):
        return None
    return (value_of(reading, device.name)["value"],)
