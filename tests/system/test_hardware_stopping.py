"""Pause, stop, abort and the panic stop: the IOC's motor stands still."""

from collections.abc import Callable
from typing import Any

import pytest

from bec_bluesky.client import Item
from tests.iocs.hardware import Hardware, stop
from tests.live_system import until

pytestmark = pytest.mark.timeout(300)
FAR = 19.0
"""Some ten seconds away."""


@pytest.fixture
def moving(settled: Hardware) -> tuple[Hardware, Item]:
    """A scan in the middle of its first move."""
    start = settled.sim.get("sim:mtr2.RBV")
    item = settled.add("scan", ["exposure"], "crawler", FAR, FAR + 0.2, 2)
    until(lambda: settled.sim.get("sim:mtr2.RBV") > start, "the move")
    return settled, item


@pytest.fixture(autouse=True)
def back(hardware: Hardware) -> Any:
    """Send the motor back, fast, by the IOC's own means."""
    yield
    hardware.settle()
    hardware.sim.put("sim:mtr2.VELO", 200.0)
    hardware.sim.put("sim:mtr2", 0.0)
    until(lambda: hardware.sim.get("sim:mtr2.RBV") == 0.0, "the motor at 0")
    hardware.sim.put("sim:mtr2.VELO", 2.0)


def stands_before(hardware: Hardware, target: float) -> None:
    """Assert that the motor comes to rest before its target, and stays there."""
    until(lambda: hardware.stands("mtr2"), "the end of the move")
    place = hardware.sim.get("sim:mtr2.RBV")
    assert place < target
    hardware.tick(5)
    assert hardware.sim.get("sim:mtr2.RBV") == place
    assert hardware.stands("mtr2")


def _stop(hardware: Hardware) -> None:
    hardware.bl.stop("enough")


def _abort(hardware: Hardware) -> None:
    hardware.bl.abort("enough")


@pytest.mark.parametrize(("act", "status", "said"), [(_stop, "stopped", "success"), (_abort, "aborted", "abort")])
def test_ending_a_run_stops_the_motor(
    moving: tuple[Hardware, Item], act: Callable[[Hardware], None], status: str, said: str
) -> None:
    hardware, item = moving
    act(hardware)
    done = item.wait(60.0)
    stands_before(hardware, FAR)
    assert done.result is not None and done.result.exit_status == status
    assert stop(hardware.documents(done))["exit_status"] == said


def test_a_pause_stops_the_motor_and_resuming_takes_it_to_the_end(settled: Hardware) -> None:
    target = settled.sim.get("sim:mtr2.RBV") + 2.0
    item = settled.add("scan", ["exposure"], "crawler", target, target + 0.2, 2)
    until(lambda: settled.sim.get("sim:mtr2.MOVN") == 1, "the move")
    settled.bl.pause(now=True)
    until(lambda: settled.bl.status.run_state == "paused", "the pause")
    stands_before(settled, target)
    settled.bl.resume()
    done = item.wait(60.0)
    assert done.result is not None and done.result.exit_status == "completed"
    assert settled.sim.get("sim:mtr2.RBV") == pytest.approx(target + 0.2)


def test_the_panic_stop_reaches_the_motor_and_ends_the_run(moving: tuple[Hardware, Item]) -> None:
    hardware, item = moving
    hardware.bl.stop_all()
    stands_before(hardware, FAR)
    done = item.wait(60.0)
    assert done.result is not None and done.result.exit_status in ("aborted", "failed")
    assert stop(hardware.documents(done))["exit_status"] in ("abort", "fail")


def test_a_plan_can_stop_the_motor_itself(settled: Hardware) -> None:
    documents, _ = settled.run("stop_on_the_way", "crawler", FAR)
    stands_before(settled, FAR)
    assert settled.sim.get("sim:mtr2.RBV") > 0.0
    assert stop(documents)


@pytest.mark.parametrize("device", ["ca_axis", "pva_axis", "axis"])
def test_an_axis_of_either_library_is_stopped_by_an_abort(settled: Hardware, device: str) -> None:
    settled.soft.put("soft:M1:VELO", 1.0)
    try:
        item = settled.add("mv", device, 9.0)
        until(lambda: settled.soft.get("soft:M1:RBV") > 0.6, "the move")
        settled.bl.abort("enough")
        done = item.wait(60.0)
        until(lambda: settled.soft.get("soft:M1:DMOV") == b"done", "the end of the move")
        place = settled.soft.get("soft:M1:RBV")
        settled.tick(3)
        assert settled.soft.get("soft:M1:RBV") == place < 9.0
        assert done.result is not None and done.result.exit_status == "aborted"
    finally:
        settled.soft.put("soft:M1:VELO", 50.0)
