"""Two benches with the very same devices: in this process, and in a device server."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.run_engine import RunEngineResult
from bluesky.utils import RunEngineInterrupted
from ophyd_async.core import Device as AsyncDevice

from bec_bluesky.accelerations import accelerate, withdrawn
from bec_bluesky.proxy import DeviceLink, prepare_engine
from bec_bluesky.settings import Settings
from tests.engines import running_engine
from tests.proxy import conformance_devices
from tests.proxy.canonical import Canonical

DEADLINE = 30.0


@dataclass
class Server:
    """A device server process that can be killed and started again."""

    settings: Settings
    files: Path
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def start(self) -> None:
        profile = self.files / "profile"
        (profile / "profile_collection").mkdir(parents=True, exist_ok=True)
        (profile / "profile_collection" / "devices.yaml").write_text(conformance_devices.device_file(self.files))
        settings = self.settings.with_(profile=profile)
        root = Path(__file__).parents[2]
        environment = os.environ | settings.environment() | {"PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "bec_bluesky.device_server"]
        self.log = self.files / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def wait_until_heard(self, link: DeviceLink) -> None:
        wait_for(lambda: is_alive(link) or self.has_ended, lambda: f"{link.devices}; {self.log.read_text()}")
        assert is_alive(link), self.log.read_text()

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self, *, kill: bool = False) -> None:
        if self.process is not None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(20.0)
            self.process = None


def wait_for(condition: Callable[[], Any], what: Callable[[], str], timeout: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what()}: not within {timeout:g} s"
        threading.Event().wait(0.01)


def is_alive(link: DeviceLink) -> bool:
    """Whether every device is announced and its server heard of."""
    names = set(conformance_devices.TABLE)
    return names <= set(link.devices) and all(link.server(link.devices[n].info.server).epoch for n in names)


@contextlib.contextmanager
def linked(RE: RunEngine, settings: Settings) -> Iterator[DeviceLink]:
    """A link in a RunEngine's loop."""

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, RE.loop).result(DEADLINE)

    link = run(DeviceLink.connect(settings.redis_url or "", settings.beamline))
    try:
        accelerate(RE)
        prepare_engine(RE, link)
        yield link
    finally:
        run(link.close())


@dataclass
class Outcome:
    """What a plan did, canonical."""

    documents: list[Any]
    value: Any
    exit_status: str
    reason: str
    errors: list[str]
    """Classes of the exception and its causes."""
    texts: list[str]
    """What they say."""


@dataclass
class Bench:
    """A RunEngine with devices."""

    RE: RunEngine
    devices: Mapping[str, Any]
    files: Path
    is_stock: bool = False
    """Whether its RunEngine is to be as bluesky made it, though another one in this process is accelerated."""

    def run(self, plan: Any, *, when_paused: str = "resume", then: Callable[[], None] = lambda: None) -> Outcome:
        """Run a plan; when it pauses, `resume`, `stop`, `abort` or `halt` it, after having called `then`."""
        documents: list[tuple[str, Any]] = []
        token = self.RE.subscribe(lambda name, document: documents.append((name, document)))
        error: BaseException | None = None
        result: Any = None
        try:
            with withdrawn() if self.is_stock else contextlib.nullcontext():
                try:
                    result = self.RE(plan)
                except RunEngineInterrupted:
                    then()
                    if self.RE.state == "paused":  # else it was ended from outside, by the test
                        result = getattr(self.RE, when_paused)()
            assert result is None or isinstance(result, RunEngineResult)
        except Exception as caught:  # noqa: BLE001  # compared with the other bench's
            error = caught
            if self.RE.state == "paused":  # a device failed to resume
                self.RE.abort()
        finally:
            self.RE.unsubscribe(token)
        causes = list(_chain(error))
        canonical = Canonical(self.files)
        return Outcome(
            documents=[canonical(document) for document in documents],
            value="<none>"
            if result is None or result.plan_result is self.RE.NO_PLAN_RETURN
            else canonical(result.plan_result),
            exit_status=result.exit_status if result is not None else self.RE._exit_status,
            reason=canonical(self.RE._reason),
            errors=[type(each).__name__ for each in causes],
            texts=[canonical(str(each)) for each in causes],
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def running_server(settings: Settings, files: Path) -> Iterator[Server]:
    """A device server of a beamline of its own."""
    server = Server(settings.with_(beamline=f"b{abs(hash(str(files))) % 10**9}", data_dir=files / "data"), files)
    server.start()
    try:
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def remote_bench(server: Server) -> Iterator[Bench]:
    """A RunEngine with the proxies of a server's devices."""
    with running_engine() as RE, linked(RE, server.settings) as link:
        server.wait_until_heard(link)
        yield Bench(RE, link.devices, server.files)


@pytest.fixture(scope="module")
def server(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running device server."""
    with running_server(redis_settings, tmp_path_factory.mktemp("remote")) as server:
        yield server


@pytest.fixture(scope="module")
def remote(server: Server) -> Iterator[Bench]:
    """Proxies of devices in a device server."""
    with remote_bench(server) as bench:
        yield bench


@contextlib.contextmanager
def local_bench(files: Path) -> Iterator[Bench]:
    """A stock RunEngine with the same devices in this process."""
    with running_engine() as RE:

        async def build() -> dict[str, Any]:
            devices = conformance_devices.build(files)
            for device in devices.values():
                if isinstance(device, AsyncDevice):
                    await device.connect()
            return devices

        yield Bench(RE, asyncio.run_coroutine_threadsafe(build(), RE.loop).result(DEADLINE), files, is_stock=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The same devices in this process."""
    with local_bench(tmp_path_factory.mktemp("local")) as bench:
        yield bench
