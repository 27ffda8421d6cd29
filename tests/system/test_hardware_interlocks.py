"""Suspenders and interlocks written into the profile while everything runs, on PVs of a soft IOC that also dies."""

from collections.abc import Iterator

import pytest

from tests.iocs.hardware import Hardware
from tests.live_system import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # without hardware: tests/scan_server/test_interlocks.py
NUM = 12
SUSPENDER = """
[[suspenders]]
name = "dwell"
signal = "exposure"
kind = "below"
limit = 0.5
"""
INTERLOCK = """
[[interlocks]]
name = "beam"
when = [{ device = "exposure", below = 0.5 }]
action = "pause_now"
when_clear = "resume"
"""


@pytest.fixture(autouse=True)
def nothing_left_behind(hardware: Hardware) -> Iterator[None]:
    """The profile is as it was, and the IOC runs; one that was started again takes the place of the one that died."""
    profile = hardware.system.directory / "profile" / "profile.toml"
    before = profile.read_text()
    yield
    profile.write_text(before)
    if hardware.mini.process is None:
        hardware.mini.start()
        hardware.mini.wait_until_there()
    hardware.mini.put("mini:dot:exp", 1.0)
    until(lambda: not hardware.missing() and not hardware.bl.status.interlocks, "everything as it was")


def write(hardware: Hardware, entries: str) -> None:
    profile = hardware.system.directory / "profile" / "profile.toml"
    profile.write_text(profile.read_text() + entries)


def test_a_suspender_of_the_profile_holds_a_run_while_a_pv_is_low(hardware: Hardware) -> None:
    hardware.mini.put("mini:dot:exp", 1.0)
    write(hardware, SUSPENDER)
    item = hardware.add("count", ["exposure"], NUM, delay=0.1)
    until(lambda: hardware.bl.status.progress is not None and hardware.bl.status.progress.points >= 2, "some points")
    hardware.mini.put("mini:dot:exp", 0.0)
    until(lambda: "exposure = 0.0 fell below 0.5" in hardware.bl.status.suspended, "suspended")
    assert "suspended: Signal exposure" in hardware.system.call("status").stdout
    hardware.mini.put("mini:dot:exp", 1.0)
    done = item.wait(60.0)
    assert done.result is not None and done.result.exit_status == "completed", done.result.reason
    numbers = [document["seq_num"] for name, document in hardware.documents(done) if name == "event"]
    assert numbers == list(range(1, NUM + 1))


def test_an_interlock_trips_when_its_ioc_dies_and_what_it_paused_goes_on_when_that_is_back(hardware: Hardware) -> None:
    hardware.mini.put("mini:dot:exp", 1.0)
    write(hardware, INTERLOCK)
    item = hardware.add("sleep", 600)
    until(lambda: hardware.bl.status.run_state == "running", "the plan runs")
    hardware.mini.end()
    until(lambda: hardware.bl.status.run_state == "paused", "paused")
    assert hardware.bl.status.interlocks == ["interlock beam: exposure cannot be read"]
    assert "interlock beam: exposure cannot be read" in hardware.system.call("status").stdout
    hardware.mini.start()
    hardware.mini.wait_until_there()
    hardware.mini.put("mini:dot:exp", 1.0)
    until(lambda: hardware.bl.status.run_state == "running", "it goes on")
    hardware.mini.put("mini:dot:exp", 0.0)
    until(lambda: hardware.bl.status.interlocks == ["interlock beam: exposure is 0, below 0.5"], "tripped again")
    until(lambda: hardware.bl.status.run_state == "paused", "paused")
    hardware.bl.stop(queue=item.queue)
    done = item.wait(60.0)
    assert done.result is not None and done.result.exit_status == "stopped"
