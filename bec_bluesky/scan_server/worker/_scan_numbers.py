"""Scan numbers: one counter on Redis for the whole beamline."""

import asyncio

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SCAN_ID
from bec_bluesky.errors import BusError

__all__ = ["ScanNumbers"]

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
    """Gives a number to each run, never the same twice; a lost reply skips one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._last = 0

    async def take(self) -> int:
        """Give the next number; raises BusError if Redis stays away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            try:
                number = await self._bus.evaluate(_NEXT, [self._bus.key(SCAN_ID)], [self._last])
            except BusError as error:
                if loop.time() > deadline:
                    raise BusError(f"the run got no scan number: {error}") from error
                await asyncio.sleep(0.05)
            else:
                self._last = int(number)
                return self._last
