"""Which devices answer: what is asked of one that does not is refused with a sentence, until it does again."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._calls import Calls
from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.device_server._reading import Reader
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.errors import DeviceDisconnected, DeviceFailed, DeviceTimeout
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Op

__all__ = ["Connections"]

_log = logger(__name__)
_PERIOD = 1.0
"""Seconds between two looks at all devices."""
_PROBE = 1.0
"""Seconds in which a device that was lost must read to count as there again."""
_AT_ONCE = 0.5
"""Seconds within which a TimeoutError is the device's own word, rather than a device that does not answer."""
_ALWAYS = frozenset({"stop", "unstage", "subscribe", "unsubscribe", "clear_sub"})
"""Verbs that are done on a disconnected device as well."""


class Connections:
    """Marks devices as disconnected and lets fail what is under way on them; lives in the service's loop."""

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        calls: Calls,
        statuses: Statuses,
        free_lane: Callable[[Entry], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._calls = calls
        self._statuses = statuses
        self._free_lane = free_lane
        self._spawn = spawn
        self._is_ending = False
        self._suspected: set[str] = set()
        self._absent: dict[str, tuple[int, frozenset[str]]] = {}
        """{device: its generation, and those of its signals that have never been there}"""
        self._refused: set[str] = set()
        """Disconnected devices of which nothing is asked, since it would hang."""
        calls.on_hang = self.lose
        self.on_lost: Callable[[Entry], None] = lambda entry: None
        """Told of a device that is disconnected from now on."""

    def check(self, found: Found, op: Op) -> None:
        """Refuse what a disconnected device cannot do; raises DeviceDisconnected, or DeviceTimeout if it hangs."""
        name, reason = found.entry.name, found.entry.reason
        if op.verb in _ALWAYS or name not in self._refused:
            return
        if name in self._calls.hanging:
            raise DeviceTimeout(f"{op.device}.{op.verb} is not carried out: {name} hangs, {reason}")
        raise DeviceDisconnected(
            f"{op.device}.{op.verb} is not carried out: {name} is disconnected, {reason}; it works again by itself as "
            "soon as that answers"
        )

    def lose(self, entry: Entry, reason: str) -> None:
        """Mark a device as disconnected; whatever is under way on it fails."""
        if entry.state == "disconnected" and entry.name in self._refused:
            return
        self._refused.add(entry.name)
        self._mark(entry, reason)
        error = DeviceDisconnected(f"{entry.name} was lost: {reason}")
        self._statuses.fail(entry, error)
        self._calls.give_up(entry, error)
        self._free_lane(entry)

    def _mark(self, entry: Entry, reason: str) -> None:
        _log.warning("device %s is disconnected: %s", entry.name, reason, extra={"device": entry.name})
        self._registry.mark(entry, "disconnected", reason)
        self.on_lost(entry)

    def _silence(self, entry: Entry) -> str:
        """Say which signals of a device have gone away; those that it never had are no loss."""
        mute = _layers.mute(entry.device)
        generation, absent = self._absent.get(entry.name, (-1, frozenset[str]()))
        absent = frozenset(mute) if generation != entry.generation else absent.intersection(mute)
        self._absent[entry.name] = entry.generation, absent
        first, *others = [each for each in mute if each not in absent] or [""]
        more = f" and {len(others)} more PVs do" if others else " does"
        return f"{first}{more} not answer" if first else ""

    def suspect(self, found: Found, error: BaseException) -> None:
        """Take notice that a device could not be read; one that is only slow gets its `timeout` to answer."""
        entry = found.entry
        silence = self._silence(entry)
        if silence:
            self.lose(entry, silence)
        elif not isinstance(error, TimeoutError):  # what is asked of it fails at once, with its own words
            self._mark(entry, f"{type(error).__name__}: {error}")
        elif entry.name not in self._suspected:
            self._suspected.add(entry.name)
            self._spawn(self._read_patiently(found))

    async def _read_patiently(self, found: Found) -> None:
        entry, began = found.entry, time.monotonic()
        try:
            reading = (await self._reader.read_many([found], timeout=entry.spec.timeout))[0]
        finally:
            self._suspected.discard(entry.name)
        if not isinstance(reading, TimeoutError) or entry.device is not found.device:
            return
        if time.monotonic() - began < _AT_ONCE:
            self._mark(entry, f"TimeoutError: {reading}")
        else:
            self.lose(entry, f"it could not be read within {entry.spec.timeout:g} s")

    async def watch(self) -> None:
        """Look at all devices until the end."""
        while not self._is_ending:
            await asyncio.sleep(_PERIOD)
            self._look_at_statuses()
            for entry in list(self._registry.connected()):
                with contextlib.suppress(LookupError, DeviceFailed):  # it was just taken away
                    self._look_at(entry, self._registry.find(entry.name))
            gone = [entry for entry in self._registry.connected() if self._may_be_back(entry)]
            await asyncio.gather(*(self._probe(entry) for entry in gone))

    def end(self) -> None:
        """Look no more; cancelling would not do, since a library's reading may swallow that."""
        self._is_ending = True

    def _look_at(self, entry: Entry, found: Found) -> None:
        if entry.state == "connected":
            silence = self._silence(entry)
            if silence:
                self.lose(entry, silence)

    def _may_be_back(self, entry: Entry) -> bool:
        return entry.state == "disconnected" and entry.name not in self._calls.hanging and not self._silence(entry)

    async def _probe(self, entry: Entry) -> None:
        """Read a device that was lost; if that works, it is there again."""
        with contextlib.suppress(LookupError, DeviceFailed):  # it was taken away meanwhile
            found = self._registry.find(entry.name)
            is_readable = hasattr(found.device, "read") and not entry.spec.blocking
            reading = (await self._reader.read_many([found], timeout=_PROBE))[0] if is_readable else {}
            if not isinstance(reading, BaseException) and entry.state == "disconnected":
                _log.info("device %s is connected again", entry.name, extra={"device": entry.name})
                self._refused.discard(entry.name)
                self._registry.mark(entry, "connected", "")

    def _look_at_statuses(self) -> None:
        now = time.monotonic()
        for running in list(self._statuses.running):
            limit = running.found.entry.spec.done_timeout
            if limit is not None and now - running.started > limit:
                call = f"{running.op.device}.{running.op.verb}"
                error = DeviceTimeout(f"{call} was not done within {limit:g} s (`done_timeout` in the device file)")
                self._statuses.give_up(running, error)
                if running.op.verb in ("stage", "unstage"):
                    self._free_lane(running.found.entry)
