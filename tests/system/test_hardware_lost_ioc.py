"""An IOC that dies in the middle of a scan, and comes back: nothing else is started again."""

from collections.abc import Iterator

import pytest

from bec_bluesky.messages.queue import QueueItem
from tests.iocs.hardware import Hardware, stop
from tests.iocs.ioc import Ioc
from tests.live_system import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def nothing_left_behind(hardware: Hardware) -> Iterator[None]:
    """An IOC that was started again takes the place of the one that died; whatever happens, all run afterwards."""
    yield
    for each in (hardware.sim, hardware.demo):
        if each.process is None:
            bring_back(hardware, each)


def bring_back(hardware: Hardware, ioc: Ioc) -> None:
    ioc.start()
    ioc.wait_until_there()
    until(lambda: not hardware.missing(), "every device")


def processes(hardware: Hardware) -> dict[str, int]:
    return {name: service["pid"] for name, service in hardware.system.status()["services"].items()}


def failed(hardware: Hardware, item: QueueItem) -> str:
    """Assert that a run failed and was closed; give the reason."""
    assert item.result is not None and item.result.exit_status == "failed"
    document = stop(hardware.documents(item))
    assert document["exit_status"] == "fail" and document["reason"]
    return item.result.reason


def test_a_move_whose_motor_record_dies_fails_with_its_pvs_and_the_next_scan_works(settled: Hardware) -> None:
    before = processes(settled)
    item = settled.add("scan", ["exposure"], "crawler", 0, 18, 3)
    until(lambda: settled.sim.get("sim:mtr2.RBV") > 0.3, "the move")
    settled.sim.end()
    reason = failed(settled, item.wait(60.0))
    assert reason.startswith("crawler.set(9.0) failed: crawler was lost: sim:mtr2.RBV")
    assert "device server main" in reason
    until(lambda: {"crawler", "mtr", "amtr"} <= set(settled.missing()), "every device of the IOC")
    assert settled.missing()["mtr"] == "sim:mtr1.RBV and 18 more PVs do not answer"
    bring_back(settled, settled.sim)
    for motor in ("crawler", "amtr"):
        settled.settle()
        _, again = settled.run("scan", ["exposure"], motor, 0, 0.4, 2)
        assert again.result is not None and again.result.exit_status == "completed", again.result.reason
    assert processes(settled) == before


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("ca", "stage was lost: demo:STAGE:X:Readback and "),
        pytest.param("pva", "TimeoutError: ", marks=pytest.mark.slow),  # ophyd-async's own: ten seconds and the move's
    ],
)
def test_a_move_of_ophyd_async_whose_ioc_dies_fails_and_the_next_scan_works(
    settled: Hardware, layer: str, why: str
) -> None:
    prefix = "pva_" if layer == "pva" else ""
    scan = ([f"{prefix}counter"], f"{prefix}stage.x")
    settled.demo.put("demo:STAGE:X:Velocity", 2.0)
    start = settled.demo.get("demo:STAGE:X:Readback")
    item = settled.add("scan", *scan, start, start + 8, 3)
    until(lambda: settled.demo.get("demo:STAGE:X:Readback") > start + 0.3, "the move")
    settled.demo.end()
    reason = failed(settled, item.wait(60.0))
    assert f"{prefix}stage.x.set({start + 4}) failed: {why}" in reason
    assert "device server main" in reason
    bring_back(settled, settled.demo)
    _, again = settled.run("scan", *scan, 0, 1, 2)
    assert again.result is not None and again.result.exit_status == "completed", again.result.reason
