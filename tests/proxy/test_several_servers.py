"""Two device servers: losing one costs its devices only, plans may use both, a panic stop reaches all."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.utils import FailedStatus

from bec_bluesky.errors import DeviceServerLost
from bec_bluesky.proxy import DeviceLink, StopReport
from bec_bluesky.settings import Settings
from tests.engines import running_engine
from tests.proxy.conftest import linked, wait_for

DEVICES = """
version: 1
devices:
  motor: {class: "ophyd.sim:SynAxis"}
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: motor}, motor_field: motor, center: 0, Imax: 10}}
  slow: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}, set: {velocity: 1.0}}
  cold: {class: "ophyd.sim:SynAxis", server: cryo}
  level:
    class: "ophyd.sim:SynGauss"
    kwargs: {motor: {$ref: cold}, motor_field: cold, center: 0, Imax: 5}
    server: cryo
  heater: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}, set: {velocity: 1.0}, server: cryo}
"""
ROOT = Path(__file__).parents[2]


@dataclass
class Servers:
    """Both servers as processes."""

    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, server: str) -> None:
        command = [sys.executable, "-m", "bec_bluesky.device_server", "--server", server]
        environment = os.environ | self.settings.environment() | {"PYTHONPATH": str(ROOT)}
        self.processes[server] = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self, server: str) -> None:
        process = self.processes.pop(server)
        process.kill()
        process.wait(20.0)

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait(20.0)


@dataclass
class Bench:
    RE: Any
    link: DeviceLink
    servers: Servers

    def wait_for_all(self) -> None:
        def is_there() -> bool:
            devices = self.link.devices
            names = {"motor", "det", "slow", "cold", "level", "heater"}
            return names <= set(devices) and all(
                devices[name].info.state == "connected" and self.link.server(devices[name].info.server).epoch
                for name in names
            )

        wait_for(is_there, lambda: str({name: device.info.state for name, device in self.link.devices.items()}))

    def run(self, plan: Any) -> list[tuple[str, Any]]:
        documents: list[tuple[str, Any]] = []
        self.RE(plan, lambda name, document: documents.append((name, document)))
        return documents

    def stop_all(self) -> StopReport:
        return asyncio.run(self.link.stop_all())


@pytest.fixture
def bench(redis_settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    collection = tmp_path / "profile" / "profile_collection"
    collection.mkdir(parents=True)
    (collection / "devices.yaml").write_text(DEVICES)
    settings = redis_settings.with_(
        beamline=f"s{abs(hash(str(tmp_path))) % 10**9}", data_dir=tmp_path / "data", profile=tmp_path / "profile"
    )
    servers = Servers(settings)
    try:
        for server in ("main", "cryo"):
            servers.start(server)
        with running_engine() as RE, linked(RE, settings) as link:
            bench = Bench(RE, link, servers)
            bench.wait_for_all()
            yield bench
    finally:
        servers.end()


def scan_both(devices: Any) -> Any:
    return bp.scan([devices["det"], devices["level"]], devices["motor"], -1, 1, devices["cold"], -2, 2, 5)


def test_losing_one_server_costs_its_devices_only_and_a_restart_brings_them_back(bench: Bench) -> None:
    devices, servers = bench.link.devices, bench.servers
    proxies = {name: devices[name] for name in devices}
    for event in (document for name, document in bench.run(scan_both(devices)) if name == "event"):
        data = event["data"]  # readings are of this point, also those that came ahead of time
        assert data["cold"] == 2 * data["motor"]
        assert data["det"] == pytest.approx(10 * np.exp(-(data["motor"] ** 2) / 2))
        assert data["level"] == pytest.approx(5 * np.exp(-(data["cold"] ** 2) / 2))

    def kill_midway(detectors: Any, motor: Any, step: float) -> Any:
        if step == 2:
            servers.kill("cryo")
        yield from bps.one_1d_step(detectors, motor, step)

    documents = bench.run(bp.scan([devices["det"]], devices["motor"], 0, 4, 5, per_step=kill_midway))
    assert documents[-1][1]["exit_status"] == "success"
    assert documents[-1][1]["num_events"] == {"primary": 5}

    with pytest.raises(FailedStatus) as caught:
        bench.run(scan_both(devices))
    assert isinstance(caught.value.__cause__, DeviceServerLost)
    assert "'cryo'" in str(caught.value.__cause__)
    wait_for(lambda: devices["cold"].info.state == "disconnected", lambda: devices["cold"].info.state)
    assert devices["motor"].info.state == "connected"
    assert bench.link.is_ready  # a server that is lost is not waited for
    report = bench.stop_all()
    assert report.servers == ("main",)
    assert report.silent == {"cryo": "it is not running: nobody received the stop"}

    servers.start("cryo")
    bench.wait_for_all()
    assert {name: devices[name] for name in devices} == proxies
    assert len([name for name, _ in bench.run(scan_both(devices)) if name == "event"]) == 5


def test_a_server_killed_in_a_scan_that_uses_both_closes_the_run_with_the_reason(bench: Bench) -> None:
    devices = bench.link.devices
    documents: list[tuple[str, Any]] = []

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.abs_set(devices["slow"], 50.0, group="move")
        yield from bps.abs_set(devices["heater"], 50.0, group="move")
        yield from bps.sleep(0.2)
        bench.servers.kill("cryo")
        yield from bps.wait("move")

    with pytest.raises(FailedStatus) as caught:
        bench.RE(plan(), lambda name, document: documents.append((name, document)))
    assert isinstance(caught.value.__cause__, DeviceServerLost)
    assert documents[-1][0] == "stop" and documents[-1][1]["exit_status"] == "fail"
    assert "heater.set(50.0): DeviceServerLost: device server 'cryo'" in documents[-1][1]["reason"]
    wait_for(lambda: not _is_moving(bench, "slow"), lambda: "the motor of the other server moves on")


def test_a_panic_stop_reaches_both_servers_and_names_one_that_hangs(bench: Bench) -> None:
    devices = bench.link.devices
    for moving in (("slow", "heater"), ("slow",)):
        started = threading.Event()
        failure: list[BaseException] = []

        def plan(moving: Any = moving, started: threading.Event = started) -> Any:
            for name in moving:
                yield from bps.abs_set(devices[name], 50.0, group="move")
            yield from bps.sleep(0.2)
            started.set()
            yield from bps.wait("move")

        def run(plan: Any = plan, failure: list[BaseException] = failure) -> None:
            try:
                bench.RE(plan())
            except FailedStatus as error:
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(20.0)
        if moving == ("slow",):
            bench.servers.processes["cryo"].send_signal(signal.SIGSTOP)
        report = bench.stop_all()
        thread.join(20.0)
        assert "was stopped" in str(failure[0].__cause__)
        for name in moving:
            assert not _is_moving(bench, name)
    assert report.servers == ("main",)
    assert list(report.silent) == ["cryo"] and "it may hang" in report.silent["cryo"]
    assert not report.is_complete and "device server 'cryo'" in str(report)


def _is_moving(bench: Bench, name: str) -> bool:
    before = bench.link.ask(name, "get")
    threading.Event().wait(0.15)
    return bench.link.ask(name, "get") != before
