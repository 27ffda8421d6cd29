"""Scripts and functions on the server, from a client: begin, follow, end, look."""

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import CONSOLE, SCRIPTS, TASKS
from bec_bluesky.client._arguments import plain
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.errors import NoReplyError, RefusedError, TaskFailedError
from bec_bluesky.messages.around_queue import (
    EndTask,
    GetTasks,
    KeptScripts,
    RunFunction,
    RunScript,
    SetEnvironment,
    Task,
    Tasks,
)
from bec_bluesky.messages.common import ConsoleText
from bec_bluesky.messages.queue import GetStatus, ScanServerStatus

__all__ = ["ServerTask", "TaskDoor"]

_SHORTEST_PERIOD, _PERIOD = 0.01, 0.2
"""Seconds between two looks whether a task has ended: at first, and later."""
_LONGEST_END = 30.0
"""Seconds in which a task that is ended is over."""
_CHANGE = 120.0
"""Seconds for new workers."""
_MOST_LISTED = 20


class ServerTask:
    """A script or function on the server; what it shows is asked for each time, until it has ended."""

    def __init__(self, door: "TaskDoor", known: Task, after: str = "0-0") -> None:
        self._door, self._known, self._after = door, known, after

    @property
    def task_id(self) -> str:
        return self._known.task_id

    @property
    def message(self) -> Task:
        """The task as it is now."""
        if self._known.state == "running":
            self._known = self._door.message(self.task_id)
        return self._known

    @property
    def state(self) -> str:
        """running, completed or failed."""
        return self.message.state

    @property
    def value(self) -> Any:
        """What a function returned; None as long as it runs. `message.note` says if it could not cross."""
        return self.message.value

    @property
    def output(self) -> str:
        """The end of what it printed, once it has ended."""
        return self.message.output

    def follow(self) -> Iterator[ConsoleText | Task]:
        """Give what it prints, as it comes, and at last the task as it ended."""
        return self._door.follow(self.task_id, self._after)

    def wait(self, timeout: float | None = None) -> Task:
        """Wait until it has ended; raises NoReplyError after `timeout` seconds, and it runs on."""
        deadline = None if timeout is None else time.monotonic() + timeout
        period = _SHORTEST_PERIOD
        while self.message.state == "running":
            if deadline is not None and time.monotonic() > deadline:
                raise NoReplyError(
                    f"task {self.task_id} ({self._known.title}) has not ended in {timeout:g} s: it goes on"
                )
            time.sleep(period)
            period = min(2 * period, _PERIOD)
        return self._known

    def end(self) -> None:
        """End it; it is over when this returns. It may clean up for two seconds. Harmless when it has ended."""
        self._door.end(self.task_id)

    def raise_if_failed(self) -> None:
        """Raise TaskFailedError, with the reason, if it has failed."""
        task = self.message
        if task.state == "failed":
            where = f" (`bec-bluesky script show {task.task_id[:8]}` has the traceback)" if task.traceback else ""
            raise TaskFailedError(f"{task.kind} {task.title!r} failed: {task.reason}{where}", task)

    def show(self) -> Any:
        """Write what it prints to standard output until it has ended; gives its value. Ctrl-C ends it.

        Raises TaskFailedError if it failed.
        """
        try:
            for each in self.follow():
                if isinstance(each, Task):
                    self._known = each
                else:
                    sys.stdout.write(each.text)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            self.end()
            raise
        self.raise_if_failed()
        return self.value

    def __repr__(self) -> str:
        task = self.message
        return f"<{task.kind} {task.title!r} {task.task_id}: {task.state}{task.reason and f', {task.reason}'}>"


