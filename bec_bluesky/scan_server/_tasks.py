"""Tasks: what was begun for somebody who asks later what became of it."""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import TASKS
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages import encode
from bec_bluesky.messages.around_queue import GetTasks, ReloadPlans, Task, Tasks
from bec_bluesky.messages.queue import Request
from bec_bluesky.scan_server._plan_reload import PlanReload
from bec_bluesky.scan_server._surroundings import Surroundings

__all__ = ["TaskBook"]

_log = logger(__name__)
_MOST = 1_000
"""Tasks that are remembered."""
_MOST_BYTES = 32 * 2**20
"""Of what is remembered of them; the oldest goes first."""
_LEAST_AGE = 120.0
"""Seconds for which the result of a task is kept in any case."""
_PATIENCE = 60.0
"""Seconds for which a worker that is free is awaited."""
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class TaskBook:
    """Remembers tasks, on Redis, and carries out the one that lists plans anew."""

    def __init__(
        self, bus: Bus, around: Surroundings, reload: PlanReload, changed: Callable[[], None], spawn: Spawn
    ) -> None:
        self._bus, self._around, self._reload, self._changed, self._spawn = bus, around, reload, changed, spawn
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._sizes: dict[str, int] = {}

    async def load(self) -> None:
        """Take up what an earlier scan server remembered; what ran then ended with it."""
        found: dict[str, Task] = await self._bus.fields(TASKS)
        for task in sorted(found.values(), key=lambda each: each.time_start):
            self._note(task)
        for task in [each for each in self._tasks.values() if each.state == "running"]:
            await self.end(task, reason="the scan server ended while it ran")

    async def begin(self, task_id: str, kind: Literal["script", "function", "update"], title: str, user: str) -> Task:
        """Note a task that begins."""
        task = Task(task_id=task_id, kind=kind, title=title, user=user, time_start=time.time())
        await self._keep(task)
        return task

    async def end(self, task: Task, *, reason: str = "", **found: Any) -> Task:
        """Note how a task ended; with a reason it failed."""
        ended = msgspec.structs.replace(
            task, state="failed" if reason else "completed", reason=reason, time_stop=time.time(), **found
        )
        await self._keep(ended)
        return ended

    def find(self, task_id: str) -> Task | None:
        """Give a task as it stands now."""
        return self._tasks.get(task_id)

    async def update(self, request: Request) -> Task:
        """Begin to import plans anew; the answer is a task that can be asked for."""
        title = "update of the environment"
        task = await self.begin(uuid.uuid4().hex, "update", title, request.user)
        self._spawn(self._import_plans(task, request), title)
        return task

    async def _import_plans(self, task: Task, request: Request) -> None:
        patient = msgspec.structs.replace(request, deadline=time.time() + _PATIENCE)
        value, problems = None, ["it was ended"]
        try:
            found = await self._reload.reload(ReloadPlans(), patient)
            value, problems = msgspec.to_builtins(found), found.problems
        except RefusedError as refused:
            problems = [str(refused)]
        finally:
            await self.end(task, reason="; ".join(problems), value=value)
            self._changed()

    async def get(self, asked: GetTasks, request: Request) -> Tasks:
        """Give the tasks that are named, or the newest."""
        newest_first = [self._tasks[task_id] for task_id in reversed(self._tasks)]
        wanted = set(asked.task_ids)
        found = [task for task in newest_first if not wanted or task.task_id in wanted]
        return Tasks(tasks=found[: max(0, asked.limit)])

    async def _keep(self, task: Task) -> None:
        self._note(task)
        gone = self._forget_old()
        try:
            await self._bus.put_fields(TASKS, {task.task_id: task})
            await self._bus.delete_fields(TASKS, *gone)
        except BusError as error:  # it is remembered here
            _log.warning("task %s is not on Redis: %s", task.task_id, error)

    def _note(self, task: Task) -> None:
        self._tasks[task.task_id] = task
        self._sizes[task.task_id] = len(encode(task))
        self._around.tasks = sum(each.state == "running" for each in self._tasks.values())
        self._around.tasks_revision += 1

    def _forget_old(self) -> list[str]:
        gone: list[str] = []
        total = sum(self._sizes.values())
        for task_id, task in list(self._tasks.items()):
            if len(self._tasks) <= _MOST and total <= _MOST_BYTES:
                break
            if task.state != "running" and task.time_stop < time.time() - _LEAST_AGE:
                del self._tasks[task_id]
                total -= self._sizes.pop(task_id)
                gone.append(task_id)
        return gone
