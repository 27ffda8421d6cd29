"""The client itself: one connection, the doors of the beamline."""

import asyncio
import atexit
import contextlib
import getpass
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, Unpack

from bec_bluesky import embedded
from bec_bluesky.bus import Bus, Caller
from bec_bluesky.channels import ALARMS, DEVICE_HOLDERS, DEVICES, FILES, PLANS, RESULTS, RUNS, SERVICES
from bec_bluesky.client._completion import allow_completion
from bec_bluesky.client._console import ConsoleDoor
from bec_bluesky.client._device import Device
from bec_bluesky.client._device_door import DeviceDoor, open_device_door
from bec_bluesky.client._device_file import DeviceFile
from bec_bluesky.client._device_notes import DeviceNotes, keeping_notes
from bec_bluesky.client._devices import Devices
from bec_bluesky.client._follow import Event, Follow, Place, Settled
from bec_bluesky.client._history import Filters, PastItems, find_past
from bec_bluesky.client._lock import BeamlineLock
from bec_bluesky.client._loop import Elements, LoopThread
from bec_bluesky.client._offered_plans import OfferedPlans
from bec_bluesky.client._panic import panic_stop
from bec_bluesky.client._plans import Plans
from bec_bluesky.client._queue import Item, QueueDoor
from bec_bluesky.client._reading import read_all, statuses, until
from bec_bluesky.client._tasks import TaskDoor
from bec_bluesky.client._watch import run_and_watch
from bec_bluesky.documents import Runs, find_catalog, present_files
from bec_bluesky.errors import BusError, NoReplyError, RefusedError
from bec_bluesky.messages.common import Alarm, Heartbeat
from bec_bluesky.messages.devices import DeviceHolder, DeviceInfo
from bec_bluesky.messages.products import AnalysisResult, FileGrowing, FileReady, Point, RunOpened
from bec_bluesky.messages.queue import MAIN_QUEUE, ControlRun, GetStatus, PlanInfo, RequestBody, ScanServerStatus
from bec_bluesky.proxy import DeviceLink, StopReport
from bec_bluesky.settings import Settings, load

__all__ = ["Client", "connect"]

_PATIENCE = 2.0
"""Seconds for which a scan server that restarts is waited for."""


def connect(
    beamline: str | None = None,
    *,
    data_dir: str | Path | None = None,
    redis_url: str | None = None,
    user: str | None = None,
) -> "Client":
    """Connect to a running system; what is not given comes from `BEC_BLUESKY_…` variables, then from the defaults.

    Raises BusError, in one sentence, if no system of this beamline runs.
    """
    client = Client(load(beamline=beamline, data_dir=data_dir, redis_url=redis_url), user=user)
    client.open()
    return client


