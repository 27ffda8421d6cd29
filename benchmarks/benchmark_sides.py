"""The two sides that are compared, each in a process of its own that runs cells when it is asked to.

At home: the stock RunEngine in its default loop with the devices in the same process. Remote: what the scan server's
worker has, with the devices in a device server and the documents published to Redis. Both keep the documents in a list.
"""

import asyncio
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import bluesky.plans as bp
from bluesky import RunEngine
from ophyd_async.core import Device as AsyncDevice

from bec_bluesky import __version__
from bec_bluesky.accelerations import accelerate
from bec_bluesky.bus import Bus
from bec_bluesky.proxy import DeviceLink, prepare_engine
from bec_bluesky.scan_server.worker._control_thread import ControlThread
from bec_bluesky.scan_server.worker._engine import Engine
from bec_bluesky.scan_server.worker._progress import ProgressMeter
from bec_bluesky.scan_server.worker._publisher import DocumentPublisher
from bec_bluesky.scan_server.worker._scan_numbers import ScanNumbers
from bec_bluesky.settings import Settings
from benchmarks import benchmark_devices
from tests.proxy.canonical import Canonical

__all__ = ["Cell", "Chain", "Devices", "Home", "Measured", "Side"]

Devices = Mapping[str, Any]
_DEADLINE = 60.0


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    plan: str
    layer: str
    devices: int

    def make(self, devices: Devices, points: int) -> Any:
        """Give the plan."""
        short = {"ophyd": "o", "ophyd-async": "a"}[self.layer]
        detectors = [devices[f"{short}_det{index}"] for index in range(self.devices)]
        if self.plan == "count":
            return bp.count(detectors, points)
        return bp.scan(detectors, devices[f"{short}_motor"], 0, 1, points)


@dataclass(frozen=True)
class Measured:
    """What one run took."""

    seconds: float
    cpu: float
    """Seconds of this process."""
    round_trips: float
    """Of each point after the first one, which also has to learn what is described and read."""
    documents: list[Any]
    """In canonical form."""


class Home:
    """The stock RunEngine with devices in process."""

    def __init__(self, number: int) -> None:
        self._documents: list[Any] = []
        self._engine = RunEngine(context_managers=[])
        self._engine.md["versions"]["bec_bluesky"] = __version__
        self._engine.subscribe(lambda name, document: self._documents.append((name, document)))
        self._devices = _in_loop(self._engine, _connected(number))

    def run(self, cell: Cell, points: int) -> Measured:
        """Run a plan."""
        self._documents.clear()
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        self._engine(cell.make(self._devices, points))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return Measured(seconds, cpu, 0, _canonical(self._documents))

    def close(self) -> None:
        """Nothing has to be let go."""


class Chain:
    """The worker's RunEngine with proxies; a run is over when its documents are on Redis."""

    def __init__(
        self, settings: Settings, number: int, read_ahead: bool, accelerations: Collection[str] | None
    ) -> None:
        self._documents: list[Any] = []
        self._control = ControlThread()
        self._control.__enter__()
        self._engine = Engine({}, self._take_scan_id)
        accelerate(self._engine, only=accelerations)
        self._control.call(self._open(settings, read_ahead))
        progress = ProgressMeter()
        for callback in (self._publisher, progress, lambda *document: self._documents.append(document)):
            self._engine.subscribe(callback)
        self._at_events: list[int] = []
        self._engine.subscribe(lambda *_: self._at_events.append(self._link.operations.round_trips), "event")
        self._engine.set_hooks(waiting=progress.wait_for, state=lambda *_: None, suspended=lambda _: None)
        self._wait_for_devices(set(benchmark_devices.names(number)))

    async def _open(self, settings: Settings, read_ahead: bool) -> None:
        beamline = settings.beamline
        self._bus = await Bus(settings.redis_url or "", beamline).__aenter__()
        self._numbers = ScanNumbers(self._bus, settings.scan_number)
        self._publisher = DocumentPublisher(
            self._bus.address,
            beamline,
            on_opened=lambda _: None,
            on_closed=lambda *_: None,
            on_refused=lambda error: sys.stderr.write(f"documents are refused: {error}\n"),
        )
        self._control.spawn(self._publisher.run(), "publish documents")
        self._link = await DeviceLink.connect(self._bus.address, beamline, loop=self._engine.loop)
        prepare_engine(self._engine, self._link, read_ahead=read_ahead)

    async def _take_scan_id(self, _: dict[str, Any]) -> int:
        return await asyncio.wrap_future(self._control.start(self._numbers.take()))

    def _wait_for_devices(self, names: set[str]) -> None:
        deadline = time.monotonic() + _DEADLINE
        while not (names <= set(self._link.devices) and self._link.is_ready):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the device server has only {', '.join(self._link.devices)}")
            time.sleep(0.05)

    def run(self, cell: Cell, points: int) -> Measured:
        """Run a plan."""
        self._documents.clear()
        gc.collect()
        self._at_events.clear()
        began, cpu = time.perf_counter(), time.process_time()
        self._engine(cell.make(self._link.devices, points))
        self._control.call(self._publisher.drained())
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        round_trips = (self._at_events[-1] - self._at_events[0]) / (points - 1)
        return Measured(seconds, cpu, round_trips, _canonical(self._documents))

    def close(self) -> None:
        """Let go of Redis."""
        self._control.call(self._link.close())
        self._control.call(self._bus.__aexit__(None, None, None))
        self._control.__exit__()
        self._engine.close()


class Side:
    """One of the two in a process of its own."""

    def __init__(self, make: Callable[..., Home | Chain], *args: Any) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._connection, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(theirs, make, args))

    def __enter__(self) -> Self:
        self._process.start()
        self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.send(None)
        self._process.join(10.0)
        self._process.kill()

    def run(self, cell: Cell, points: int) -> Measured:
        """Run a plan there."""
        self._connection.send((cell, points))
        return self._receive()

    def _receive(self) -> Any:
        if not self._connection.poll(_DEADLINE):
            raise TimeoutError("a side of the benchmark does not answer")
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, make: Callable[..., Home | Chain], args: tuple[Any, ...]) -> None:
    try:
        side = make(*args)
        connection.send("ready")
        while (asked := connection.recv()) is not None:
            connection.send(side.run(*asked))
        side.close()
    except Exception as error:
        connection.send(RuntimeError(f"{make.__name__}: {type(error).__name__}: {error}"))
        raise


async def _connected(number: int) -> Devices:
    devices = benchmark_devices.build(number)
    for device in devices.values():
        if isinstance(device, AsyncDevice):
            await device.connect()
    return devices


def _in_loop(engine: RunEngine, coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, engine.loop).result(_DEADLINE)


def _canonical(documents: list[Any]) -> list[Any]:
    canonical = Canonical(Path("/nowhere"))
    return [canonical(document) for document in documents]
