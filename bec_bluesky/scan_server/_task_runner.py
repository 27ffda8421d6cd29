"""Scripts and functions: carried out in processes of their own, several side by side."""

import asyncio
import itertools
import sys
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import EndTask, KeptScript, RunFunction, RunScript, Task
from bec_bluesky.messages.queue import Request
from bec_bluesky.messages.worker import FromWorker, InterruptTask, RunTask, TakeScript, TaskEnded, WorkerReady
from bec_bluesky.scan_server._console import Console
from bec_bluesky.scan_server._script_shelf import ScriptShelf
from bec_bluesky.scan_server._tasks import TaskBook
from bec_bluesky.scan_server._worker_process import WorkerProcess
from bec_bluesky.settings import Settings

__all__ = ["TASK_COMMAND", "TaskRunner"]

_log = logger(__name__)
TASK_COMMAND = (sys.executable, "-m", "bec_bluesky.scan_server.task_process")
_SIDE_BY_SIDE = 4
"""Processes, and with them tasks that run at the same time."""
_MOST_WAITING = 100
"""Tasks that may wait for one of them."""
_LARGEST_SCRIPT = 2**20
"""Letters."""
_CLEAN_UP = 2.0
"""Seconds that a task which is ended may clean up before its process is killed."""
_SILENCE = 60.0
"""A process that says nothing for so long is ended: a task keeps Python to itself in code that is no Python."""
_LARGEST_PROCESS = 2 * 2**30
"""Bytes; a process that has more when a task has ended is replaced."""
_IDLE = 600.0
"""Seconds after which a process that has nothing to do is ended, unless it is the only one that is free."""
_TRIES = 3
"""Times that a process may fail to start before the tasks that wait for it fail."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
Tell = Callable[[str], Awaitable[None]]
Flush = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class _Job:
    """A task that is to run, or runs."""

    task: Task
    message: RunTask
    over: asyncio.Event
    update_lists: bool
    begun: int
    """How often scripts had been forgotten when it began."""
    end_reason: str = ""
    """Why it is to end; empty: it is not."""


class _Lane:
    """A process that runs one task after the other."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.is_ready = False
        self.is_leaving = False
        """Whether it gets nothing more to do."""
        self.job: _Job | None = None
        self.device_client = ""
        self.tasks = 0
        """How many it has been given."""

    @property
    def is_free(self) -> bool:
        return self.is_ready and not self.is_leaving and self.job is None


