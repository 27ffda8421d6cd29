"""Patterns asked of a whole system: their arguments cross, their points arrive, wrong ones are refused at submit."""

from collections.abc import Iterator
from typing import Any

import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.products import Point
from tests.live_system import make_system

MORE_DEVICES = """
  y: {class: "ophyd.sim:SynAxis"}
  stage: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}}
"""


@pytest.fixture(scope="module")
def bl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    system = make_system(tmp_path_factory.mktemp("patterns"))
    devices = system.directory / "profile" / "devices.yaml"
    devices.write_text(devices.read_text() + MORE_DEVICES)
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        with system.connect() as client:
            yield client
    finally:
        system.call("down")


def run(bl: Any, plan: str, *args: Any, **kwargs: Any) -> list[Point]:
    item = bl.queue.add(plan, *args, **kwargs)
    bl.queue.start()
    points = [event for event in item.follow() if isinstance(event, Point)]
    assert item.result.exit_status == "completed", item.result.reason
    return points


def test_a_hexagonal_scan_from_a_client_gives_its_points(bl: Any) -> None:
    points = run(bl, "hexagonal_scan", ["det"], "motor", -2, 2, "y", 0, 3, 1.0, order="nearest")
    assert len(points) == 18
    assert {round(point.data["motor"], 6) for point in points} == {-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2}


def test_regions_cross_as_lists(bl: Any) -> None:
    points = run(bl, "multi_region_scan", ["det"], "motor", [[0, 1, 2], [1, 2, 3]], repeats=2)
    assert [point.data["motor"] for point in points] == [0, 0, 1, 1, 1.5, 1.5, 2, 2]


def test_sweep_and_continuous_scan_work_with_remote_motors(bl: Any) -> None:
    swept = run(bl, "line_sweep", ["det"], "stage", 0.0, 0.5)
    places = [point.data["stage"] for point in swept]
    assert places == sorted(places)
    assert places[-1] == pytest.approx(0.5)
    assert len(places) > 3
    moved = run(bl, "continuous_line_scan", ["det"], "stage", 0.0, 0.5, 6, 0.1)
    places = [point.data["stage"] for point in moved]
    assert places == sorted(places)
    assert 0.0 <= places[0] < places[-1] <= 0.5


def test_a_snapshot_is_returned_and_restored(bl: Any) -> None:
    run(bl, "restore", ["motor", "y"], {"motor": 3.0, "y": -1.0})
    item = bl.queue.add("snapshot", ["motor", "y"])
    bl.queue.start()
    item.wait(60.0)
    run(bl, "mv", "motor", 0.0, "y", 0.0)
    points = run(bl, "count", ["motor"], num=1)
    assert points[0].data["motor"] == 0.0
    (point,) = run(bl, "snapshot", ["motor", "y"], label="again")
    assert point.data["y"] == 0.0


def test_points_outside_of_limits_and_wrong_orders_are_refused_at_submit(bl: Any) -> None:
    with pytest.raises(RefusedError, match="limits"):
        bl.queue.add("round_scan", ["det"], "motor", "y", 11.0, 2)
    with pytest.raises(RefusedError, match="nearest"):
        bl.queue.add("hexagonal_scan", ["det"], "motor", -2, 2, "y", 0, 3, 1.0, order="backwards")
    with pytest.raises(RefusedError, match="region 1"):
        bl.queue.add("multi_region_scan", ["det"], "motor", [[0, 1]])
    assert len(bl.queue) == 0
