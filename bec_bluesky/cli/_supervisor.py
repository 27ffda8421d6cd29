"""Starts the whole system on one machine, keeps it running, and stops it in order."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bec_bluesky import embedded, log, plugins
from bec_bluesky.bus import Bus
from bec_bluesky.channels import SERVICES
from bec_bluesky.cli._checks import check
from bec_bluesky.cli._keeper import Keeper, StartFailedError
from bec_bluesky.cli._lock import AlreadyUpError, SystemLock
from bec_bluesky.cli._parts import environment, parts
from bec_bluesky.cli._processes import identify
from bec_bluesky.embedded import Server
from bec_bluesky.errors import BusError, NoRedisError
from bec_bluesky.messages.common import Heartbeat
from bec_bluesky.settings import Settings

__all__ = ["Report", "Supervisor", "supervise"]

_log = log.logger(__name__)
_LOOK = 0.1
"""Seconds between two looks at the heartbeats while starting; ten times that afterwards."""
_LATE = 10.0
"""Seconds after which a part that is not ready is called late."""

Report = Callable[[dict[str, Any]], None]
"""Takes {"say": text}, {"essential": true} once a run can start, {"ready": true} once everything runs."""


class _Stopped(Exception):
    """Ends the task group."""


class Supervisor:
    """The parts of one system and the Redis between them."""

    def __init__(self, settings: Settings, lock: SystemLock, report: Report, *, timeout: float = 120.0) -> None:
        self._settings = settings
        self._profile = plugins.read_profile(settings)
        self._parts = parts(settings, self._profile)
        self._lock = lock
        self._report = report
        self._timeout = timeout
        self._keepers: list[Keeper] = []
        self._services: list[str] = []
        self._server: Server | None = None
        self._is_alone = False
        """Whether nobody else uses this Redis for this beamline."""
        self._tasks: asyncio.TaskGroup | None = None
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Ask for an ordered stop; asked again, what does not end is killed."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    @property
    def is_stopping(self) -> bool:
        return self._stop_asked.is_set()

    def say(self, text: str) -> None:
        """Tell whoever started the system."""
        self._report({"say": text})

    async def run(self) -> None:
        """Live until `stop()`; raises StartFailedError (nothing is left running then) if a part does not start."""
        self._server = await asyncio.to_thread(embedded.find_or_start, self._settings)
        try:
            async with Bus(self._server.url, self._settings.beamline) as bus:
                await self._refuse_strangers(bus)
                self._is_alone = True
                self.say(f"Redis {self._server.version} at {bus.address}")
                try:
                    async with asyncio.TaskGroup() as self._tasks:
                        self._spawn(self._live(bus), "life")
                        await self._stop_asked.wait()
                        raise _Stopped
                except* _Stopped:
                    pass
                finally:
                    await self._stop_parts()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            if self._settings.redis_url is None and self._is_alone:
                await asyncio.to_thread(embedded.stop, self._settings)
            self.say("everything is stopped")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        assert self._tasks is not None
        self._tasks.create_task(coroutine, name=f"supervisor: {name}")

    async def _refuse_strangers(self, bus: Bus) -> None:
        """Refuse to be a second system of the same beamline on one Redis; heartbeats of the dead go within seconds."""
        deadline = time.monotonic() + 1.5 * (SERVICES.lifetime or 0.0)
        while beats := [beat for beat in (await bus.find(SERVICES, "service")).values() if _may_live(beat)]:
            if time.monotonic() > deadline:
                names = ", ".join(f"{beat.service} (pid {beat.pid} on {beat.host})" for beat in beats)
                raise AlreadyUpError(
                    f"beamline {self._settings.beamline!r} already has services on this Redis: {names}; stop them "
                    "(`bec-bluesky down` where they run), or give another name by --beamline"
                )
            await asyncio.sleep(_LOOK)

    async def _live(self, bus: Bus) -> None:
        began = time.monotonic()
        variables = environment(self._settings, self._profile)
        self._services = [part.name for part in self._parts if part.has_heartbeat]
        make = [Keeper(part, variables, self._settings.log_dir, self.say) for part in self._parts]
        await self._bring_up([keeper for keeper in make if keeper.part.is_essential], bus, began)
        self._report({"essential": True})
        await self._bring_up([keeper for keeper in make if not keeper.part.is_essential], bus, began)
        self.say(f"beamline {self._settings.beamline!r} is up after {time.monotonic() - began:.1f} s")
        self._report({"ready": True})
        _log.info("everything runs")
        while True:
            await asyncio.sleep(10 * _LOOK)
            try:
                await bus.find(SERVICES, "service")
            except BusError as error:
                await self._restore_redis(error)

    async def _restore_redis(self, error: BusError) -> None:
        """Start the private Redis again if it is gone; one that was given by URL is not ours to start."""
        if self._settings.redis_url is not None:
            return
        try:
            server = await asyncio.to_thread(embedded.find_or_start, self._settings)
        except NoRedisError as reason:
            self.say(f"{error}; it cannot be started again: {reason}")
            return
        if server.started_here:
            _log.error("Redis was gone and is started again: %s", error)
            self.say("Redis was gone: started again, with what it had on disk")

    async def _bring_up(self, keepers: list[Keeper], bus: Bus, began: float) -> None:
        """Start these parts and wait until all are ready; says which is late."""
        for keeper in keepers:
            self._keepers.append(keeper)
            await keeper.start()
            self._record()
            self._spawn(keeper.keep(self._record), keeper.part.name)
        next_complaint = time.monotonic() + _LATE
        while late := await self._not_ready(keepers, bus, began):
            now = time.monotonic()
            if now > next_complaint:
                next_complaint = now + _LATE
                names = ", ".join(f"{keeper.part.name} ({keeper.output})" for keeper in late)
                self.say(f"still waiting after {now - began:.0f} s for {names}")
            if now - began > self._timeout:
                names = ", ".join(keeper.part.name for keeper in late)
                raise StartFailedError(
                    f"{names} not running within {self._timeout:g} s: see {late[0].output} and the .jsonl beside it"
                )
            await asyncio.sleep(_LOOK)

    async def _not_ready(self, keepers: list[Keeper], bus: Bus, began: float) -> list[Keeper]:
        """Give those that have not said `running`; companions have no heartbeat and count as ready at once."""
        beats: dict[str, Heartbeat] = await bus.find(SERVICES, "service")
        running = {beat.pid: beat for beat in beats.values() if beat.state in ("running", "degraded")}
        for keeper in keepers:
            if keeper.is_ready or (keeper.part.has_heartbeat and keeper.pid not in running):
                continue
            if keeper.part.has_heartbeat:
                keeper.is_ready = True
                keeper.step_back()  # not before: somebody waits for the system to be up
                beat = running[keeper.pid or 0]
                note = f": {beat.note}" if beat.note else ""
                self.say(f"{keeper.part.name} {beat.state} after {time.monotonic() - began:.1f} s{note}")
            elif keeper.pid is not None and all(other.is_ready for other in keepers if other.part.has_heartbeat):
                keeper.is_ready = True  # it has lived as long as the services took
        return [keeper for keeper in keepers if not keeper.is_ready]

    def _record(self) -> None:
        ordered = sorted(self._keepers, key=lambda keeper: keeper.part.stop_rank)
        running = {keeper.part.name: keeper.identity for keeper in ordered if keeper.identity is not None}
        self._lock.write(running, self._services)

    async def _stop_parts(self) -> None:
        """Stop in order: what makes documents, what takes them, what serves them, companions."""
        for rank in sorted({keeper.part.stop_rank for keeper in self._keepers}):
            group = [keeper for keeper in self._keepers if keeper.part.stop_rank == rank]
            self.say(f"stopping {', '.join(keeper.part.name for keeper in group)}")
            await asyncio.gather(*(keeper.stop(hurry=self._hurry) for keeper in group))
        self._keepers.clear()
        self._record()


def _may_live(beat: Heartbeat) -> bool:
    """Tell whether the service behind a heartbeat may be alive, as far as can be seen from here."""
    return beat.host != socket.gethostname() or identify(beat.pid).is_alive


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # any kind
    return error  # pyright: ignore[reportUnknownVariableType]  # narrowed to an unknown group above


def supervise(settings: Settings, report: Report, *, timeout: float = 120.0, leash: bool = False) -> None:
    """Run the system until SIGTERM, SIGINT or SIGHUP; with `leash`, also until stdin ends without the word `keep`.

    Raises a BecBlueskyError, with nothing left running, if something is wrong before or while it starts.
    """
    with SystemLock(settings) as lock:
        check(settings)
        log.set_up("supervisor", level=settings.log_level, directory=settings.log_dir, terminal=False)
        asyncio.run(_supervise(Supervisor(settings, lock, report, timeout=timeout), leash=leash))


async def _supervise(supervisor: Supervisor, *, leash: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    if leash:
        loop.add_reader(sys.stdin.fileno(), _pulled, supervisor, loop)
    try:
        await supervisor.run()
    finally:
        if leash:
            loop.remove_reader(sys.stdin.fileno())


def _pulled(supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
    """Hear the end of the process that holds the leash, or that it lets go."""
    word = sys.stdin.readline().strip()
    loop.remove_reader(sys.stdin.fileno())
    if word != "keep" and not supervisor.is_stopping:
        supervisor.stop()
