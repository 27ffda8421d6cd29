"""A burst in a whole system: points come while it goes on, and file, catalogue and fit are those of a scan."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.products import Point
from tests.live_system import NEXUS, System, is_catalogued, make_system, until

BURST = """
  samz: {class: "ophyd_async.sim:SimMotor"}
  soft: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 1.5]}
  burst:
    class: devices.burst:Burst
    kwargs: {movers: [{$ref: motor}, {$ref: samz}], detectors: [{$ref: det}, {$ref: soft}]}
"""
TILED = """
[[hosted]]
name = "tiled"
use = "writers.tiled:TiledWriter"
process = "files"
"""
NUM = 301


def test_a_burst_through_a_whole_system(tmp_path: Path) -> None:
    system = make_system(tmp_path, hosted=NEXUS + TILED)
    devices = system.directory / "profile" / "devices.yaml"
    devices.write_text(devices.read_text() + BURST)
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        with system.connect() as bl:
            with pytest.raises(RefusedError, match="limits"):
                bl.queue.add("burst_scan", "burst", ["det"], "motor", -11, 5, 3)
            points = scan_with_a_pause(bl)
            assert_that_all_have_the_same(system, bl, points)
    finally:
        system.call("down")


def scan_with_a_pause(bl: Any) -> list[Point]:
    """Run a burst that is paused as soon as its first points are seen; give all points."""
    item = bl.queue.put("burst_scan", ["burst", ["det", "soft"], "motor", -3, 5, NUM], {"settle": 0.005}, start=True)
    points: list[Point] = []
    for event in item.follow("all"):
        if isinstance(event, Point):
            points.append(event)
            if len(points) == 5:
                bl.pause()
                for status in bl.statuses():
                    if status.run_state == "paused":
                        break
                bl.resume()
    assert item.result.exit_status == "completed", item.result.reason
    return points


def assert_that_all_have_the_same(system: System, bl: Any, points: list[Point]) -> None:
    assert [point.index for point in points] == list(range(1, NUM + 1))
    motor = np.linspace(-3, 5, NUM)
    det = [point.data["det"] for point in points]
    assert [point.data["motor"] for point in points] == pytest.approx(motor)
    assert points[0].positions == ["motor"]
    assert points[0].signals == ["det"]  # a soft signal hints at nothing
    times = [point.timestamps["det"] for point in points]
    assert times == sorted(times)
    assert len(set(times)) == NUM
    (peak,) = [result for result in bl.results() if result.y == "det" and result.final]
    assert peak.x == "motor"
    assert peak.values["center"] == pytest.approx(1.0, abs=0.01)
    until(lambda: list((system.data / "files").rglob("*.nxs")), "the file did not come")
    (path,) = (system.data / "files").rglob("*.nxs")
    with h5py.File(path) as file:
        default: Any = file["entry/data"]
        assert default.attrs["signal"] == "det"
        assert default.attrs["axes"][0] == "motor"
        assert default["motor"][:] == pytest.approx(motor)
        assert default["det"][:].tolist() == det
    until(lambda: is_catalogued(bl, points[0].run_uid), "the run is not in the catalogue", system)
    columns = read_from_catalogue(system)
    assert columns[0] == pytest.approx(motor)
    assert columns[1] == det


def read_from_catalogue(system: System) -> list[list[float]]:
    """Give motor and detector of the last run, from a process of its own as a person has."""
    script = """
import json
from bec_bluesky.documents import open_catalog
from bec_bluesky.settings import load
primary = open_catalog(load())[-1]["primary"]
print(json.dumps([primary[key].read().tolist() for key in ("motor", "det")]))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=system.environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
