"""A real RunEngine with a loop of its own, which ends with the test, and simulated devices."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator, SimBlobDetector


@pytest.fixture
def run_engine() -> Iterator[RunEngine]:
    engine = RunEngine({}, loop=asyncio.new_event_loop(), context_managers=[])
    yield engine
    if engine.state != "idle":
        engine.halt()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(5)
    engine.loop.close()


@pytest.fixture
def motor() -> SynAxis:
    return SynAxis(name="motor")


@pytest.fixture
def gauss(motor: SynAxis) -> SynGauss:
    """A peak at 0.7 of height 100 and sigma 0.8."""
    return SynGauss("gauss", motor, "motor", center=0.7, Imax=100, sigma=0.8)


@pytest.fixture
def blob(run_engine: RunEngine, tmp_path: Path) -> SimBlobDetector:
    """An ophyd-async detector that writes frames to HDF5 files, connected in the RunEngine's loop."""
    blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), tmp_path), PatternGenerator(), name="blob")
    run_engine(ensure_connected(blob))
    return blob


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, five seconds at most."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < deadline, "it did not happen"
            threading.Event().wait(0.005)

    return wait
