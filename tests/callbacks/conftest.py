"""A detector that writes frames, and waiting."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bluesky import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator, SimBlobDetector


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
