"""Scripts and functions in the main thread, and a thread that hears the scan server meanwhile."""

import inspect
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bluesky import RunEngine

from bec_bluesky import plugins
from bec_bluesky.client import Client
from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder
from bec_bluesky.messages.around_queue import KeptScripts
from bec_bluesky.messages.worker import (
    FromWorker,
    InterruptTask,
    Ping,
    Pong,
    RunTask,
    Shutdown,
    TakeScript,
    TaskEnded,
    ToWorker,
    WorkerReady,
)
from bec_bluesky.scan_server._frames import frame
from bec_bluesky.scan_server._output import StandardOutput, flush_output
from bec_bluesky.scan_server.worker._cause import cause_of, traceback_of
from bec_bluesky.scan_server.worker._crossing import crossing
from bec_bluesky.scan_server.worker._scripts import Scripts
from bec_bluesky.scan_server.worker._startup import StartupFiles
from bec_bluesky.settings import Settings

__all__ = ["TaskProcess"]

_log = logger(__name__)
_HEAD = 4
_LAST_CLEAN_UP = 2.0
"""Seconds that a task may clean up when the scan server is gone."""


class _NoRuns(RunEngine):
    """What start-up files call `RE`: they may set it up; runs belong to the queue, whose documents are kept."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RefusedError(
            "A script or function runs no plans itself: define them, and add them to the queue "
            "(`from bec_bluesky import connect; connect().queue.add(…)`)",
            "no_runs",
        )


class TaskProcess:
    """Runs one task at a time for one scan server, until it says so or is gone."""

    def __init__(self, settings: Settings, connection: socket.socket) -> None:
        self._settings = settings
        self._connection = connection
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[RunTask | TakeScript | None] = queue.SimpleQueue()
        self._main_thread = threading.get_ident()
        self._running = ""
        """Id of the task whose code runs now, so that it can be interrupted; empty: none."""
        self._unwanted = ""
        """Id of the task that is to end."""
        self._output = StandardOutput()
        self._namespace: dict[str, Any] = {}
        self._scripts = Scripts(self._namespace)

    # ── the main thread ──

    def run(self) -> None:
        """Live; raises BusError if no system of this beamline runs."""
        profile = plugins.read_profile(self._settings)
        os.environ.update(profile.environment)
        logging.getLogger("bluesky").setLevel(logging.WARNING)
        signal.signal(signal.SIGINT, self._interrupted)
        with Client(self._settings) as client:
            self._load(client)
            threading.Thread(target=self._hear, name="hear the scan server", daemon=True).start()
            self._say(WorkerReady(pid=os.getpid(), plans=[], device_client=client.device_link.client))
            while (job := self._jobs.get()) is not None:
                if isinstance(job, TakeScript):
                    for problem in self._scripts.take_all([job.script]):
                        _log.warning("%s", problem)
                else:
                    self._say(self._run(job))

    def _load(self, client: Client) -> None:
        """Execute the start-up files, and take up what scripts define; what fails is left out."""
        self._namespace |= {"RE": _NoRuns({}, context_managers=[]), "devices": client.dev}
        self._scripts = Scripts(self._namespace, client.device_link.only_looking)
        plugins.mount(self._settings)
        startup = StartupFiles(plugins.collection(self._settings) / "startup", self._namespace)
        kept: KeptScripts = client.tasks.kept
        for problem in (*startup.execute_all(), *self._scripts.take_all(kept.scripts)):
            _log.warning("%s", problem)

    def _run(self, job: RunTask) -> TaskEnded:
        ended = self._carried_out(job)
        flush_output()
        return msgspec.structs.replace(ended, memory=_memory(), is_spoiled=not self._output.restore())

    def _carried_out(self, job: RunTask) -> TaskEnded:
        ended = TaskEnded(task_id=job.task_id)
        try:
            self._running = job.task_id
            if self._unwanted == job.task_id:
                raise KeyboardInterrupt
            if job.kind == "script":
                defines, note = self._scripts.run(job.task_id, job.title, job.text)
                ended = msgspec.structs.replace(ended, defines=defines, note=note)
            else:
                value, note = crossing(self._function(job.name)(*job.args, **job.kwargs))
                ended = msgspec.structs.replace(ended, value=value, note=note)
            self._running = ""
        except SystemExit as error:
            self._running = ""
            if error.code not in (None, 0):
                ended = msgspec.structs.replace(ended, reason=f"it exited with {error.code!r}")
        except BaseException as error:  # noqa: BLE001  # here a process meets what people write
            self._running = ""
            reason = "it was interrupted" if isinstance(error, KeyboardInterrupt) else cause_of(error)
            ended = msgspec.structs.replace(ended, reason=reason, traceback=traceback_of(error))
        return ended

    def _function(self, name: str) -> Callable[..., Any]:
        found = self._namespace.get(name)
        if name.startswith("_") or not callable(found):
            own = [each for each, value in self._namespace.items() if _is_function_of(value, self._namespace)]
            raise RefusedError(f"No function {name!r} in the start-up files and scripts: {choices(name, own)}")
        if inspect.isgeneratorfunction(inspect.unwrap(found)):
            raise RefusedError(f"{name} is a plan, no function: add it to the queue")
        return found

    def _interrupted(self, *_: object) -> None:
        """Raise in the task's code, once, if it is the task that is meant (handler of SIGINT)."""
        if self._running and self._running == self._unwanted:
            self._running = ""
            raise KeyboardInterrupt

    # ── the thread that hears ──

    def _hear(self) -> None:
        decode = decoder(ToWorker).decode
        file = self._connection.makefile("rb")
        while head := file.read(_HEAD):
            match decode(file.read(int.from_bytes(head, "big"))):
                case Ping(number=number):
                    self._say(Pong(number=number))
                case RunTask() | TakeScript() as job:
                    self._jobs.put(job)
                case InterruptTask(task_id=task_id):
                    self._interrupt(task_id)
                case Shutdown():
                    break
                case _:
                    pass
        self._jobs.put(None)
        self._interrupt(self._running)
        time.sleep(_LAST_CLEAN_UP)
        os._exit(1)

    def _interrupt(self, task_id: str) -> None:
        if task_id:
            self._unwanted = task_id
            signal.pthread_kill(self._main_thread, signal.SIGINT)

    def _say(self, message: FromWorker) -> None:
        data = frame(message)
        with self._sending:
            try:
                self._connection.sendall(data)
            except OSError:  # the scan server is gone: so is this, soon
                _log.debug("a %s was not sent", type(message).__name__)


def _is_function_of(value: Any, namespace: dict[str, Any]) -> bool:
    return inspect.isfunction(value) and value.__globals__ is namespace and not inspect.isgeneratorfunction(value)


def _memory() -> int:
    """Give the bytes that this process has resident; where that is not told, the most that it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
