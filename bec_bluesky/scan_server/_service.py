"""The scan server's manager: requests in, queues, workers that run it, and what it says of itself."""

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine
from typing import Any, ClassVar

from bec_bluesky.channels import INSTRUCTIONS, SERVICES
from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import (
    EndTask,
    GetLock,
    GetRules,
    GetTasks,
    LockAll,
    ReloadPlans,
    RunFunction,
    RunScript,
    SetEnvironment,
    SetRules,
    Unlock,
)
from bec_bluesky.messages.devices import Instruction, Op
from bec_bluesky.messages.queue import ItemResult, PlanInfo, QueueItem
from bec_bluesky.messages.worker import WorkerReady
from bec_bluesky.people import CommandFile
from bec_bluesky.plugins import read_profile
from bec_bluesky.scan_server._actions import Actions
from bec_bluesky.scan_server._announcer import Announcer
from bec_bluesky.scan_server._command_log import CommandLog
from bec_bluesky.scan_server._console import Console
from bec_bluesky.scan_server._devices import DeviceBook
from bec_bluesky.scan_server._environment import Environment
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._interlocks import Interlocks
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._locks import Locks
from bec_bluesky.scan_server._lost_runs import close_runs_of
from bec_bluesky.scan_server._metadata import MetadataRules
from bec_bluesky.scan_server._new_items import NewItems
from bec_bluesky.scan_server._ownership import Ownership, TakeOver
from bec_bluesky.scan_server._patience import Patience
from bec_bluesky.scan_server._permissions import Permissions
from bec_bluesky.scan_server._plan_reload import PlanReload
from bec_bluesky.scan_server._plans import PlanBook
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._queue_events import Ended, StopAsked, WorkerLost
from bec_bluesky.scan_server._requests import RequestReader
from bec_bluesky.scan_server._script_shelf import ScriptShelf
from bec_bluesky.scan_server._store import QueueStore
from bec_bluesky.scan_server._surroundings import Surroundings
from bec_bluesky.scan_server._task_runner import TASK_COMMAND, TaskRunner
from bec_bluesky.scan_server._tasks import TaskBook
from bec_bluesky.scan_server._worker_process import WORKER_COMMAND
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings

__all__ = ["ScanServer"]

_log = logger(__name__)
_WAITING = "scan_server.waiting"
"""Its name until it is the owner of the queues."""
_OWNER_PERIOD = 1.0
"""Seconds between two renewals of the lease."""
_WORKER_GRACE = 16.0
"""Seconds that workers may take to abort and clean up at shutdown."""
_LAST_WRITES = 2.0
"""Seconds for what is written at the very end; without it, what ran is held by the next start."""
_CLOSING_TRIES = 5
"""Tries to close the runs of a lost worker while Redis does not answer."""