class TaskDoor:
    """What a person does with scripts and functions; print it for the latest ones."""

    def __init__(self, ask: Callable[..., Any], loop: LoopThread, bus: Bus) -> None:
        self._ask, self._loop, self._bus = ask, loop, bus

    def script(self, script: str | Path, *, title: str = "") -> ServerTask:
        """Begin to run a script, Python text or a file of it, on the server; does not wait.

        Plans that it defines are offered once it has ended well, until `forget()`.
        """
        text, name = _text_of(script)
        return self._begun(RunScript(script=text, title=title or name))

    def function(self, name: str, *args: Any, **kwargs: Any) -> ServerTask:
        """Begin to call a function of the start-up files, or of scripts that ran before; does not wait."""
        return self._begun(RunFunction(name=name, args=plain(args), kwargs=plain(kwargs)))

    def _begun(self, asked: RunScript | RunFunction) -> ServerTask:
        after = self._loop.call(self._bus.last_id(CONSOLE))
        return ServerTask(self, self._ask(asked), after)

    def latest(self, limit: int = _MOST_LISTED) -> list[ServerTask]:
        """Give the newest tasks, newest first."""
        found: Tasks = self._ask(GetTasks(limit=limit))
        return [ServerTask(self, task) for task in found.tasks]

    def message(self, task_id: str) -> Task:
        """Give a task as it is now; raises RefusedError if it is not remembered."""
        found: Task | None = self._loop.call(self._bus.field(TASKS, task_id))
        if found is None:
            raise _unknown(task_id)
        return found

    def __getitem__(self, task_id: str) -> ServerTask:
        """Find a task by its id or the beginning of it."""
        found = [each for each in self.latest(1_000) if each.task_id.startswith(task_id)]
        if len(found) != 1:
            raise _unknown(task_id)
        return found[0]

    def end(self, task_id: str) -> None:
        """End a task; it is over when this returns."""
        self._ask(EndTask(task_id=task_id), timeout=_LONGEST_END)

    def follow(self, task_id: str, after: str = "0-0") -> Iterator[ConsoleText | Task]:
        """Give what a task prints, from an entry of the console on, and at last the task as it ended."""
        return self._loop.iterate(_follow(self._bus, task_id, after))

    @property
    def kept(self) -> KeptScripts:
        """The scripts whose definitions plans, functions and scripts can use beside the start-up files."""
        return self._loop.call(self._bus.get(SCRIPTS)) or KeptScripts()

    def forget(self) -> None:
        """Forget what scripts defined, which needs new workers; refused while a plan runs."""
        was_open = self._status().environment == "open"
        self._ask(SetEnvironment(action="close"))
        deadline = time.monotonic() + _CHANGE
        while self._status().environment != "closed":
            if time.monotonic() > deadline:
                raise NoReplyError(f"The workers were not replaced within {_CHANGE:g} s: see `bec-bluesky status`")
            time.sleep(_PERIOD)
        if was_open:
            self._ask(SetEnvironment(action="open"))

    def _status(self) -> ScanServerStatus:
        return self._ask(GetStatus())

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.latest())) or "no tasks"


async def _follow(bus: Bus, task_id: str, after: str) -> AsyncGenerator[ConsoleText | Task, None]:
    period = _SHORTEST_PERIOD
    while True:
        task: Task | None = await bus.field(TASKS, task_id)
        if task is None:
            raise _unknown(task_id)
        is_over = task.state != "running"  # then all that it printed is on the console
        entries = await bus.read(CONSOLE, after, block=None if is_over else period)
        period = min(2 * period, _PERIOD)
        for place, text in entries:
            after = place
            if text.source == task_id:
                yield text
        if is_over and not entries:
            yield task
            return


def _text_of(script: str | Path) -> tuple[str, str]:
    """Give the text of a script, and the name of its file if it has one."""
    if isinstance(script, str) and ("\n" in script or not script.endswith(".py")):
        return script, ""
    path = Path(script).expanduser()
    try:
        return path.read_text(), path.name
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"The script {path} cannot be read: {error}", "no_script") from error


def _unknown(task_id: str) -> RefusedError:
    return RefusedError(f"No task {task_id[:100]!r}: `bec-bluesky script list` shows them", "unknown_task")
