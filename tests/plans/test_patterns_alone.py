"""Patterns, regions, sweeps and snapshots in a bare RunEngine, with devices of ophyd.sim and ophyd-async."""

import threading
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.sim import SimMotor

from plans._points import hexagonal, rings
from plans.patterns import growing_step_scan, hexagonal_scan, round_roi_scan, round_scan
from plans.positions import restore, snapshot
from plans.regions import multi_region_grid, multi_region_scan
from plans.sweeps import continuous_line_scan, line_sweep
from tests.plans.conftest import Documents, events


def axes() -> tuple[SynAxis, SynAxis]:
    return SynAxis(name="x"), SynAxis(name="y")


def positions(documents: Documents) -> list[tuple[float, ...]]:
    return [(event["x"], event["y"]) for event in events(documents)]


def sim_motor(name: str, *, velocity: float = 1.0, instant: bool = False) -> SimMotor:
    motor = SimMotor(name, instant=instant)

    async def connect() -> None:
        await motor.connect()
        if not instant:
            await motor.velocity.set(velocity)
            await motor.acceleration_time.set(0.01)

    call_in_bluesky_event_loop(connect())
    return motor


def test_growing_steps_are_dense_at_the_start(RE: RunEngine, documents: Documents) -> None:
    x, _ = axes()
    RE(growing_step_scan([x], x, 0.0, 10.0, 6, ratio=16.0))
    steps = np.diff([event["x"] for event in events(documents)])
    assert steps[-1] / steps[0] == pytest.approx(16.0)
    start = documents[0][1]
    assert (start["plan_name"], start["num_points"], start["motors"]) == ("growing_step_scan", 6, ["x"])
    assert {key: start["plan_args"][key] for key in ("start", "stop", "num", "ratio")} == {
        "start": 0.0,
        "stop": 10.0,
        "num": 6,
        "ratio": 16.0,
    }
    assert start["plan_pattern"] == "inner_list_product"  # with the points as its arguments, as of any list of points
    assert start["hints"]["dimensions"] == [(["x"], "primary")]


def test_a_hexagonal_scan_visits_the_lattice(RE: RunEngine, documents: Documents) -> None:
    x, y = axes()
    RE(hexagonal_scan([x], x, -2, 2, y, 0, 3, 1.0))
    lattice = hexagonal(-2, 2, 0, 3, 1.0)
    assert np.allclose(sorted(positions(documents)), sorted(lattice.tolist()))
    assert documents[0][1]["num_points"] == len(lattice)
    assert documents[0][1]["extents"] == [[-2.0, 2.0], pytest.approx([0.2, 2.8], abs=0.1)]


def test_a_round_scan_is_relative_and_comes_back(RE: RunEngine, documents: Documents) -> None:
    x, y = axes()
    x.set(5.0).wait()
    RE(round_scan([x], x, y, 1.0, 2, 4, relative=True))
    assert np.allclose(positions(documents), rings(0, 1, 2, 4) + np.array([5.0, 0.0]))
    assert (x.position, y.position) == (5.0, 0.0)


def test_a_round_roi_scan_stays_inside(RE: RunEngine, documents: Documents) -> None:
    x, y = axes()
    RE(round_roi_scan([x], x, y, 2.0, 1.0, 0.4, x_center=10.0, order="nearest"))
    seen = np.array(positions(documents))
    assert len(seen) > 10
    assert (np.abs(seen - (10.0, 0.0)) <= (1.0 + 1e-9, 0.5 + 1e-9)).all()


def test_regions_that_touch_share_their_point(RE: RunEngine, documents: Documents) -> None:
    x, _ = axes()
    RE(multi_region_scan([x], x, [[0, 1, 2], [1, 1.5, 3], [3, 4, 2]]))
    assert [event["x"] for event in events(documents)] == [0, 1, 1.25, 1.5, 3, 4]


