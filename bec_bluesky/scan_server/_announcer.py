"""What the scan server says of itself: a status for each queue, announced at changes, one for what changes together."""

import asyncio
import time
from typing import Any

import msgspec

from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import MAIN_QUEUE, ScanServerStatus
from bec_bluesky.scan_server._activity import Activity
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._store import QueueStore
from bec_bluesky.scan_server._surroundings import Surroundings

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
    """Builds the status of each queue and announces it."""

    def __init__(self, store: QueueStore, keeper: QueueKeeper, pool: WorkerPool, around: Surroundings) -> None:
        self._store = store
        self._keeper = keeper
        self._pool = pool
        self._around = around
        self._changed = asyncio.Event()
        self._said: dict[str, ScanServerStatus] = {}
        """What was announced last of each named queue."""

    def status(self, name: str = "") -> ScanServerStatus:
        """Give the status of a queue as it is now."""
        queue = self._keeper.states[name]
        activity = self._pool.activity(queue.running)
        around = self._around
        return ScanServerStatus(
            time=time.time(),
            queue_state=queue.mode,
            run_state=self._run_state(activity),
            waiting=len(queue.waiting),
            running=queue.running,
            run_uid=activity and activity.run_uid,
            scan_id=activity and activity.scan_id,
            progress=activity and activity.progress,
            history=self._keeper.history,
            revision=queue.revision,
            worker=self._pool.last_words,
            loop=queue.loop,
            ignore_failures=queue.ignore_failures,
            autostart=queue.autostart,
            queue=name,
            queues=[each or MAIN_QUEUE for each in self._keeper.states],
            environment=around.environment,
            tasks=around.tasks,
            tasks_revision=around.tasks_revision,
            plans_revision=around.plans_revision,
            rules_revision=around.rules_revision,
            lock=around.lock,
            runs=list(self._pool.last_runs.get(name, ()) if activity is None else activity.runs),
            waits_for=self._keeper.waits_for(name) if activity is None else activity.waits_for,
            suspended="" if activity is None else activity.suspended,
            interlocks=list(around.interlocks),
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
                await self.say()
            except FencedError:
                raise
            except BusError as error:
                _log.warning("the status is not announced yet: %s", error)
                await asyncio.sleep(0.2)
                self._changed.set()

    async def say(self) -> None:
        """Announce the main queue, and of the others those of which there is news."""
        for name in list(self._keeper.states):
            status = self.status(name)
            if name and msgspec.structs.replace(status, time=0.0) == self._said.get(name):
                continue
            await self._store.say(status)
            if name:
                self._said[name] = msgspec.structs.replace(status, time=0.0)

    def _run_state(self, activity: Activity | None) -> Any:
        if activity is not None:
            return _RUN_STATES.get(activity.state, "running")
        if self._pool.ready:
            return "idle"
        return "starting" if self._pool.is_alive else "no_worker"
