"""Notices clients that are gone, by what Redis knows anyway: nobody listens for their answers any more."""

import asyncio
from collections.abc import Awaitable, Callable

from bec_bluesky.bus import Wire
from bec_bluesky.channels import ANSWERS
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger

__all__ = ["Presence"]

_log = logger(__name__)
_PERIOD = 0.5
"""Seconds between two looks."""
_LOST_AFTER = 2.5
"""Seconds for which nobody may listen: a client that lost Redis for a moment comes back sooner."""


class Presence:
    """Watches the clients that have something under way here; those cost nothing but their subscription.

    The kernel closes the connection of a process that dies, however it dies, and Redis ends its subscription.
    """

    def __init__(
        self,
        beamline: str,
        wire: Callable[[], Wire | None],
        clients: Callable[[], set[str]],
        lose: Callable[[str], Awaitable[object]],
    ) -> None:
        self._beamline = beamline
        self._wire = wire
        self._clients = clients
        self._lose = lose
        self._absent_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(_PERIOD)
            wire = self._wire()
            if wire is None:
                self._absent_since.clear()  # Redis is away: when it is back, they need time to come back too
                continue
            try:
                absent = await self._absent(wire, sorted(self._clients()))
            except BusError:
                continue
            now = asyncio.get_running_loop().time()
            self._absent_since = {client: self._absent_since.get(client, now) for client in absent}
            for client, since in list(self._absent_since.items()):
                if now - since >= _LOST_AFTER:
                    _log.warning("client %s is gone: nobody listens for its answers", client)
                    await self._lose(client)

    async def _absent(self, wire: Wire, clients: list[str]) -> list[str]:
        """Give those clients for whose answers nobody listens."""
        if not clients:
            return []
        channels = [ANSWERS.key(self._beamline, client=client) for client in clients]
        counts: list[bytes | int] = await wire.call("PUBSUB", "NUMSUB", *channels)
        return [client for client, count in zip(clients, counts[1::2], strict=True) if not count]