class ScanServer(Service):
    """Takes requests, keeps the queues and has workers run them."""

    name: ClassVar[str] = "scan_server"
    grace: ClassVar[float] = 25.0

    def __init__(
        self,
        settings: Settings,
        *,
        worker_command: tuple[str, ...] = WORKER_COMMAND,
        task_command: tuple[str, ...] = TASK_COMMAND,
        has_spare: bool = True,
        patience: Patience | None = None,
        queues: tuple[str, ...] | None = None,
        take_over: TakeOver = "if_free",
    ) -> None:
        """Serve the main queue and these others; `queues` and `patience` None: as the profile says."""
        super().__init__(settings, name=_WAITING)  # what lives under its name is not to be hidden
        self._queues = queues
        self._how: TakeOver = take_over
        self.around = Surroundings()
        self.plans = PlanBook()
        self.devices = DeviceBook()
        self.console = Console()
        self.pool = WorkerPool(
            settings,
            self,
            self.spawn,
            command=worker_command,
            has_spare=has_spare,
            patience=patience or Patience.of(read_profile(settings).worker),
            console=self.console,
        )
        self._task_command = task_command
        self._runner: TaskRunner | None = None
        self._ownership: Ownership | None = None
        self._store: QueueStore | None = None
        self._keeper: QueueKeeper | None = None
        self._announcer: Announcer | None = None
        self._requests: RequestReader | None = None
        self._commands: CommandLog | None = None
        self._replaced_by: FencedError | None = None
        self._losses: set[asyncio.Task[None]] = set()
        """Workers that are gone, of which the devices are being told."""

    async def start(self) -> None:
        """Become the owner of the queues, and serve; or stand by until that is possible."""
        self._ownership = ownership = Ownership(self.bus)
        if self._how == "when_free":
            self.facts = {"stands_by": True}
            self.spawn(self._stand_by(ownership), "standby")
        else:
            await self._serve(ownership, await ownership.take(self._how))

    async def _stand_by(self, ownership: Ownership) -> None:
        while True:
            try:
                token = await ownership.take("when_free")
                break
            except BusError as error:
                _log.warning("%s; standing by", error)
                await asyncio.sleep(_OWNER_PERIOD)
        await self.alarm("the scan server is gone: the one that stood by takes over", level="error")
        await self._serve(ownership, token)

    async def _serve(self, ownership: Ownership, token: int) -> None:
        """Take requests and start workers; none of them is waited for."""
        await self.bus.delete(SERVICES, service=self.service_name)
        self.service_name, self.facts = self.name, {}
        self._store = store = QueueStore(self.bus, token)
        self.pool.token = token
        await self.devices.load(self.bus)
        await self.plans.load(self.bus)
        self._keeper = keeper = QueueKeeper(
            store,
            run=self.pool.run,
            has_worker=lambda: self.pool.has_free_worker,
            close_runs=self._close_runs,
            finished=self._finished,
            changed=self.activity_changed,
            forbidden=lambda: interlocks.forbids,
        )
        interlocks = Interlocks(self.settings, keeper, self.pool, self.around, self.alarm, self.activity_changed)
        self._announcer = announcer = Announcer(store, keeper, self.pool, self.around)
        await self._take_up(store, keeper)
        locks, permissions = await self._load_surroundings()
        history = HistoryReader(self.bus, self.settings.history_index)
        profile = read_profile(self.settings)
        metadata = MetadataRules(profile.metadata_schema, profile.metadata)
        reload = PlanReload(self.pool, self.plans, keeper, self._offer, lambda: runner.renew())
        file = CommandFile(self.settings.data_dir, self.settings.beamline)
        self._commands = commands = CommandLog(self.bus, file, self._alarm_about_request)
        tasks = TaskBook(self.bus, self.around, reload, self.activity_changed, self.spawn)
        shelf = ScriptShelf(self.bus, self.pool, self._offer)
        await tasks.load()
        await shelf.load()
        self._runner = runner = self._make_runner(tasks, shelf)
        environment = Environment(self.pool, self.around, tasks, runner, self.activity_changed, self.spawn)
        actions = Actions(
            keeper=keeper,
            pool=self.pool,
            history=history,
            announcer=announcer,
            new_items=NewItems(self.plans, self.devices, self.pool, metadata),
            checks=(permissions.check, locks.check, interlocks.check),
            more={
                SetEnvironment: environment.set,
                LockAll: locks.lock,
                Unlock: locks.unlock,
                GetLock: locks.get,
                SetRules: permissions.set,
                GetRules: permissions.get,
                ReloadPlans: reload.reload,
                GetTasks: tasks.get,
                RunScript: runner.run_script,
                RunFunction: runner.run_function,
                EndTask: runner.end,
            },
        )
        self._requests = RequestReader(
            self.bus,
            store,
            actions.handle,
            self._alarm_about_request,
            self._spawn_owned,
            name=self.service_name,
            noted=commands.note,
        )
        self._spawn_owned(keeper.live(), "queue")
        self._spawn_owned(announcer.run(), "status")
        self._spawn_owned(self._keep_lease(ownership), "lease")
        self._spawn_owned(self._requests.run(), "requests")
        self.spawn(self.devices.follow(self.bus), "devices")
        self.spawn(interlocks.run(self.bus), "interlocks")
        self.spawn(self.console.run(self.bus), "console")
        self.spawn(history.keep_index(), "history index")
        self.spawn(commands.run(), "command log")
        self.pool.start()
        announcer.changed()

    async def finish(self) -> None:
        """Take no more requests, have the workers abort what runs, and leave the queue as it is then."""
        if self._requests is not None:
            self._requests.close()
        for name in self._keeper.states if self._keeper is not None else ():
            self._post(name, StopAsked())
        tasks_end = [] if self._runner is None else [self._runner.stop()]
        await asyncio.gather(self.pool.stop(_WORKER_GRACE), *tasks_end)
        await self.console.flush(self.bus)
        if self._losses:
            await asyncio.wait(self._losses, timeout=_LAST_WRITES)
        if self._replaced_by is not None:
            raise self._replaced_by
        if self._stop_asked.is_set() and self._keeper and self._requests and self._store and self._announcer:
            async with asyncio.timeout(_LAST_WRITES):
                await self._keeper.settled()
                await self._requests.drained()
                if self._commands is not None:
                    await self._commands.write()
                await self._announcer.say()
        if self._ownership is not None:
            await self._ownership.release()

    # ── what becomes of workers and items ──

    def worker_ready(self, ready: WorkerReady) -> None:
        """Take the plans that a worker offers."""
        for problem in ready.problems:
            self.spawn(self.alarm(problem), "alarm")
        self.note = ""
        if self.plans.take(ready.plans):
            self.spawn(self._save_plans(), "plans")
        self.worker_free()
        if self._runner is not None and self.around.environment == "open" and self.pool.ready == self.pool.most:
            self._runner.warm_up()  # last, since it imports what the workers did

    def worker_free(self) -> None:
        """Have the queues go on."""
        if self._keeper is not None:
            self._keeper.nudge()

    async def _offer(self, plans: list[PlanInfo]) -> None:
        """Have these plans be the ones that are offered; they are on Redis when this returns."""
        if self.plans.take(plans):
            await self._save_plans()

    def item_ended(self, item: QueueItem, result: ItemResult) -> None:
        """Take the result of an item that ran."""
        self._post(item.queue, Ended(item.item_id, result, again_id=uuid.uuid4().hex))

    def worker_lost(self, why: str, *, device_client: str, item: QueueItem | None, result: ItemResult | None) -> None:
        """Fail what ran on a worker that is gone, and have the devices it used let go."""
        self.spawn(self.alarm(f"{why}; another one is started", level="error" if item else "warning"), "alarm")
        if not self.pool.ready:
            self.note = why
        loss = self.spawn(self._go_on_without(device_client, item, result), "worker lost")
        self._losses.add(loss)
        loss.add_done_callback(self._losses.discard)

    async def _go_on_without(self, device_client: str, item: QueueItem | None, result: ItemResult | None) -> None:
        """Have devices let go, then have the queue go on: its next item claims them."""
        if device_client:
            await self._tell_devices(device_client)
        if item is not None and result is not None:
            self._post(item.queue, WorkerLost(result, again_id=uuid.uuid4().hex))

    def activity_changed(self) -> None:
        """Announce the status."""
        self.facts = {"workers": self.pool.pids}
        if self._announcer is not None:
            self._announcer.changed()

    def _post(self, queue: str, event: Any) -> None:
        if self._keeper is not None:
            self._keeper.post(queue, event)

    def _finished(self, item: QueueItem) -> None:
        result = item.result
        assert result is not None
        text = f"item {item.item_id} ({item.plan}) {result.exit_status}" + (
            f": {result.reason}" if result.reason else ""
        )
        if result.exit_status == "failed":
            self.spawn(self.alarm(text), "alarm")
        else:
            _log.info(text, extra={"user": item.user})

    # ── ownership ──

    def _spawn_owned(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.spawn(self._until_replaced(coroutine), name)

    async def _until_replaced(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Stop this service, in order, when another scan server took over."""
        try:
            await coroutine
        except FencedError as error:
            self._replaced_by = error
            _log.error("%s", error)
            self.stop()

    async def _keep_lease(self, ownership: Ownership) -> None:
        while True:
            await asyncio.sleep(_OWNER_PERIOD)
            try:
                await ownership.renew()
            except FencedError:
                raise
            except BusError as error:
                _log.warning("%s", error)

    # ── outside ──

    async def _load_surroundings(self) -> tuple[Locks, Permissions]:
        locks = Locks(self.bus, self.around)
        permissions = Permissions(self.bus, self.settings, self.devices, self.around)
        await locks.load()
        if problem := await permissions.load():
            await self.alarm(problem, level="error")
        if read_profile(self.settings).environment_is_open:
            self.around.environment = "open"
        return locks, permissions

    def _make_runner(self, tasks: TaskBook, shelf: ScriptShelf) -> TaskRunner:
        return TaskRunner(
            self.settings,
            tasks,
            shelf,
            self.console,
            self.spawn,
            changed=self.activity_changed,
            tell_devices=self._tell_devices,
            flush=lambda: self.console.flush(self.bus),
            command=self._task_command,
        )

    async def _take_up(self, store: QueueStore, keeper: QueueKeeper) -> None:
        loaded = await store.load(self._declared_queues())
        for problem in loaded.problems:
            await self.alarm(problem, level="error")
        for state in loaded.states.values():
            if state.running is not None:
                what = f"item {state.running.item_id} ({state.running.plan})"
                await self.alarm(f"{what} was running when the scan server ended: it is held")
        self.pool.most += len(loaded.states) - 1
        await keeper.take_up(
            loaded, "the scan server ended while it was running; how far it came is unknown, see its runs"
        )

    def _declared_queues(self) -> tuple[str, ...]:
        return read_profile(self.settings).queues if self._queues is None else self._queues

    async def _close_runs(self, item: QueueItem, reason: str) -> None:
        for tries in range(1, _CLOSING_TRIES + 1):
            try:
                await close_runs_of(self.bus, item, reason, self.pool.token)
                return
            except FencedError:
                raise
            except BusError as error:
                if tries == _CLOSING_TRIES:
                    await self.alarm(f"the runs of item {item.item_id} are left open: {error}", level="error")
                await asyncio.sleep(0.2 * tries)

    async def _save_plans(self) -> None:
        try:
            await self.plans.save(self.bus)
        except BusError as error:
            await self.alarm(f"the list of plans on Redis is out of date: {error}")
        self.around.plans_revision += 1  # last: who hears of it reads what is there
        self.activity_changed()

    async def _tell_devices(self, client: str) -> None:
        instruction = Instruction(client, "", [Op(0, "", "client_lost", [client])])
        for server in self.devices.servers:
            with contextlib.suppress(BusError):  # it notices by itself, later
                await self.bus.publish(INSTRUCTIONS, instruction, server=server)

    async def _alarm_about_request(self, text: str) -> None:
        await self.alarm(text)
