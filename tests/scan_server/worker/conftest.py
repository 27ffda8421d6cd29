"""A worker that is ready, shared by the tests of a module, and one of a test's own for those that end it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bec_bluesky.bus import Bus
from bec_bluesky.channels import EPOCH, RUNS, SCAN_ID
from bec_bluesky.messages.worker import Ping, Pong, WorkerReady
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import Worker, make_profile, running_worker


@pytest.fixture(scope="module")
def shared_settings(
    redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Settings:
    """Settings of a beamline of this module's own."""
    directory = tmp_path_factory.mktemp("shared")
    beamline = f"m{abs(hash(request.node.nodeid)) % 10**12}"
    return redis_settings.with_(
        beamline=beamline, data_dir=directory / "data", profile=make_profile(directory / "profile")
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_worker(shared_settings: Settings) -> AsyncIterator[Worker]:
    async with running_worker(shared_settings) as worker:
        await worker.wait(WorkerReady)
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def worker(shared_worker: Worker) -> AsyncIterator[Worker]:
    """The module's worker, as if it had just become ready."""
    await shared_worker.forget()
    yield shared_worker
    number = id(asyncio.current_task())
    await shared_worker.send(Ping(number=number))  # it must have outlived the test
    await shared_worker.wait(Pong, lambda pong: pong.number == number)


@pytest_asyncio.fixture(loop_scope="module")
async def shared_bus(shared_settings: Settings) -> AsyncIterator[Bus]:
    """A bus of the module's beamline, without the runs of earlier tests."""
    async with Bus(shared_settings.redis_url or "", shared_settings.beamline) as bus:
        for channel in (RUNS, EPOCH, SCAN_ID):
            await bus.delete(channel)
        yield bus


@pytest.fixture
def own_settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.with_(profile=make_profile(tmp_path / "profile"))


@pytest_asyncio.fixture(loop_scope="module")
async def own_worker(own_settings: Settings) -> AsyncIterator[Worker]:
    """A worker that may be ended."""
    async with running_worker(own_settings) as worker:
        await worker.wait(WorkerReady)
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def own_bus(own_settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(own_settings.redis_url or "", own_settings.beamline) as bus:
        yield bus
