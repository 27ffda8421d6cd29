"""The worker: the main thread runs plans, the engine's thread carries out their messages, the control thread talks."""

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import socket
from typing import Any

import msgspec
from bluesky.preprocessors import SupplementalData

from bec_bluesky import embedded, plugins
from bec_bluesky.accelerations import accelerate, chosen
from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACKS, SCRIPTS
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScripts
from bec_bluesky.messages.failures import tell
from bec_bluesky.messages.queue import ItemResult, RunAction
from bec_bluesky.messages.worker import (
    CheckItem,
    CheckResult,
    Control,
    ItemSuspended,
    ItemWaits,
    ModulesReloaded,
    Ping,
    Pong,
    ReloadModules,
    RunItem,
    RunStarted,
    RunState,
    RunStopped,
    Shutdown,
    TakeScript,
    ToWorker,
    WorkerItemDone,
    WorkerProgress,
    WorkerReady,
)
from bec_bluesky.proxy import DeviceLink, RemoteDevice, prepare_engine
from bec_bluesky.scan_server._frames import FrameReader, FrameSender
from bec_bluesky.scan_server._output import flush_output
from bec_bluesky.scan_server.worker._arguments import call
from bec_bluesky.scan_server.worker._check import Readings, check_item
from bec_bluesky.scan_server.worker._claim import ItemClaim
from bec_bluesky.scan_server.worker._control_thread import ControlThread
from bec_bluesky.scan_server.worker._crossing import crossing
from bec_bluesky.scan_server.worker._engine import Engine
from bec_bluesky.scan_server.worker._item import RunningItem
from bec_bluesky.scan_server.worker._plans import PlanRegistry
from bec_bluesky.scan_server.worker._progress import ProgressMeter, expected_points
from bec_bluesky.scan_server.worker._publisher import DocumentPublisher
from bec_bluesky.scan_server.worker._scan_numbers import ScanNumbers
from bec_bluesky.scan_server.worker._standing import StandingSuspenders
from bec_bluesky.scan_server.worker._waiting import wait_here
from bec_bluesky.settings import Settings

__all__ = ["Worker"]

_log = logger(__name__)
_PROGRESS_PERIOD = 0.1
_CLEAN_UP = 10.0
"""Seconds that a plan may clean up at shutdown before it is halted."""
_HALT = 3.0
"""Seconds that halting may take before the process ends all the same."""
_FLUSH = 30.0
"""Seconds that documents of a plan that has ended may wait for Redis at shutdown."""
_LINK_PATIENCE = 5.0
"""Seconds that an item waits for a lost link to the device servers."""