class TaskRunner:
    """Carries out RunScript, RunFunction and EndTask.

    A process starts when a task needs it, or `warm_up()` is called; it stays for those that follow, which share what
    its modules remember.
    """

    def __init__(
        self,
        settings: Settings,
        book: TaskBook,
        shelf: ScriptShelf,
        console: Console,
        spawn: Spawn,
        *,
        changed: Callable[[], None],
        tell_devices: Tell,
        flush: Flush,
        command: tuple[str, ...] = TASK_COMMAND,
    ) -> None:
        """`flush` publishes what was printed, so that it is there when a task is told to have ended."""
        self._settings, self._book, self._shelf, self._console = settings, book, shelf, console
        self._spawn, self._changed, self._tell_devices, self._command = spawn, changed, tell_devices, command
        self._flush = flush
        self._lanes: list[_Lane | None] = [None] * _SIDE_BY_SIDE
        self._starting: set[int] = set()
        """Slots for which a process is kept."""
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._failures = 0
        self._is_stopping = False
        self._numbers = itertools.count()
        self._someone_left = asyncio.Event()

    # ── requests ──

    async def run_script(self, asked: RunScript, request: Request) -> Task:
        """Begin to run a script."""
        if not asked.script.strip():
            raise BadArgumentError("The script is empty: send Python text")
        if len(asked.script) > _LARGEST_SCRIPT:
            raise BadArgumentError(f"The script has {len(asked.script)} letters; the limit is {_LARGEST_SCRIPT}")
        message = RunTask(task_id=uuid.uuid4().hex, kind="script", title=asked.title, text=asked.script)
        title = asked.title or _first_line(asked.script)
        return await self._begin(message, title, request, update_lists=asked.update_lists)

    async def run_function(self, asked: RunFunction, request: Request) -> Task:
        """Begin to call a function."""
        if not asked.name.isidentifier():
            raise BadArgumentError(f"{asked.name[:100]!r} is no name of a function")
        message = RunTask(
            task_id=uuid.uuid4().hex, kind="function", name=asked.name, args=asked.args, kwargs=asked.kwargs
        )
        return await self._begin(message, asked.name, request)

    async def end(self, asked: EndTask, request: Request) -> None:
        """End a task; it is over when this returns."""
        job = self._jobs.get(asked.task_id)
        if job is None:
            if self._book.find(asked.task_id) is None:
                raise RefusedError(f"No task {asked.task_id[:100]!r}", "unknown_task")
            return
        who = request.user or "somebody"
        if job in self._waiting:
            self._waiting.remove(job)
            await self._close(job, f"ended by {who} before it began")
        else:
            await self._interrupt(job, f"ended by {who}")

    async def _begin(self, message: RunTask, title: str, request: Request, *, update_lists: bool = True) -> Task:
        if self._is_stopping:
            raise RefusedError("The scan server stops: it begins no tasks", "stopping")
        if len(self._waiting) >= _MOST_WAITING:
            raise RefusedError(
                f"{_SIDE_BY_SIDE} tasks run and {_MOST_WAITING} wait already: end some, or wait", "too_many_tasks"
            )
        task = await self._book.begin(message.task_id, message.kind, title, request.user)
        _log.info("%s %s", message.kind, title, extra={"user": request.user, "task": message.task_id})
        job = self._jobs[message.task_id] = _Job(task, message, asyncio.Event(), update_lists, self._shelf.forgotten)
        self._waiting.append(job)
        self._go_on()
        return task

    # ── processes ──

    def warm_up(self) -> None:
        """Have a process ready for the first task."""
        if not self._starting:
            self._start_one()

    def renew(self, why: str | None = None) -> None:
        """Replace the processes; with `why` at once and whatever they do, else when they have nothing to do."""
        for lane in self._all():
            lane.is_leaving = True
            if why is not None:
                lane.process.kill(why)
            elif lane.job is None:
                lane.process.shut_down()

    async def forget(self, why: str | None) -> None:
        """Forget what scripts defined, and replace the processes as `renew` does."""
        await self._shelf.forget()
        self.renew(why)

    async def stop(self) -> None:
        """End all tasks and processes."""
        self._is_stopping = True
        reason = "the scan server was stopped"
        while self._waiting:
            await self._close(self._waiting.popleft(), reason)
        running = [lane.job for lane in self._all() if lane.job is not None]
        await asyncio.gather(*(self._interrupt(job, reason) for job in running))
        self.renew(reason)
        while self._all():
            self._someone_left.clear()
            await self._someone_left.wait()

    def _all(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane is not None]

    def _go_on(self) -> None:
        """Give tasks that wait to free processes, and have one more started if some are left."""
        while self._waiting and (lane := self._free_lane()) is not None:
            lane.job = self._waiting.popleft()
            lane.tasks += 1
            lane.process.prints_as(lane.job.task.task_id)
            lane.process.send(lane.job.message)
        if self._waiting:
            self._start_one()

    def _free_lane(self) -> _Lane | None:
        return next((lane for lane in self._all() if lane.is_free), None)

    def _start_one(self) -> None:
        """Start a process unless one is starting, or there are as many as there may be."""
        is_one_starting = any((lane := self._lanes[slot]) is None or not lane.is_ready for slot in self._starting)
        free = [slot for slot in range(_SIDE_BY_SIDE) if slot not in self._starting]
        if free and not is_one_starting and not self._is_stopping:
            self._starting.add(free[0])
            self._spawn(self._live(free[0]), f"task process {free[0]}")

    async def _live(self, slot: int) -> None:
        """Run a process to its end, then see who needs another one."""
        process = WorkerProcess(
            self._settings,
            command=self._command,
            on_message=self._heard,
            silence=_SILENCE,
            number=next(self._numbers),
            kind="task",
            source="",
            console=self._console,
        )
        lane = self._lanes[slot] = _Lane(process)
        try:
            await process.run()
        except OSError as error:
            process.why = f"the task process could not be started: {error}"
        finally:
            self._lanes[slot] = None
            self._someone_left.set()
        self._failures = 0 if lane.is_ready else self._failures + 1
        if lane.device_client:
            await self._tell_devices(lane.device_client)
        if lane.job is not None:
            await self._close_lost(lane, lane.job)
        if self._failures >= _TRIES:
            while self._waiting:
                await self._close(self._waiting.popleft(), process.why)
        elif self._failures:
            await asyncio.sleep(0.25 * 2**self._failures)
        self._starting.discard(slot)
        self._go_on()

    def _heard(self, process: WorkerProcess, message: FromWorker) -> None:
        lane = next((each for each in self._all() if each.process is process), None)
        if lane is None:
            return
        if isinstance(message, WorkerReady):
            lane.is_ready, lane.device_client = True, message.device_client
            self._rest(lane)
        elif isinstance(message, TaskEnded) and lane.job is not None and lane.job.task.task_id == message.task_id:
            self._spawn(self._ended(lane, lane.job, message), f"end of task {message.task_id}")

    def _rest(self, lane: _Lane) -> None:
        """Have a process that has nothing to do take the next task, or leave."""
        if lane.is_leaving:
            lane.process.shut_down()
        self._go_on()
        asyncio.get_running_loop().call_later(_IDLE, self._retire, lane, lane.tasks)

    def _retire(self, lane: _Lane, tasks: int) -> None:
        if lane.is_free and lane.tasks == tasks and sum(each.is_free for each in self._all()) > 1:
            lane.is_leaving = True
            lane.process.shut_down()

    # ── ends ──

    async def _ended(self, lane: _Lane, job: _Job, message: TaskEnded) -> None:
        output = lane.process.prints_as("")
        reason = message.reason
        if job.end_reason and reason:
            reason = job.end_reason
        if message.defines and not reason:
            reason = await self._keep(job, lane)
        if message.memory > _LARGEST_PROCESS or message.is_spoiled:
            why = "its output was closed" if message.is_spoiled else f"it has {message.memory} bytes of memory"
            _log.info("a task process is replaced: %s", why)
            lane.is_leaving = True
        lane.job = None
        await self._close(
            job, reason, traceback=message.traceback, value=message.value, note=message.note, output=output
        )
        self._rest(lane)

    async def _keep(self, job: _Job, lane: _Lane) -> str:
        """Have what a script defines taken up by workers and by other processes like its own; give why it can't be."""
        task, text = job.task, job.message.text
        script = KeptScript(
            script_id=task.task_id, text=text, title=job.message.title, user=task.user, time=task.time_start
        )
        try:
            await self._shelf.keep(script, begun=job.begun, offers=job.update_lists)
        except Exception as error:  # noqa: BLE001  # refused, or Redis is away
            lane.is_leaving = True  # it alone has the definitions
            return f"the script ran, but what it defines is not kept: {error}"
        for other in self._all():
            if other is not lane:
                other.process.send(TakeScript(script=script))
        return ""

    async def _close_lost(self, lane: _Lane, job: _Job) -> None:
        """Close a task whose process is gone."""
        reason = job.end_reason or lane.process.why
        await self._close(job, reason, output=lane.process.output)

    async def _close(self, job: _Job, reason: str, **found: Any) -> None:
        if self._jobs.pop(job.task.task_id, None) is None:
            return  # its process was lost while its end was dealt with
        await self._flush()
        await self._book.end(job.task, reason=reason, **found)
        job.over.set()
        self._changed()

    async def _interrupt(self, job: _Job, why: str) -> None:
        """Interrupt a task, then kill its process; returns when it is over."""
        job.end_reason = why
        lane = next((each for each in self._all() if each.job is job), None)
        if lane is not None:
            lane.is_leaving = True  # so that devices which it moves are stopped
            lane.process.send(InterruptTask(task_id=job.task.task_id))
            try:
                async with asyncio.timeout(_CLEAN_UP):
                    await job.over.wait()
            except TimeoutError:
                lane.process.kill(why)
        await job.over.wait()


def _first_line(script: str) -> str:
    return next((line.strip()[:80] for line in script.splitlines() if line.strip()), "")
