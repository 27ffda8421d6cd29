"""Round trips are few and exactly known, and no reading is older than the plan may think."""

import contextlib
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import FailedStatus

from bec_bluesky.proxy import DeviceLink
from tests.proxy.conftest import Bench


def round_trips(bench: Bench, plan: Callable[[int], Any]) -> float:
    """Give the round trips of each further point."""
    link: DeviceLink = bench.devices["det"]._link

    def fewest(points: int) -> int:
        counted: list[int] = []
        for _ in range(3):  # a machine that does other things for 50 ms costs another one
            before = link.operations.round_trips
            bench.RE(plan(points))
            counted.append(link.operations.round_trips - before)
        return min(counted)

    return (fewest(20) - fewest(10)) / 10


def test_a_point_of_a_count_is_one_round_trip(remote: Bench) -> None:
    d = remote.devices
    assert round_trips(remote, lambda n: bp.count([d["det"]], n)) == 1
    assert round_trips(remote, lambda n: bp.count([d["det"], d["det2"], d["sim_x"], d["temperature"]], n)) == 1


def test_a_point_of_a_count_of_signals_is_one_round_trip(remote: Bench) -> None:
    d = remote.devices
    assert round_trips(remote, lambda n: bp.count([d["mode"], d["sig"], d["temperature"], d["sim_y"]], n)) == 1


def test_a_point_of_a_scan_is_two_round_trips(remote: Bench) -> None:
    d = remote.devices
    detectors = [d["det"], d["det2"], d["temperature"]]
    assert round_trips(remote, lambda n: bp.scan(detectors, d["motor"], 0, 1, d["sim_x"], 0, 1, n)) == 2


def test_a_point_of_a_scan_without_triggers_is_one_round_trip(remote: Bench) -> None:
    d = remote.devices
    assert round_trips(remote, lambda n: bp.scan([d["temperature"], d["mode"]], d["sim_x"], 0, 1, n)) == 1


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_a_reading_during_a_move_is_not_from_before_a_pause_of_the_plan(remote: Bench, pause: float) -> None:
    slow, det = remote.devices["slow"], remote.devices["det"]
    events: list[float] = []

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.mv(slow.velocity, 2.0, slow.acceleration_time, 0.1)
        for _ in range(2):
            yield from bps.abs_set(slow, 20.0, group="move")
            yield from bps.sleep(0.3)
            yield from bps.trigger(det, wait=True)
            before = yield from bps.rd(slow)
            yield from bps.create("primary")
            yield from bps.read(det)
            yield from bps.sleep(pause)
            reading = yield from bps.read(slow)
            yield from bps.save()
            events.append(reading["slow"]["value"] - before)
            with contextlib.suppress(FailedStatus):
                yield from bps.stop(slow)
            with contextlib.suppress(FailedStatus):
                yield from bps.wait("move")
            yield from bps.mv(slow.velocity, 0.0)
            yield from bps.mv(slow, 0.0, slow.velocity, 2.0)
        yield from bps.mv(slow.velocity, 0.0, slow.acceleration_time, 0.5)

    remote.RE(plan())
    assert len(events) == 2
    assert all((moved > 1.0) == (pause > 0) for moved in events)
