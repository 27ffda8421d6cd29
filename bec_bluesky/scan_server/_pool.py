"""The workers: each runs one item, a warm spare checks new ones meanwhile and takes over when another one is lost."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from bec_bluesky.errors import RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScript
from bec_bluesky.messages.queue import ItemResult, QueueItem, RunAction, RunOfItem
from bec_bluesky.messages.worker import (
    CheckResult,
    Control,
    FromWorker,
    ModulesReloaded,
    ReloadModules,
    RunItem,
    RunState,
    TakeScript,
    WorkerItemDone,
    WorkerReady,
)
from bec_bluesky.scan_server._activity import ENDING, Activity, Job, Listener
from bec_bluesky.scan_server._checking import Checking
from bec_bluesky.scan_server._console import Console
from bec_bluesky.scan_server._loading import Loading
from bec_bluesky.scan_server._patience import Patience
from bec_bluesky.scan_server._worker import Worker
from bec_bluesky.scan_server._worker_process import WORKER_COMMAND, WorkerProcess
from bec_bluesky.settings import Settings

__all__ = ["UNCHECKED", "WorkerPool"]

_log = logger(__name__)
UNCHECKED = "unchecked"
"""Property of an item that was accepted without a worker's check: it is checked before it runs."""
_LONGEST_PAUSE = 30.0
"""Seconds between two tries to start a worker, at most."""
_RENEWAL = 20.0
"""Seconds for which workers that are to be replaced are awaited."""

Spawn = Callable[[Coroutine[Any, Any, None], str], Any]


