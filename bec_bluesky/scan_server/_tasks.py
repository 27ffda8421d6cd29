"""Tasks: what was begun for somebody who asks later what became of it."""

import time
import uuid
from collections import OrderedDict

import msgspec

from bec_bluesky.messages.around_queue import GetTasks, ReloadPlans, Task, Tasks
from bec_bluesky.messages.queue import Request
from bec_bluesky.scan_server._plan_reload import PlanReload
from bec_bluesky.scan_server._surroundings import Surroundings

__all__ = ["TaskBook"]

_KEPT = 1_000
"""Tasks remembered, in memory: they are forgotten with this scan server."""


class TaskBook:
    """Remembers tasks, and carries out the one that lists plans anew."""

    def __init__(self, around: Surroundings, reload: PlanReload) -> None:
        self._around, self._reload = around, reload
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    async def update(self, request: Request) -> Task:
        """Import plans anew; the answer is a task that has ended."""
        begun = time.time()
        found = await self._reload.reload(ReloadPlans(), request)
        task = Task(
            task_id=uuid.uuid4().hex,
            kind="update",
            title="update of the environment",
            user=request.user,
            state="completed",
            value=msgspec.to_builtins(found),
            time_start=begun,
            time_stop=time.time(),
        )
        self._remember(task)
        return task

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