def test_several_meshes_are_one_run_and_a_point_may_be_read_more_than_once(RE: RunEngine, documents: Documents) -> None:
    x, y = axes()
    RE(multi_region_grid([x], x, y, [[0, 1, 2, 0, 1, 2], [5, 6, 2, 5, 5, 1]], repeats=2, settle=0.001))
    once = [(0, 0), (1, 0), (1, 1), (0, 1), (5, 5), (6, 5)]
    assert positions(documents) == [point for point in once for _ in range(2)]
    assert documents[0][1]["num_points"] == 12
    assert sum(name == "start" for name, _ in documents) == 1


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([], "at least one"),
        ([[0, 1]], r"region 1 is \[0, 1\]"),
        ([[0, 1, 2], [0, 1, 2.5]], "region 2: 2.5 is no number of points"),
    ],
)
def test_wrong_regions_are_refused_before_anything_moves(
    RE: RunEngine, documents: Documents, regions: list[list[float]], message: str
) -> None:
    x, _ = axes()
    with pytest.raises(ValueError, match=message):
        RE(multi_region_scan([x], x, regions))
    assert documents == []


def test_a_sweep_of_ophyd_async_has_an_event_for_updates_on_the_way(RE: RunEngine, documents: Documents) -> None:
    motor = sim_motor("x", velocity=5.0)
    RE(line_sweep([], motor, 0.0, 1.0))
    seen = [event["x"] for event in events(documents)]
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len([place for place in seen if 0.0 < place < 1.0]) >= 2
    assert motor.user_readback._cache is None  # nothing listens any more


def test_a_sweep_of_ophyd_ends_with_the_last_position(RE: RunEngine, documents: Documents) -> None:
    x = SynAxis(name="x", delay=0.05)
    detector = SynGauss("det", x, "x", center=0, Imax=1, sigma=1)
    RE(line_sweep([detector], x, -1.0, 1.0, relative=True))
    assert events(documents)[-1]["x"] == 1.0
    assert x.position == 0.0
    assert documents[-1][1]["exit_status"] == "success"


def test_a_continuous_scan_reads_along_the_way_and_gives_the_speed_back(RE: RunEngine, documents: Documents) -> None:
    motor = sim_motor("x", velocity=100.0)
    RE(continuous_line_scan([], motor, 0.0, 1.0, 6, 0.1, run_up=0.05))
    seen = [event["x"] for event in events(documents)]
    assert len(seen) >= 4
    assert seen == sorted(seen)
    assert -0.1 < seen[0] < seen[-1] <= 1.06
    assert call_in_bluesky_event_loop(motor.velocity.get_value()) == 100.0


def test_a_paused_line_is_begun_again(RE: RunEngine, documents: Documents) -> None:
    motor = sim_motor("x")
    seen: list[float] = []

    def pause_once(name: str, document: dict[str, Any]) -> None:
        if name == "event":
            seen.append(document["data"]["x"])
            if len(seen) == 3:
                threading.Thread(target=RE.request_pause).start()

    RE.subscribe(pause_once)
    with pytest.raises(Exception, match="paused"):
        RE(continuous_line_scan([], motor, 0.0, 1.0, 6, 0.1))
    stopped = len(seen)
    RE.resume()
    assert documents[-1][1]["exit_status"] == "success"
    assert len(seen) > stopped
    assert min(seen[stopped:]) < 0.3  # from the beginning
    assert seen[-1] == max(seen)


def test_a_snapshot_brings_everything_back(RE: RunEngine, documents: Documents) -> None:
    x = SynAxis(name="x")
    motor = sim_motor("z", instant=True)
    x.set(2.0).wait()
    kept: dict[str, Any] = {}

    def there_and_back() -> Any:
        kept.update((yield from snapshot([x, motor], label="before")))
        yield from restore([x, motor], {"x": -1.0, "z": 7.0})
        moved = x.position, (yield from snapshot([motor]))["z"]
        yield from restore([x, motor], kept, one_by_one=True)
        return moved

    RE(there_and_back())
    assert kept == {"x": 2.0, "z": 0.0}
    assert x.position == 2.0
    assert documents[0][1]["label"] == "before"
    with pytest.raises(ValueError, match="no position of z"):
        RE(restore([x, motor], {"x": 1.0}))
