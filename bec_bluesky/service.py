"""A service: a name, a heartbeat, one task group, ordered shutdown."""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from bec_bluesky import __version__, embedded, log
from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, SERVICES
from bec_bluesky.errors import BecBlueskyError, BusError
from bec_bluesky.messages.common import Alarm, Heartbeat
from bec_bluesky.settings import Settings, load

__all__ = ["Service", "main", "main_of"]

_log = log.logger(__name__)
_PERIOD = 1.0
"""Seconds between heartbeats; their key lives three times as long."""


class _Stopped(Exception):
    """Ends the task group."""


class Service:
    """Base of all services; `run()` is its whole life.

    Subclasses give `start()` (connect, spawn what serves), and `finish()` (let go in order; it has `grace` seconds). A
    spawned task that fails ends the service: a service without its parts must not look alive.
    """

    name: ClassVar[str]
    grace: ClassVar[float] = 10.0
    """Seconds that `finish()` may take."""

    def __init__(self, settings: Settings, *, name: str | None = None) -> None:
        self.settings = settings
        self.service_name = name or self.name
        self.incarnation = uuid.uuid4().hex
        self.facts: dict[str, Any] = {}
        """Published with the heartbeat."""
        self.note = ""
        """One sentence for the operator; not empty makes the state `degraded`."""
        self._bus: Bus | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._stop_asked = asyncio.Event()
        self._state = "starting"
        self._started = time.time()

    @property
    def bus(self) -> Bus:
        """The connected bus."""
        if self._bus is None:
            raise BusError(f"{self.service_name} is not running")
        return self._bus

    async def start(self) -> None:
        """Connect and spawn what serves; the service is `running` when this returns."""

    async def finish(self) -> None:
        """Let go in order: stop taking work, flush, close. Spawned tasks are cancelled afterwards.

        Also called when `start()` or a task failed: what is not there yet must not matter.
        """

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine as this service's own task."""
        if self._tasks is None:
            coroutine.close()
            raise RuntimeError(f"{self.service_name} is not running")
        return self._tasks.create_task(coroutine, name=f"{self.service_name}: {name}")

    def stop(self) -> None:
        """Ask for an ordered shutdown; from the service's own loop."""
        self._stop_asked.set()

    async def alarm(
        self, text: str, *, level: str = "warning", run: str | None = None, device: str | None = None
    ) -> None:
        """Tell people; also into the log."""
        _log.log({"info": 20, "warning": 30, "error": 40}[level], text, extra={"run": run, "device": device})
        message = Alarm(time=time.time(), service=self.service_name, text=text, level=level, run=run, device=device)
        with contextlib.suppress(BusError):  # the log has it
            await self.bus.append(ALARMS, message)

    async def run(self) -> None:
        """Live until `stop()` is called or a task fails."""
        server = embedded.find(self.settings)
        if server is None:
            raise BusError(
                "no Redis of this system is running: start it with `bec-bluesky up`, or set BEC_BLUESKY_REDIS_URL"
            )
        async with Bus(server.url, self.settings.beamline) as self._bus:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    self.spawn(self._beat(), "heartbeat")
                    try:
                        await self.start()
                        self._state = "running"
                        await self._say(running=True)
                        _log.info("%s is running", self.service_name)
                        await self._stop_asked.wait()
                    finally:
                        self._state = "stopping"
                        _log.info("%s stops", self.service_name)
                        await self._finish_in_time()
                    raise _Stopped
            except* _Stopped:
                pass
            finally:
                self._tasks = None
                with contextlib.suppress(BusError):
                    await self._bus.delete(SERVICES, service=self.service_name)

    async def _finish_in_time(self) -> None:
        try:
            async with asyncio.timeout(self.grace):
                await self.finish()
        except TimeoutError:
            _log.warning("%s did not finish within %g s: its tasks are cancelled", self.service_name, self.grace)

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(BusError):
                await self._say(running=self._state == "running")
            await asyncio.sleep(_PERIOD)

    async def _say(self, *, running: bool) -> None:
        state = "degraded" if running and self.note else self._state
        message = Heartbeat(
            service=self.service_name,
            incarnation=self.incarnation,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            time=time.time(),
            state=state,
            note=self.note,
            facts=self.facts,
        )
        await self.bus.put(SERVICES, message, service=self.service_name)


async def _run(service: Service) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    await service.run()


def main(make: Callable[[Settings], Service], *, name: str, terminal: bool = False) -> int:
    """Run one service as a process; give its exit code. What went wrong is one sentence on stderr."""
    try:
        settings = load()
        log.set_up(name, level=settings.log_level, directory=settings.log_dir, terminal=terminal)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(make(settings)))
    except BaseExceptionGroup as group:
        return _complain(name, group)
    except (BecBlueskyError, OSError) as error:
        return _complain(name, error)
    return 0


def main_of(service_class: type[Service], arguments: list[str] | None = None) -> int:
    """Run a service that needs no options of its own (`python -m bec_bluesky.scan_server` and the like)."""
    parser = argparse.ArgumentParser(prog=service_class.name, description=service_class.__doc__)
    parser.add_argument("--terminal", action="store_true", help="log to the terminal too")
    options = parser.parse_args(arguments)
    return main(service_class, name=service_class.name, terminal=options.terminal)


def _complain(name: str, error: BaseException) -> int:
    """Say in one sentence why the process ends; the traceback is in the log file."""
    cause = _first(error)
    _log.error("%s ended: %s", name, cause, exc_info=error)
    sys.stderr.write(f"{name}: {cause}\n")
    return 1


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # any kind
    return error  # pyright: ignore[reportUnknownVariableType]  # narrowed to an unknown group above


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
