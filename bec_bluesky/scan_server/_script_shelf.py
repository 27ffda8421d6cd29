"""Scripts that are kept: what they define is there for later items, in workers that start later, too."""

import asyncio
from collections.abc import Awaitable, Callable

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SCRIPTS
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScript, KeptScripts
from bec_bluesky.messages.queue import PlanInfo
from bec_bluesky.scan_server._pool import WorkerPool

__all__ = ["ScriptShelf"]

_log = logger(__name__)
_MOST = 100
"""Scripts that are kept; each worker takes up all of them when it starts."""
_MOST_BYTES = 4 * 2**20
_LONGEST = 60.0
"""Seconds for which a free worker is awaited, and in which it must have taken up a script."""


class ScriptShelf:
    """Keeps scripts, in order, on Redis; has the workers that are there take them up."""

    def __init__(self, bus: Bus, pool: WorkerPool, offer: Callable[[list[PlanInfo]], Awaitable[None]]) -> None:
        self._bus, self._pool, self._offer = bus, pool, offer
        self._kept = KeptScripts()
        self._lock = asyncio.Lock()
        self.forgotten = 0
        """How often all were forgotten."""

    async def load(self) -> None:
        """Take up what an earlier scan server kept."""
        self._kept = await self._bus.get(SCRIPTS) or KeptScripts()

    async def keep(self, script: KeptScript, *, begun: int, offers: bool = True) -> None:
        """Have the workers take up a script, and keep it if the first of them can; one sent again replaces itself.

        `begun`: the value of `forgotten` when it began; what was defined before all was forgotten is not kept.
        `offers`: list its plans at once; else that is done when they are listed anew for another reason.

        Raises RefusedError if it can't be taken up, or too much is kept already.
        """

        async def save() -> None:
            if begun != self.forgotten:
                raise RefusedError("the environment was closed while it ran", "not_open")
            await self._bus.put(SCRIPTS, kept)
            self._kept = kept

        async with self._lock:
            others = [
                each
                for each in self._kept.scripts
                if each.text != script.text and not (script.title and each.title == script.title)
            ]
            kept = KeptScripts(scripts=[*others, script])
            if len(kept.scripts) > _MOST or sum(len(each.text) for each in kept.scripts) > _MOST_BYTES:
                raise RefusedError(
                    f"{len(others)} scripts are kept already, no more than {_MOST} of {_MOST_BYTES} letters may be: "
                    "forget them (`bec-bluesky script forget`, or close the environment)",
                    "too_many_scripts",
                )
            found = await self._pool.take_up(script, longest=_LONGEST, then=save)
            if offers:
                await self._offer(found.plans)

    async def forget(self) -> None:
        """Forget all, without waiting for what is being taken up; workers that are there still have what they have."""
        self._kept = KeptScripts()
        self.forgotten += 1
        try:
            await self._bus.delete(SCRIPTS)
        except BusError as error:
            _log.error("what scripts defined is not forgotten: %s", error)
