"""What clients of bluesky-queueserver call the environment: a mark, and new workers where they want them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import SetEnvironment, Task
from bec_bluesky.messages.queue import Request
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._surroundings import Surroundings
from bec_bluesky.scan_server._task_runner import TaskRunner
from bec_bluesky.scan_server._tasks import TaskBook

__all__ = ["Environment"]

_LONGEST_START = 120.0
"""Seconds for which a worker is awaited; then the environment counts as closed again."""
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Environment:
    """Opens and closes the environment; workers are there all the time, so that opening takes no time."""

    def __init__(
        self,
        pool: WorkerPool,
        around: Surroundings,
        tasks: TaskBook,
        runner: TaskRunner,
        changed: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._pool, self._around, self._tasks, self._runner = pool, around, tasks, runner
        self._changed, self._spawn = changed, spawn
        self._changing: asyncio.Task[None] | None = None

    async def set(self, asked: SetEnvironment, request: Request) -> Task | None:
        """Begin what is asked for; the status tells when it is done. Raises RefusedError if it makes no sense now."""
        state = self._around.environment
        if asked.action == "open":
            if state != "closed":
                raise RefusedError(f"The environment is {state}: it can be opened when it is closed", "not_closed")
            self._begin("opening", self._open())
        elif asked.action == "close":
            if self._pool.is_busy:
                raise RefusedError("The environment can't be closed while a plan runs: stop it, or destroy", "not_idle")
            self._begin("closing", self._renew(None))
        elif asked.action == "destroy":
            self._begin("destroying", self._renew("the environment was destroyed" + _by(request)))
        else:
            return await self._tasks.update(request)
        return None

    def _begin(self, state: str, work: Coroutine[Any, Any, None]) -> None:
        if self._changing is not None:
            self._changing.cancel()
        self._around.environment = state
        self._changed()
        self._changing = self._spawn(work, "environment")

    async def _open(self) -> None:
        is_ready = await self._pool.wait_until_ready(_LONGEST_START)
        self._around.environment = "open" if is_ready else "closed"
        self._runner.warm_up()
        self._changed()

    async def _renew(self, why: str | None) -> None:
        await self._runner.forget(why)
        await self._pool.renew(why)
        self._around.environment = "closed"
        self._changed()


def _by(request: Request) -> str:
    return f" by {request.user}" if request.user else ""
