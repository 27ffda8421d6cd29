"""Scan numbers: one counter on Redis for the whole beamline, and the highest one on disk."""

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SCAN_ID
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger

__all__ = ["ScanNumbers"]

_log = logger(__name__)
_NEXT = """
local number = redis.call('INCR', KEYS[1])
if number <= tonumber(ARGV[1]) then
  number = tonumber(ARGV[1]) + 1
  redis.call('SET', KEYS[1], string.format('%d', number))
end
return number
"""
_PATIENCE = 10.0
"""Seconds that Redis may be away when a run is opened."""


class ScanNumbers:
    """Gives a number to each run, never the same twice; a lost reply skips one.

    The highest is kept in a file, too: numbers go on from it if Redis lost its data. Without a disk they go on from
    what this process gave last.
    """

    def __init__(self, bus: Bus, file: Path) -> None:
        self._bus = bus
        self._file = file
        self._last = 0
        self._is_failing = False

    async def take(self) -> int:
        """Give the next number; raises BusError if Redis stays away."""
        kept = await asyncio.to_thread(self._read)
        number = await self._next(max(kept, self._last))
        self._last = number
        await asyncio.to_thread(self._keep, number)
        return number

    async def _next(self, above: int) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            try:
                return int(await self._bus.evaluate(_NEXT, [self._bus.key(SCAN_ID)], [above]))
            except BusError as error:
                if loop.time() > deadline:
                    raise BusError(f"the run got no scan number: {error}") from error
                await asyncio.sleep(0.05)

    # ── the file, in a thread ──

    def _read(self) -> int:
        try:
            return _number_in(self._file.read_bytes())
        except OSError:  # not there yet; if it cannot be read, keeping the next one tells
            return 0

    def _keep(self, number: int) -> None:
        """Raise the number in the file, which other workers raise as well."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            with contextlib.closing(os.fdopen(fd, "r+b", buffering=0)) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _number_in(file.read()) < number:
                    os.pwrite(fd, b"%d\n" % number, 0)  # never shorter than what it replaces
        except OSError as error:
            if not self._is_failing:
                _log.warning("scan numbers are kept on Redis only: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False


def _number_in(text: bytes) -> int:
    """Give the number that a file has; 0 if it makes no sense."""
    try:
        return int(text)
    except ValueError:
        return 0
