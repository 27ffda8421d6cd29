"""Limits: of the device file, of ophyd's positioners, of the IOC."""

import pytest

from bec_bluesky.errors import RefusedError
from tests.iocs.hardware import Hardware, comparable, stop

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def beyond(settled: Hardware) -> Hardware:
    """`exposure` reads 60, which is where plans shall go: beyond all limits, which no preflight can know."""
    settled.mini.put("mini:dot:exp", 60.0)
    settled.sim.put("sim:mtr3.DHLM", 25.0)  # the IOC's own limit, of after the devices were connected
    return settled


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("setpoint", "LimitError: setpoint: value 60.0 outside of range: [-10.0, 10.0]"),
        ("axis", "ValueError: 60.0 outside of user-specified limits"),
        ("amtr", "MotorLimitsError: amtr motor trajectory for requested fly/move is from "),
    ],
)
def test_a_limit_ends_the_plan_with_the_error_of_in_process(beyond: Hardware, device: str, error: str) -> None:
    remote, item = beyond.run("move_to_reading", device, "exposure")
    local, local_error = beyond.in_process.run("move_to_reading", device, "exposure")
    assert str(local_error).startswith(error)
    assert item.result is not None and item.result.exit_status == "failed"
    assert str(local_error) in item.result.reason
    assert comparable(remote) == comparable(local)
    assert stop(remote)["exit_status"] == "fail"


def test_the_limits_of_the_device_file_come_first(beyond: Hardware) -> None:
    """The motor record itself has none: in ophyd, equal control limits mean that."""
    before = beyond.sim.get("sim:mtr1.RBV")
    _, item = beyond.run("move_to_reading", "mtr", "exposure")
    assert item.result is not None and item.result.exit_status == "failed"
    assert "LimitError" in item.result.reason and "[-50.0, 50.0]" in item.result.reason
    assert beyond.sim.get("sim:mtr1.RBV") == before


@pytest.mark.parametrize("device", ["setpoint", "axis"])
def test_what_the_ioc_would_refuse_is_not_queued(hardware: Hardware, device: str) -> None:
    with pytest.raises(RefusedError, match=r"its limits are -10 to 10"):
        hardware.add("scan", ["peak"], device, 0, 20, 3)
