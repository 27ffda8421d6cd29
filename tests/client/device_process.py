"""A device server as a process of its own, which can be killed and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bec_bluesky.client import Client
from bec_bluesky.settings import Settings

DEVICES = """
version: 1
devices:
  samx: {class: "ophyd.sim:SynAxis", labels: [motors], limits: {low: -20, high: 20}}
  theta:
    class: ophyd_async.sim:SimMotor
    kwargs: {instant: false, units: deg}
    set: {velocity: 20, acceleration_time: 0.1}
    labels: [motors, sample]
    limits: {low: -180, high: 180}
  slow:
    class: ophyd_async.sim:SimMotor
    kwargs: {instant: false}
    set: {velocity: 0.1, acceleration_time: 0.1}
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: samx}, motor_field: samx, center: 0, Imax: 100, sigma: 1}}
  temperature: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 21.5], kwargs: {units: degC}}
  image: {class: "ophyd:Signal", kwargs: {value: {$obj: "numpy:zeros", $args: [[200, 200]]}}}
  dozer: {class: "tests.device_server.odd_devices:Napper", kwargs: {pace: 0.05}, blocking: true}
  telling: {class: "tests.device_server.odd_devices:Telling"}
  broken: {class: "tests.device_server.odd_devices:Unreachable", timeout: 0.2}
  bank: {class: "tests.proxy.conformance_devices:Bank"}
"""


class DeviceProcess:
    """The server `main` of the devices above."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        collection = directory / "profile" / "profile_collection"
        collection.mkdir(parents=True)
        (collection / "devices.yaml").write_text(DEVICES)
        self.settings = settings.with_(profile=directory / "profile")
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | self.settings.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bec_bluesky.device_server"], env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def said(self) -> str:
        return self._log.read_text()

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(20.0)
            self._process = None


@contextlib.contextmanager
def running_devices(settings: Settings, directory: Path, beamline: str) -> Iterator[DeviceProcess]:
    """Run the devices above on a beamline of their own; begin when they are connected."""
    server = DeviceProcess(settings.with_(beamline=beamline, data_dir=directory / "data"), directory)
    server.start()
    try:
        with Client(server.settings) as client:
            wait_for(lambda: "bank" in client.devices and client.dev.theta.state == "connected", server.said)
        yield server
    finally:
        server.stop()


def wait_for(condition: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait until a condition holds, and goes on to hold."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