class Worker:
    """Runs items for one scan server, until it says so or is gone."""

    def __init__(self, settings: Settings, connection: socket.socket) -> None:
        self._settings = settings
        self._connection = connection
        self._jobs: queue.SimpleQueue[RunItem | ReloadModules | TakeScript | None] = queue.SimpleQueue()
        self._control = ControlThread()
        self._plans = PlanRegistry()
        self._progress = ProgressMeter()
        self._supplement = SupplementalData()
        self._item: RunningItem | None = None
        self._is_ending = False
        self._checks = asyncio.Semaphore(2)
        self._engine: Engine
        self._bus: Bus
        self._link: DeviceLink
        self._standing: StandingSuspenders
        self._sender: FrameSender
        self._publisher: DocumentPublisher
        self._numbers: ScanNumbers

    # ── the main thread ──

    def run(self) -> None:
        """Live; raises BusError if Redis can't be found at the start."""
        server = embedded.find(self._settings)
        if server is None:
            raise BusError("no Redis of this system is running: start it with `bec-bluesky up`")
        profile = plugins.read_profile(self._settings)
        os.environ.update(profile.environment)
        with self._control:
            self._engine = Engine(dict(profile.metadata), self._take_scan_id)
            accelerate(self._engine, only=chosen(self._settings.accelerations))
            try:
                self._control.call(self._open(server.url))
                self._load_plans()
                self._work()
            finally:
                self._control.call(self._close())
                self._engine.close()

    def _load_plans(self) -> None:
        kept: KeptScripts = self._control.call(self._bus.get(SCRIPTS)) or KeptScripts()
        namespace = {"RE": self._engine, "devices": self._link.devices}
        self._plans.load(self._settings, namespace, kept.scripts, self._link.only_looking)
        self._sender.send(
            WorkerReady(
                pid=os.getpid(),
                plans=self._plans.infos,
                problems=self._plans.problems,
                device_client=self._link.client,
            )
        )

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, ReloadModules | TakeScript):
                self._sender.send(self._load_more(job))
                continue
            running = self._item
            assert running is not None
            result = self._run_item(running, job.token)
            self._item = None  # first: the next item may come as soon as this one is told
            value, note = crossing(running.value)
            self._sender.send(WorkerItemDone(item_id=job.item.item_id, result=result, value=None if note else value))
            running.told.set_result(None)

    def _load_more(self, job: ReloadModules | TakeScript) -> ModulesReloaded:
        try:
            if isinstance(job, ReloadModules):
                changed = self._plans.reload(job.module)
            else:
                changed = self._plans.take_script(job.script)
        except RefusedError as error:
            return ModulesReloaded(failure=msgspec.structs.replace(tell(error), traceback=""))
        return ModulesReloaded(plans=self._plans.infos, changed=changed, problems=self._plans.problems)

    def _run_item(self, running: RunningItem, token: int) -> ItemResult:
        item = running.item
        self._publisher.begin(token, item.item_id, item.user)
        self._wait_for_devices()
        self._supplement.baseline = self._devices_to_read("baseline")
        self._supplement.monitors = self._devices_to_read("continuous", method="subscribe")
        claim = ItemClaim(self._link, item)
        result = running.run(lambda: self._make_plan(running, claim))
        claim.end()
        flush_output()
        self._standing.remove()
        self._tell_progress()  # the last points too
        self._progress.reset()
        self._control.call(self._publisher.drained())
        return result

    def _make_plan(self, running: RunningItem, claim: ItemClaim) -> Any:
        item = running.item
        if item.kind == "instruction":
            return wait_here(item.kwargs, self._link.devices, self._tell_wait)
        self._standing.install(item, self._tell_wait, lambda: running.is_unwanted, lambda: running.is_bypassed)
        claim.begin(self._tell_wait, lambda: running.is_unwanted)
        return call(self._plans[item.plan], item, self._link.devices)

    def _tell_wait(self, text: str) -> None:
        self._sender.send(ItemWaits(text=text))

    def _wait_for_devices(self) -> None:
        """Let a link that Redis interrupted come back before a plan needs it; a server that is gone fails the plan."""
        if not self._link.is_ready:
            waiting = self._link.wait_until_ready(_LINK_PATIENCE)
            asyncio.run_coroutine_threadsafe(waiting, self._engine.loop).result()

    def _devices_to_read(self, readout: str, *, method: str = "read") -> list[RemoteDevice]:
        """Give the devices of a readout priority that are there and have a method."""
        devices = self._link.devices
        infos = [(each, each.info) for each in (devices[name] for name in list(devices))]
        return [
            each
            for each, info in infos
            if info.readout == readout and info.state == "connected" and method in info.methods
        ]

    # ── the engine's thread ──

    async def _take_scan_id(self, _: dict[str, Any]) -> int:
        return await asyncio.wrap_future(self._control.start(self._numbers.take()))

    def _run_opened(self, start: dict[str, Any]) -> None:
        scan_id = int(start["scan_id"])
        if self._item is not None:
            self._item.run_uids.append(start["uid"])
            self._item.scan_ids.append(scan_id)
        self._link.claims.describe(scan_id=scan_id)
        self._sender.send(RunStarted(run_uid=start["uid"], scan_id=scan_id, expected=expected_points(start)))

    def _state_changed(self, new: Any, old: Any) -> None:
        if self._item is not None and str(new) == "running":
            self._item.begin()
        self._sender.send(RunState(state=str(new)))

    # ── the control thread ──

    async def _open(self, url: str) -> None:
        engine = self._engine
        reader, writer = await asyncio.open_connection(sock=self._connection)
        self._sender = FrameSender(writer, asyncio.get_running_loop())
        self._bus = await Bus(url, self._settings.beamline).__aenter__()
        self._numbers = ScanNumbers(self._bus, self._settings.scan_number)
        self._publisher = DocumentPublisher(
            self._bus.address,
            self._settings.beamline,
            on_opened=self._run_opened,
            on_closed=lambda uid, status: self._sender.send(RunStopped(run_uid=uid, exit_status=status)),
            on_refused=self._documents_refused,
        )
        self._link = await DeviceLink.connect(self._bus.address, self._settings.beamline, loop=engine.loop)
        prepare_engine(engine, self._link)
        engine.preprocessors.append(self._supplement)
        engine.subscribe(self._publisher)
        engine.subscribe(self._progress)
        self._standing = StandingSuspenders(self._settings, engine, self._link, self._plans)
        engine.set_hooks(
            waiting=self._progress.wait_for,
            state=self._state_changed,
            suspended=lambda text: self._sender.send(ItemSuspended(text=text)),
        )
        self._control.spawn(self._publisher.run(), "publish documents", on_failure=self._fail)
        self._control.spawn(self._tell_progress_often(), "tell progress")
        self._control.spawn(self._hear(FrameReader(reader, ToWorker)), "hear the scan server", on_failure=self._fail)

    async def _close(self) -> None:
        if hasattr(self, "_link"):
            await self._link.close()
        if hasattr(self, "_bus"):
            await self._bus.__aexit__(None, None, None)
        if hasattr(self, "_sender"):
            await self._sender.close()

    async def _hear(self, reader: FrameReader) -> None:
        why = "the scan server is gone"
        try:
            while (message := await reader.read()) is not None:
                match message:
                    case Ping():
                        self._sender.send(Pong(number=message.number))
                    case RunItem():
                        self._accept(message)
                    case ReloadModules() | TakeScript():
                        self._jobs.put(message)
                    case Control():
                        if self._item is not None:  # the one that is meant: another may begin before the task does
                            action = self._act(self._item, message.action, message.reason)
                            self._control.spawn(action, f"act: {message.action}")
                    case CheckItem():
                        self._control.spawn(self._check(message), "check")
                    case Shutdown():
                        why = "the scan server ended this worker"
                        break
        except ConnectionError as error:
            why = f"the connection to the scan server is broken: {error}"
        await self._end(why)

    def _accept(self, job: RunItem) -> None:
        if self._item is not None or self._is_ending:
            reason = "the worker is ending" if self._is_ending else "the worker is busy with another item"
            result = ItemResult(exit_status="failed", reason=reason)
            self._sender.send(WorkerItemDone(item_id=job.item.item_id, result=result))
            return
        self._item = RunningItem(self._engine, job.item)
        self._jobs.put(job)

    async def _act(self, running: RunningItem, action: RunAction, reason: str) -> None:
        """Act on an item; before its plan has begun, wait until it has."""
        running.want(action, reason)
        if action in ("skip", "stop", "abort", "halt"):
            self._publisher.let_go()
        await _done(running.begun)
        if running.is_over:
            return
        in_engine = asyncio.run_coroutine_threadsafe(self._engine.act(action, reason), self._engine.loop)
        if not await asyncio.wrap_future(in_engine):
            running.act_when_paused(action, reason)
        elif action == "pause" and str(self._engine.state) == "running":
            self._sender.send(RunState(state="pausing"))
        elif action == "resume" and str(self._engine.state) == "running":
            self._sender.send(RunState(state="running"))  # the pause at the next checkpoint is taken back

    async def _check(self, message: CheckItem) -> None:
        async with self._checks:
            result = await check_item(message.item, self._plans, self._link.devices, await self._readings())
        self._sender.send(
            CheckResult(
                check_id=message.check_id, failure=result.failure, points=result.points, devices=list(result.devices)
            )
        )

    async def _readings(self) -> Readings:
        """Give the latest readings of all devices, by path."""
        readings: Readings = {}
        devices = self._link.devices
        # without them values are made up; devices may come and go meanwhile, in the engine's thread
        with contextlib.suppress(BusError, LookupError, RuntimeError):
            for server in {devices[name].info.server for name in list(devices)}:
                table = await self._bus.fields(READBACKS, server=server)
                readings |= {path: readback.reading for path, readback in table.items()}
        return readings

    async def _tell_progress_often(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_PERIOD)
            self._tell_progress()

    def _tell_progress(self) -> None:
        progress = self._progress.take()
        if progress is not None and self._item is not None:
            self._sender.send(WorkerProgress(progress=progress))

    def _documents_refused(self, error: BusError) -> None:
        self._control.spawn(self._end(str(error)), "end")

    def _fail(self, name: str, error: BaseException) -> None:
        self._control.spawn(self._end(f"it can no longer {name}: {error}"), "end")

    # ── the end ──

    def shut_down(self) -> None:
        """End as if the scan server had asked for it (SIGTERM); from the main thread."""
        self._control.start(self._end("the worker was asked to end (SIGTERM)"))

    async def _end(self, why: str) -> None:
        """Abort what runs, let the main thread end; a plan that can't be ended is left behind by leaving."""
        if self._is_ending:
            return
        self._is_ending = True
        _log.info("the worker ends: %s", why)
        self._jobs.put(None)
        running = self._item
        if running is None:
            return
        steps: tuple[tuple[RunAction, float], ...] = (("abort", _CLEAN_UP), ("halt", _HALT))
        for action, patience in steps:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._act(running, action, why)
                    await _done(running.over)
                    break
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH if running.is_over else 0.0):
                await _done(running.told)
                return
        _log.error("the plan of item %s cannot be ended: the worker leaves it", running.item.item_id)
        os._exit(1)


async def _done(future: "concurrent.futures.Future[None]") -> None:
    """Wait for what another thread settles; giving up the wait leaves it alone."""
    await asyncio.shield(asyncio.wrap_future(future))