class Client:
    """A beamline as a person's session sees it. Close it, or use it as a context manager.

    Its methods wait and may be called from any thread; its own event loop lives in a thread of its own.
    """

    def __init__(self, settings: Settings, *, user: str | None = None) -> None:
        self.settings = settings
        self._user = user
        self._loop = LoopThread()
        self._exits = contextlib.AsyncExitStack()
        self._bus: Bus | None = None
        self._caller: Caller | None = None
        self._notes: DeviceNotes | None = None
        self._runs: Runs | None = None
        self._door: DeviceDoor | None = None
        self._door_lock = threading.Lock()
        self.dev = Devices(self._device_door)
        """The devices as attributes: to read, move and watch them, and to pass them to plans. Print it for a table."""
        self.lock = BeamlineLock(self.ask)
        self.queue = QueueDoor(self)
        self.run = Plans(lambda: self.plans, lambda plan, args, kwargs: run_and_watch(self, plan, args, kwargs))

    def open(self) -> None:
        """Connect; `connect()` does it for you."""
        server = embedded.find(self.settings)
        if server is None:
            raise BusError(
                f"no bec-bluesky system runs in {self.settings.data_dir}: start it with `bec-bluesky up`, or set "
                "BEC_BLUESKY_DATA_DIR or BEC_BLUESKY_REDIS_URL to the one that is meant"
            )
        allow_completion(Client, Devices, Device)
        self._loop.start()
        try:
            self._loop.call(self._enter(server.url))
        except BaseException:
            self._loop.stop()
            raise
        atexit.register(self.close)  # a script need not close it to end in silence

    async def _enter(self, url: str) -> None:
        self._bus = await self._exits.enter_async_context(Bus(url, self.settings.beamline))
        self._caller = await self._exits.enter_async_context(Caller(self._bus, user=self._user))
        self._notes = await self._exits.enter_async_context(keeping_notes(self._caller))

    def close(self) -> None:
        """Disconnect; harmless when repeated, and done at exit. What runs on the beamline runs on."""
        atexit.unregister(self.close)
        if self._loop.is_running:
            self._loop.call(self._disconnect())
            self._loop.stop()
        if self._door is not None:
            self._door.close()
        self._close_runs()
        self._bus = self._caller = self._door = None

    async def _disconnect(self) -> None:
        await self._loop.end_pumps()
        await self._exits.aclose()

    def __enter__(self) -> Self:
        if not self._loop.is_running:
            self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def bus(self) -> Bus:
        """The bus, on the client's own loop."""
        if self._bus is None:
            raise BusError("this client is closed: connect() again")
        return self._bus

    # ── requests ──

    def ask(self, body: RequestBody, *, timeout: float = 10.0, queue: str = "") -> Any:
        """Ask the scan server; raises what it says, NoReplyError if it does not run or does not answer."""
        return self._loop.call(self._ask(body, timeout, queue))

    async def _ask(self, body: RequestBody, timeout: float, queue: str) -> Any:
        bus = self.bus
        assert self._caller is not None
        deadline = time.monotonic() + _PATIENCE
        while await bus.get(SERVICES, service="scan_server") is None:
            if time.monotonic() > deadline:
                raise NoReplyError(
                    f"no scan server of beamline {self.settings.beamline!r} is running: start the system with "
                    "`bec-bluesky up`, or see why it stopped in the directory that `bec-bluesky status` names"
                )
            await asyncio.sleep(0.1)
        return await self._caller.ask(body, timeout=timeout, queue=queue, lock_key=self.lock.key)

    @property
    def status(self) -> ScanServerStatus:
        """What the scan server does now."""
        return self.ask(GetStatus())

    def statuses(self, queue: str = "") -> Iterator[ScanServerStatus]:
        """Give the scan server's status now and at each change, for ever."""
        return self._loop.iterate(statuses(self.bus, "" if queue == MAIN_QUEUE else queue))

    def pause(self, *, now: bool = False, queue: str = "") -> None:
        """Pause the run after the point under way, or at once."""
        self.ask(ControlRun(action="pause_now" if now else "pause"), queue=queue)

    def resume(self, *, queue: str = "") -> None:
        """Go on after a pause."""
        self.ask(ControlRun(action="resume"), queue=queue)

    def bypass(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """Have a suspended run go on in spite of what suspends it; that suspender is out for this item."""
        self.ask(ControlRun(action="bypass", reason=reason, item_id=item_id), queue=queue)

    def finish(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """Close the run after the point under way, clean up; it counts as a success.

        With `item_id` only if that item runs (so have `skip` and the other ways to end a run).
        """
        self.ask(ControlRun(action="finish", reason=reason, item_id=item_id), queue=queue)

    def skip(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """End the run now, in order; the queue goes on with the next item."""
        self.ask(ControlRun(action="skip", reason=reason, item_id=item_id), queue=queue)

    def stop(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """End the run now, in order; it counts as a success."""
        self.ask(ControlRun(action="stop", reason=reason, item_id=item_id), queue=queue)

    def abort(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """End the run with clean-up; it counts as aborted."""
        self.ask(ControlRun(action="abort", reason=reason, item_id=item_id), queue=queue)

    def halt(self, reason: str = "", *, item_id: str = "", queue: str = "") -> None:
        """End the run at once, without clean-up."""
        self.ask(ControlRun(action="halt", reason=reason, item_id=item_id), queue=queue)

    def stop_all(self) -> StopReport:
        """Stop everything that moves, at once, whoever moves it (panic stop), and abort what runs.

        The device servers are told directly: it works whatever the queue is doing, also without a scan server. Print
        what it gives: it names what could not be stopped.
        """
        return self._loop.call(self._stop_all())

    async def _stop_all(self) -> StopReport:
        assert self._caller is not None
        return await panic_stop(self.bus, self._caller)

    # ── what was ──

    def history(self, text: str = "", **filters: Unpack[Filters]) -> PastItems:
        """Give what ended, newest first: to iterate, to index (`[0]` is the newest), or to print.

        Words of `text` are found, whatever their case, in plan, title, note, sample, user, reason and the names among
        the arguments. Filters are `plan`, `user`, `sample`, `status`, `queue`, and `since` and `until`, times as
        `2026-11-26` or `2026-11-26 14:30`.
        """
        return PastItems(self.ask, text, **filters)

    def rerun(self, which: str | int, *, start: bool = False, queue: str | None = None, **changes: Any) -> Item:
        """Add an item once more, to its queue or another one: `bl.rerun(1204, num=41)`.

        `which` is a scan number, or the beginning of the id of an item or a run; -1 is what ended last. Arguments
        change by their name. `start` starts the queue too.
        """
        if queue is None:
            past = find_past(self.ask, which)
            queue = past.queue if past is not None else ""
            which = which if past is None else past.item_id
        return self.queue(queue).again(which, start=start, **changes)

    def again(self, *, start: bool = False, **changes: Any) -> Item:
        """Add what ended last once more, as `rerun(-1)`."""
        return self.rerun(-1, start=start, **changes)

    # ── what there is ──

    @property
    def plans(self) -> OfferedPlans:
        """The plans that may be asked for, by name; `.reload()` has edited ones imported anew."""
        infos: dict[str, PlanInfo] = self._loop.call(self.bus.fields(PLANS))
        return OfferedPlans(infos, self.ask)

    @property
    def devices(self) -> dict[str, DeviceInfo]:
        """The devices of all device servers, by path."""
        tables: dict[str, dict[str, DeviceInfo]] = self._loop.call(self.bus.find_tables(DEVICES, "server"))
        return {path: info for table in tables.values() for path, info in table.items()}

    @property
    def holders(self) -> dict[str, DeviceHolder]:
        """Who holds which device, of all device servers; a device that nobody holds is not in it."""
        tables: dict[str, dict[str, DeviceHolder]] = self._loop.call(self.bus.find_tables(DEVICE_HOLDERS, "server"))
        return {device: holder for table in tables.values() for device, holder in table.items()}

    def _device_door(self) -> DeviceDoor:
        with self._door_lock:
            if self._door is None:
                self._door = self._loop.call(self._open_door())
            return self._door

    @property
    def device_link(self) -> DeviceLink:
        """This session's link to the device servers."""
        return self._device_door().link

    # ── scripts and functions ──

    @property
    def tasks(self) -> TaskDoor:
        """Scripts and functions on the server: begin them without waiting, look at them, end them."""
        return TaskDoor(self.ask, self._loop, self.bus)

    def run_script(self, script: str | Path, *, title: str = "") -> None:
        """Run Python text, or a file of it, on the server, and show what it prints; Ctrl-C ends it.

        Plans that it defines can be queued then, until `bl.tasks.forget()`. Raises TaskFailedError if it fails.
        """
        self.tasks.script(script, title=title).show()

    def run_function(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the start-up files, or of scripts, on the server; show what it prints, give its value.

        Ctrl-C ends it. Raises TaskFailedError if it fails.
        """
        return self.tasks.function(name, *args, **kwargs).show()

    @property
    def console(self) -> ConsoleDoor:
        """What plans, scripts and functions print: `print(bl.console())`, or `bl.console.follow()`."""
        return ConsoleDoor(self._loop, self.bus)

    @property
    def device_file(self) -> DeviceFile:
        """Which devices there are: to look at, and to change while everything runs."""
        return DeviceFile(self._loop, self.bus, self._device_notes)

    async def _open_door(self) -> DeviceDoor:
        return await self._exits.enter_async_context(
            open_device_door(self._loop, self.bus, self._user or getpass.getuser(), self._device_notes)
        )

    @property
    def _device_notes(self) -> DeviceNotes:
        assert self.bus and self._notes is not None
        return self._notes

    @property
    def services(self) -> dict[str, Heartbeat]:
        """The services that are alive, by name."""
        return self._loop.call(self.bus.find(SERVICES, "service"))

    def alarms(self, limit: int = 20) -> list[Alarm]:
        """Give the newest alarms, newest first."""
        return [alarm for _, alarm in self._loop.call(self.bus.newest(ALARMS, limit))]

    # ── what came out ──

    def place(self) -> Place:
        """Take the place from which an item is followed; before it is added."""
        return self._loop.call(Place.now(self.bus))

    def follow_item(
        self,
        item_id: str,
        place: Place,
        settled: Settled = "callbacks",
        *,
        deadline: float | None = None,
        queue: str = "",
    ) -> Elements[Event]:
        """Give what an item brings, from its start to its end, or until `deadline` (monotonic)."""
        follow = Follow(self.bus, place, item_id=item_id, settled=settled, queue=queue)
        return self._loop.iterate(until(deadline, follow.events()))

    def follow_run(self, run: str | int, settled: Settled = "callbacks") -> Elements[Event]:
        """Give what a run brings, from its beginning to its end, live or late.

        `run` is its uid or the beginning of it, its scan number, or -1 for the newest.
        """
        opened = self.find_run(run)
        return self._loop.iterate(Follow(self.bus, Place(), run_uid=opened.run_uid, settled=settled).events())

    def points(self, run: str | int = -1) -> Iterator[Point]:
        """Give the points of a run, live or late (for a day after its end); ends with the run."""
        return (event for event in self.follow_run(run) if isinstance(event, Point))

    def results(self, run: str | int = -1) -> list[AnalysisResult]:
        """Give the newest result of each analysis, x and y, so far."""
        opened = self.find_run(run)
        found: dict[tuple[str, str, str], AnalysisResult] = {}
        for _, result in self._loop.call(read_all(self.bus, RESULTS, run=opened.run_uid)):
            found[result.analysis, result.x, result.y] = result
        return list(found.values())

    def files(self, run: str | int = -1) -> list[FileReady]:
        """Give the files and catalogue entries of a run that are complete."""
        return present_files(message for message in self._file_messages(run) if isinstance(message, FileReady))

    def growing_file(self, run: str | int = -1, *, wait: float = 0.0) -> str:
        """Give the path of the file in which a run can be read while it goes on, by h5py with `swmr=True`.

        It comes some second after the run began, for which so many seconds are waited, and goes away at its end, or
        when it cannot be written any more. Raises RefusedError if there was none, or the run's own file is complete.
        """
        deadline = time.monotonic() + wait
        while True:
            try:
                return self._growing_file(run)
            except RefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _growing_file(self, run: str | int) -> str:
        growing: dict[str, str] = {}
        for message in self._file_messages(run):
            if isinstance(message, FileGrowing):
                growing[message.writer] = message.path
            else:
                growing.pop(message.writer, None)
        if not growing:
            raise RefusedError(f"no file of run {run!r} is growing; `files()` has those that are complete", "no_file")
        return next(iter(growing.values()))

    def _file_messages(self, run: str | int) -> list[FileGrowing | FileReady]:
        uid = self.find_run(run).run_uid
        return [message for _, message in self._loop.call(read_all(self.bus, FILES)) if message.run_uid == uid]

    def runs(self) -> list[RunOpened]:
        """Give the runs that are known on Redis, newest first."""
        entries = self._loop.call(read_all(self.bus, RUNS))
        return [message for _, message in reversed(entries) if isinstance(message, RunOpened)]

    def find_run(self, run: str | int) -> RunOpened:
        """Find a run by uid, the beginning of it, scan number (the newest of that number), or -1 for the newest."""
        runs = self.runs()
        if isinstance(run, int):
            found = runs[-1 - run : -run or None] if run < 0 else [each for each in runs if each.scan_id == run]
        else:
            found = [each for each in runs if each.run_uid.startswith(run)]
        if not found:
            raise RefusedError(
                f"no run {run!r} on Redis, which knows {len(runs)}: older ones are in the catalogue (`bl.data`)",
                "unknown_run",
            )
        return found[0]

    @property
    def data(self) -> Runs:
        """The stored runs: `bl.data[-1]`, `bl.data[12]`, `bl.data.search(sample="CuO")`."""
        if self._runs is None or self._runs.address is None or self._runs.address != find_catalog(self.settings):
            self._close_runs()
            self._runs = Runs.open(self.settings)
        return self._runs

    def _close_runs(self) -> None:
        if self._runs is not None:
            self._runs.close()
            self._runs = None

    def __repr__(self) -> str:
        doors = ".run .queue .dev .device_file .plans .status .history .data .tasks .console"
        return f"<beamline {self.settings.beamline!r}; {doors}>"