class WorkerPool:
    """Keeps workers alive, gives them items and checks; everything happens in the service's loop."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        spawn: Spawn,
        *,
        command: tuple[str, ...] = WORKER_COMMAND,
        has_spare: bool = True,
        patience: Patience,
        console: Console | None = None,
    ) -> None:
        """`console` publishes what they print."""
        self._settings = settings
        self._listener = listener
        self._spawn = spawn
        self._command = command
        self._patience = patience
        self._console = console
        self.most = 1 + has_spare
        """Workers there may be, at least as many as there are at first; more are started when the others have work."""
        self._slots: list[Worker | None] = [None] * self.most
        self._someone_is_free = asyncio.Event()
        self._first_is_ready = asyncio.Event()
        self._checking = Checking(self._workers, self._someone_is_free, patience)
        self._loading = Loading(self._workers, self._someone_is_free)
        self._is_stopping = False
        self._all_ended = asyncio.Event()
        self._numbers = itertools.count()
        self._jobs: dict[str, Job] = {}
        """By the ids of their items."""
        self.last_runs: dict[str, tuple[RunOfItem, ...]] = {}
        """Runs of the item that ended last, by queue."""
        self.token = 0
        """Fencing token, given with each item."""
        self.last_words = "no worker was started yet"
        """What became of a worker last, in one sentence."""

    # ── state ──

    @property
    def ready(self) -> int:
        """How many workers have loaded their plans."""
        return sum(worker.is_ready for worker in self._workers())

    @property
    def is_alive(self) -> bool:
        """Whether any worker process exists."""
        return bool(self._workers())

    @property
    def has_free_worker(self) -> bool:
        """Whether a worker waits for an item; what was lost in the moment when it was to be started comes first."""
        return any(worker.is_free for worker in self._workers()) and all(job.has_worker for job in self._jobs.values())

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers()]

    @property
    def running_pid(self) -> int | None:
        """Process id of a worker that runs an item."""
        return next((worker.process.pid for worker in self._workers() if worker.job is not None), None)

    def activity(self, item: QueueItem | None) -> Activity | None:
        """Give what an item does; None: no worker runs it (any more)."""
        job = None if item is None else self._jobs.get(item.item_id)
        return None if job is None or not job.has_worker else job.activity

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._slots if worker is not None]

    # ── life ──

    def start(self) -> None:
        """Start the first worker; the spare follows when that is ready, since both would import the same at once."""
        for slot in range(len(self._slots)):
            self._spawn(self._keep(slot), f"worker {slot}")

    async def stop(self, grace: float) -> None:
        """Have all workers abort, clean up and exit within `grace` seconds; the rest is killed."""
        self._is_stopping = True
        for job in [job for job in self._jobs.values() if not job.has_worker]:
            self._withdraw(job, Control(action="abort", reason="the scan server was stopped before it was started"))
        for worker in self._workers():
            worker.process.shut_down()
        try:
            async with asyncio.timeout(grace):
                await self._until_all_ended()
        except TimeoutError:
            for worker in self._workers():
                worker.process.kill(f"it did not shut down within {grace:g} s")
            async with asyncio.timeout(5.0):
                await self._until_all_ended()

    @property
    def is_busy(self) -> bool:
        """Whether any item runs or waits for a worker."""
        return bool(self._jobs)

    async def wait_until_ready(self, timeout: float) -> bool:
        """Wait until a worker is ready, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                while not self.ready:
                    self._first_is_ready.clear()
                    await self._first_is_ready.wait()
        except TimeoutError:
            return False
        return True

    async def renew(self, why: str | None) -> None:
        """Replace the workers that are there; with `why` at once and whatever they do, else those that do nothing."""
        for worker in self._workers():
            if why is not None:
                worker.process.kill(why)
            elif worker.job is None:
                worker.is_spoiled = True  # gets nothing more
                worker.process.shut_down()
        leaving = [worker for worker in self._workers() if why is not None or worker.is_spoiled]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RENEWAL):
                while any(worker in self._slots for worker in leaving):
                    self._all_ended.clear()
                    await self._all_ended.wait()

    async def _until_all_ended(self) -> None:
        while self._workers():
            self._all_ended.clear()
            await self._all_ended.wait()

    async def _keep(self, slot: int) -> None:
        failures = 0
        if slot > 0:
            await self._first_is_ready.wait()
        while not self._is_stopping:
            process = WorkerProcess(
                self._settings,
                command=self._command,
                on_message=self._heard,
                silence=self._patience.silence,
                memory=self._patience.memory,
                number=next(self._numbers),
                console=self._console,
            )
            worker = self._slots[slot] = Worker(process)
            if not self.ready:
                self.last_words = "a worker is starting" + (f", since {self.last_words}" if failures else "")
            self._listener.activity_changed()
            try:
                await process.run()
            except OSError as error:
                process.why = f"the worker process could not be started: {error}"
            finally:
                self._slots[slot] = None
            failures = 0 if worker.is_ready else failures + 1
            self._ended(worker)
            if failures and not self._is_stopping:
                await asyncio.sleep(min(0.25 * 2**failures, _LONGEST_PAUSE))

    def _ended(self, worker: Worker) -> None:
        """Tell that a worker is gone, and end what it was doing."""
        why = worker.process.why
        for future in worker.checks.values():
            future.cancel()
        worker.checks.clear()
        for future in worker.reloads:
            future.cancel()
        worker.reloads.clear()
        self.last_words = why
        self._refresh_free()
        self._all_ended.set()
        job = worker.job
        if job is not None:
            self._forget(job)
        if job is not None or not self._is_stopping:
            item, result = (None, None) if job is None else (job.item, job.result("failed", why))
            self._listener.worker_lost(why, device_client=worker.device_client, item=item, result=result)
        self._listener.activity_changed()

    # ── items ──

    def run(self, item: QueueItem) -> None:
        """Give an item to a free worker; what becomes of it comes to the listener."""
        job = self._jobs[item.item_id] = Job(item)
        self._begin(job)
        while len(self._slots) < min(self.most, len(self._jobs) + 1) and not self._is_stopping:
            self._slots.append(None)
            self._spawn(self._keep(len(self._slots) - 1), f"worker {len(self._slots) - 1}")

    def _begin(self, job: Job) -> None:
        """Begin an item if a worker is free; else it begins when one is."""
        free = [worker for worker in self._workers() if worker.is_free]
        if not free:
            return
        worker = min(free, key=lambda each: len(each.checks))
        worker.job, job.has_worker = job, True
        self._refresh_free()
        if job.item.properties.get(UNCHECKED):
            job.is_checking_first = True
            self._spawn(self._check_then_run(worker, job), f"check {job.item.item_id} before it runs")
        else:
            self._send(worker, job)
        self._listener.activity_changed()

    def _begin_waiting(self) -> None:
        for job in [job for job in self._jobs.values() if not job.has_worker]:
            self._begin(job)

    def _send(self, worker: Worker, job: Job) -> None:
        worker.process.prints_as("worker", job.item.item_id)
        worker.process.send(RunItem(item=job.item, token=self.token))
        for message in job.asked:
            worker.process.send(message)

    async def _check_then_run(self, worker: Worker, job: Job) -> None:
        found = await self._checking.check_on(worker, job.item, self._patience.check)
        if worker.job is not job or not job.is_checking_first:
            return  # its worker died meanwhile
        job.is_checking_first = False
        if job.end_asked is not None:
            self._done(worker, job.ended_before(job.end_asked))
        elif found is not None and found.failure is not None:
            self._done(worker, job.result("failed", f"not started: {found.failure.text}"))
        else:
            self._send(worker, job)

    def has_item(self, item_id: str) -> bool:
        """Whether an item is here; once it has ended it is not, though the queue may not have heard of that yet."""
        return item_id in self._jobs

    def control(self, item_id: str, action: RunAction, reason: str) -> None:
        """Act on an item; if its plan has not begun, when it does. Nothing happens if it is not here."""
        job = self._jobs.get(item_id)
        if job is None:
            return
        message = Control(action=action, reason=reason)
        worker = next((worker for worker in self._workers() if worker.job is job), None)
        if worker is None and action in ENDING:
            self._withdraw(job, message)
        elif worker is None or job.is_checking_first:
            job.asked.append(message)
        else:
            worker.process.send(message)
            if action == "halt":
                asyncio.get_running_loop().call_later(self._patience.halt, self._insist, worker, job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.item.item_id]
        lost = {"is_open": False, "exit_status": "fail"}  # its worker is gone: the scan server closes it
        runs = (msgspec.structs.replace(run, **lost) if run.is_open else run for run in job.activity.runs)
        self.last_runs[job.item.queue] = tuple(runs)

    def _withdraw(self, job: Job, asked: Control) -> None:
        """End an item for which no worker was found."""
        self._forget(job)
        self._listener.item_ended(job.item, job.ended_before(asked))

    def _insist(self, worker: Worker, job: Job) -> None:
        if worker.job is job:
            worker.process.kill(f"its plan did not end within {self._patience.halt:g} s of being halted")

    # ── checks and plans ──

    async def check(self, item: QueueItem, *, longest: float) -> CheckResult | None:
        """Have a worker iterate an item's plan; None if none was free or found nothing within `longest` seconds."""
        return await self._checking.check(item, longest)

    async def reload(self, module: str, *, longest: float) -> ModulesReloaded:
        """Have the workers import plans anew, one first and, since it survived, the others."""
        return await self._loading.load(ReloadModules(module=module), f"Importing {module or 'the plans'}", longest)

    async def take_up(
        self, script: KeptScript, *, longest: float, then: Callable[[], Awaitable[None]]
    ) -> ModulesReloaded:
        """Have the workers take up what a script defines, as by `reload`. Raises RefusedError if the first can't."""
        what = f"Taking up what {script.title or 'the script'} defines"
        found = await self._loading.load(TakeScript(script=script), what, longest, then)
        if found.failure is not None:
            raise RefusedError(found.failure.text, found.failure.code)
        return found

    def _refresh_free(self) -> None:
        if any(worker.is_free and not worker.checks for worker in self._workers()):
            self._someone_is_free.set()

    # ── what workers say ──

    def _heard(self, process: WorkerProcess, message: FromWorker) -> None:
        worker = next((worker for worker in self._workers() if worker.process is process), None)
        if worker is None:
            return
        match message:
            case WorkerReady():
                self._ready(worker, message)
            case CheckResult():
                future = worker.checks.pop(message.check_id, None)
                if future is not None and not future.done():
                    future.set_result(message)
                self._refresh_free()
            case ModulesReloaded():
                future = worker.reloads.pop(0) if worker.reloads else None
                if future is not None and not future.done():
                    future.set_result(message)
                self._begin_waiting()
                self._refresh_free()
                if worker.is_free:
                    self._listener.worker_free()
            case WorkerItemDone():
                if worker.job is not None and worker.job.item.item_id == message.item_id:
                    self._done(worker, message.result)
            case _:
                if isinstance(message, RunState) and message.state == "panicked":
                    worker.is_spoiled = True
                if worker.job is not None and worker.job.activity.follow(message):
                    self._listener.activity_changed()

    def _ready(self, worker: Worker, message: WorkerReady) -> None:
        worker.is_ready = True
        worker.device_client = message.device_client
        self._first_is_ready.set()
        self.last_words = f"worker {message.pid} is ready with {len(message.plans)} plans"
        self._refresh_free()
        self._listener.worker_ready(message)
        self._begin_waiting()
        self._listener.activity_changed()

    def _done(self, worker: Worker, result: ItemResult) -> None:
        job, worker.job = worker.job, None
        assert job is not None
        worker.process.prints_as("worker")
        self._forget(job)
        if worker.is_spoiled:
            worker.process.kill("its RunEngine panicked")
        self._refresh_free()
        self._begin_waiting()
        self._listener.item_ended(job.item, result)
        self._listener.activity_changed()
