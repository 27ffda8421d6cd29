"""Tasks: what was begun for somebody who asks later what became of it."""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import GetTasks, ReloadPlans, Task, Tasks
from bec_bluesky.messages.queue import Request
from bec_bluesky.scan_server._plan_reload import PlanReload
from bec_bluesky.scan_server._surroundings import Surroundings

__all__ = ["TaskBook"]

_KEPT = 1_000
"""Tasks remembered, in memory: they are forgotten with this scan server."""
_PATIENCE = 60.0
"""Seconds for which a worker that is free is awaited."""
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class TaskBook:
    """Remembers tasks, and carries out the one that lists plans anew."""

    def __init__(self, around: Surroundings, reload: PlanReload, changed: Callable[[], None], spawn: Spawn) -> None:
        self._around, self._reload, self._changed, self._spawn = around, reload, changed, spawn
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def update(self, request: Request) -> Task:
        """Begin to import plans anew; the answer is a task that can be asked for."""
        title = "update of the environment"
        task = Task(task_id=uuid.uuid4().hex, kind="update", title=title, user=request.user, time_start=time.time())
        self._around.tasks += 1
        self._remember(task)
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
            ended = msgspec.structs.replace(
                task,
                state="failed" if problems else "completed",
                reason="; ".join(problems),
                value=value,
                time_stop=time.time(),
            )
            self._around.tasks -= 1
            self._remember(ended)
            self._changed()

    async def get(self, asked: GetTasks, request: Request) -> Tasks:
        """Give the tasks that are named, or the newest."""
        newest_first = [self._tasks[task_id] for task_id in reversed(self._tasks)]
        wanted = set(asked.task_ids)
        found = [task for task in newest_first if not wanted or task.task_id in wanted]
        return Tasks(tasks=found[: max(0, asked.limit)])

    def _remember(self, task: Task) -> None:
        self._tasks[task.task_id] = task
        while len(self._tasks) > _KEPT:
            self._tasks.popitem(last=False)
        self._around.tasks_revision += 1
