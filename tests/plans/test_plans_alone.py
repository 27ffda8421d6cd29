"""Our plans in a bare RunEngine, with devices of ophyd.sim and ophyd-async."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.sim import PatternGenerator, SimBlobDetector, SimMotor

from devices.burst import Burst
from plans.burst import burst_scan
from plans.fly import fly_scan
from plans.scans import grid, line_scan, time_scan
from tests.plans.conftest import Documents, events


def _stop(documents: Documents) -> dict[str, Any]:
    return next(document for name, document in documents if name == "stop")


async def _connected(*devices: Any) -> None:
    for device in devices:
        await device.connect()


def test_line_scan_reads_at_evenly_spaced_points(RE: RunEngine, documents: Documents) -> None:
    x = SynAxis(name="x")
    detector = SynGauss("det", x, "x", center=0, Imax=1, sigma=1)
    RE(line_scan([detector], x, -1, 1, 5, settle=0.001))
    assert [event["x"] for event in events(documents)] == [-1, -0.5, 0, 0.5, 1]
    start = documents[0][1]
    assert (start["plan_name"], start["num_points"], start["motors"]) == ("line_scan", 5, ("x",))
    assert start["hints"]["dimensions"] == [(["x"], "primary")]


def test_a_grid_goes_back_and_forth(RE: RunEngine, documents: Documents) -> None:
    x, y = SynAxis(name="x"), SynAxis(name="y")
    RE(grid([x], y, 0, 1, 2, x, 0, 2, 3))
    assert [(event["y"], event["x"]) for event in events(documents)] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 2),
        (1, 1),
        (1, 0),
    ]
    assert documents[0][1]["shape"] == (2, 3)


def test_points_of_one_instruction_are_done_by_bluesky_where_there_is_no_device_server(
    RE: RunEngine, documents: Documents
) -> None:
    x, y = SynAxis(name="x"), SynAxis(name="y")
    RE(grid([x], y, 0, 1, 2, x, 0, 2, 3, one_instruction=True))
    assert len(events(documents)) == 6
    RE(line_scan([x], y, 0, 1, 2, one_instruction=True))
    assert [event["y"] for event in events(documents)][6:] == [0, 1]
    with pytest.raises(ValueError, match="leave out one_instruction"):
        RE(line_scan([x], y, 0, 1, 2, settle=0.1, one_instruction=True))


def test_a_grid_of_half_an_axis_is_refused(RE: RunEngine) -> None:
    x = SynAxis(name="x")
    with pytest.raises(ValueError, match="groups of motor, start, stop, num"):
        RE(grid([x], x, 0, 1))


def test_a_time_scan_keeps_its_period(RE: RunEngine, documents: Documents) -> None:
    x = SynAxis(name="x")
    RE(time_scan([x], 0.2, 0.05))
    times = [document["time"] for name, document in documents if name == "event"]
    assert len(times) == documents[0][1]["num_points"] == 5
    assert times[-1] - documents[0][1]["time"] > 0.19  # the first may be late, and the others keep to the period


def test_a_time_scan_without_a_period_ends_after_its_duration(RE: RunEngine, documents: Documents) -> None:
    RE(time_scan([SynAxis(name="x")], 0.1))
    times = [document["time"] for name, document in documents if name == "event"]
    assert len(times) > 1


def test_a_fly_scan_takes_every_frame_while_the_motor_moves(
    RE: RunEngine, documents: Documents, tmp_path: Path
) -> None:
    provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
    detector = SimBlobDetector(provider, PatternGenerator(), name="blob")
    motor = SimMotor("motor", instant=True)
    call_in_bluesky_event_loop(_connected(detector, motor))
    RE(fly_scan([detector], 10, 0.05, motor, 0.0, 1.0))
    assert _stop(documents)["exit_status"] == "success"
    descriptors = {document["uid"]: document["name"] for name, document in documents if name == "descriptor"}
    frames = [d for name, d in documents if name == "stream_datum" and descriptors[d["descriptor"]] == "primary"]
    by_resource: dict[str, int] = {}
    for datum in frames:
        assert datum["indices"]["start"] == by_resource.get(datum["stream_resource"], 0)
        by_resource[datum["stream_resource"]] = datum["indices"]["stop"]
    assert by_resource
    assert set(by_resource.values()) == {10}
    positions = [
        document["data"]["motor"]
        for name, document in documents
        if name == "event" and descriptors[document["descriptor"]] == "motor_monitor"
    ]
    assert len(positions) > 3
    assert positions == sorted(positions)
    assert positions[-1] > 1.0
    assert call_in_bluesky_event_loop(motor.velocity.get_value()) == 0  # as it was: instant


def test_a_fly_scan_without_a_motor_only_takes_frames(RE: RunEngine, documents: Documents, tmp_path: Path) -> None:
    provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
    detector = SimBlobDetector(provider, PatternGenerator(), name="blob")
    call_in_bluesky_event_loop(_connected(detector))
    RE(fly_scan([detector], 5, 0.02))
    assert _stop(documents)["num_events"] == {"primary": 5}


def test_a_burst_takes_the_points_by_itself(RE: RunEngine, documents: Documents) -> None:
    x, motor = SynAxis(name="x"), SimMotor("motor")
    detector = SynGauss("det", x, "x", center=0, Imax=1, sigma=1)
    burst = Burst([x, motor], [detector], name="burst")
    call_in_bluesky_event_loop(_connected(motor, burst))
    for axis in (x, motor):
        documents.clear()
        RE(burst_scan(burst, [detector], axis, -1, 1, 101))
        pages = [document for name, document in documents if name == "event_page"]
        assert [number for page in pages for number in page["seq_num"]] == list(range(1, 102))
        assert [at for page in pages for at in page["data"][axis.name]] == np.linspace(-1, 1, 101).tolist()
        assert documents[0][1]["hints"]["dimensions"] == [([axis.name], "primary")]
        assert _stop(documents)["num_events"] == {"primary": 101}


def test_a_burst_of_what_writes_files_is_refused(tmp_path: Path) -> None:
    provider = StaticPathProvider(UUIDFilenameProvider(), tmp_path)
    with pytest.raises(TypeError, match="blob writes files"):
        Burst([], [SimBlobDetector(provider, PatternGenerator(), name="blob")])
