"""Fixtures that every test may use, and the rule that a test leaves nothing behind."""

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss

from bec_bluesky import plugins
from bec_bluesky.bus import Bus
from bec_bluesky.settings import Settings, load
from bec_bluesky.testing import private_system
from tests.engines import running_engine

_TICKS = os.sysconf("SC_CLK_TCK")
"""A second, as the kernel counts the time of processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole systems, which take longest: where tests run side by side, none is left alone at the end."""
    items.sort(key=lambda item: "system" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> None:
    """Keep the settings of whoever runs the tests out of them, and mount the profile."""
    np.set_printoptions(threshold=1000, precision=8)  # nexusformat changes them for the whole process
    for name in list(os.environ):
        if name.startswith("BEC_BLUESKY_"):
            del os.environ[name]
    # the ports are fixed ones: only tests of that interface open it, on ports of their own
    os.environ |= {f"BEC_BLUESKY_QSERVER_{what}_ADDRESS": "" for what in ("CONTROL", "INFO")}
    os.environ["BEC_BLUESKY_QSERVER_HTTP_PORT"] = "-1"
    plugins.mount(load())


@pytest.fixture(scope="session")
def redis_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One real Redis for the session; tests that need an empty one take `settings`."""
    with private_system(tmp_path_factory.mktemp("system")) as settings:
        yield settings


@pytest.fixture
def settings(redis_settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Settings of a beamline of this test's own on the session's Redis, with a data directory of its own."""
    beamline = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    return redis_settings.with_(beamline=beamline, data_dir=tmp_path / "data")


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    """A connected bus of this test's own beamline."""
    async with Bus(settings.redis_url or "", settings.beamline) as bus:
        yield bus


@pytest.fixture
def run_engine() -> Iterator[RunEngine]:
    """A bare RunEngine with a loop of its own, which ends with the test."""
    with running_engine(call_returns_result=False) as engine:
        yield engine


@pytest.fixture
def motor() -> SynAxis:
    return SynAxis(name="motor")


@pytest.fixture
def gauss(motor: SynAxis) -> SynGauss:
    """A peak at 0.7 of height 100 and sigma 0.8."""
    return SynGauss("gauss", motor, "motor", center=0.7, Imax=100, sigma=0.8)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads or child processes behind."""
    threads_before = set(threading.enumerate())
    began = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)
    yield
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        threads = [t for t in threading.enumerate() if t not in threads_before and t.is_alive() and not _is_known(t)]
        children = _children_since(began)
        if not threads and not children:
            return
        gc.collect()
        threading.Event().wait(0.02)
    pytest.fail(f"left behind: threads {[t.name for t in threads]}, processes {sorted(children)}")


def _is_known(thread: threading.Thread) -> bool:
    """Threads that libraries keep for the life of the process, by their names."""
    return thread.name.startswith(("asyncio_", "ThreadPoolExecutor", "AnyIO worker", "OpenBLAS", "pymain_stop"))


def _children_since(began: int) -> set[int]:
    """Give the children of this process that were started since then (in ticks since boot).

    The kernel's list of children may leave some out while others end, so it cannot be compared with an earlier one.
    """
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in found if _started(pid) >= began}


def _started(pid: int) -> int:
    """Give when a process was started, in ticks since boot; 0 if it has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


@pytest.fixture(autouse=True)
async def no_stray_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves asyncio tasks of its own behind."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    if left:
        names = [task.get_name() for task in left]
        for task in left:
            task.cancel()
        pytest.fail(f"left behind: tasks {names}")
