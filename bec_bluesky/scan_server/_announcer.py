"""What the scan server says of itself: one status, announced at every change, once for what changes together."""

import asyncio
import time
from typing import Any

from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import ScanServerStatus
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._store import QueueStore

__all__ = ["Announcer"]

_log = logger(__name__)
_RUN_STATES: dict[str, Any] = {
    "running": "running",
    "pausing": "pausing",
    "suspending": "pausing",
    "paused": "paused",
    "stopping": "stopping",
    "aborting": "aborting",
    "halting": "halting",
    "panicked": "halting",
}
"""The RunEngine's states as the status gives them; any other one is between two runs of an item: running."""


class Announcer:
    """Builds the status and announces it."""

    def __init__(self, store: QueueStore, keeper: QueueKeeper, pool: WorkerPool) -> None:
        self._store = store
        self._keeper = keeper
        self._pool = pool
        self._changed = asyncio.Event()

    def status(self) -> ScanServerStatus:
        """Give the status as it is now."""
        queue, activity = self._keeper.state, self._pool.activity
        return ScanServerStatus(
            time=time.time(),
            queue_state=queue.mode,
            run_state=self._run_state(),
            waiting=len(queue.waiting),
            running=queue.running,
            run_uid=activity.run_uid,
            scan_id=activity.scan_id,
            progress=activity.progress if queue.running is not None else None,
            history=self._keeper.history,
            revision=queue.revision,
            worker=self._pool.last_words,
            loop=queue.loop,
            ignore_failures=queue.ignore_failures,
            autostart=queue.autostart,
        )

    def changed(self) -> None:
        """Have the status announced."""
        self._changed.set()

    async def run(self) -> None:
        """Announce for ever; what changes while one is under way goes into the next."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._store.say(self.status())
            except FencedError:
                raise
            except BusError as error:
                _log.warning("the status is not announced yet: %s", error)
                await asyncio.sleep(0.2)
                self._changed.set()

    def _run_state(self) -> Any:
        if self._keeper.state.running is not None and self._pool.running_pid is not None:
            return _RUN_STATES.get(self._pool.activity.state, "running")
        if self._pool.ready:
            return "idle"
        return "starting" if self._pool.is_alive else "no_worker"
