"""Plans on soft IOCs through the whole chain give the documents of a stock RunEngine on the same IOCs."""

from typing import Any

import h5py
import pytest

from bec_bluesky.messages.queue import QueueItem
from tests.iocs.hardware import Hardware, comparable, events
from tests.live_system import until

pytestmark = pytest.mark.timeout(300)
SCANS: dict[str, tuple[Any, ...]] = {
    "ophyd EpicsSignal": ("count", ["exposure", "mode", "sample", "wave"]),
    "ophyd EpicsMotor": ("scan", ["exposure"], "mtr", 0, 1, 3),
    "parts of an ophyd device": ("scan", ["exposure", "table.y.user_readback"], "table.x", 0, 0.5, 2),
    "a whole ophyd device": ("count", ["table"]),
    "ophyd positioner by put completion": ("rel_scan", ["peak", "wave"], "axis", -1, 1, 3),
    "ophyd-async demo over Channel Access": ("scan", ["counter"], "stage.x", 0, 1, 3),
    "ophyd-async demo over PV Access": ("scan", ["pva_counter"], "pva_stage.y", 0, 1, 3),
    "grid, both protocols": ("grid_scan", ["pva_counter"], "stage.x", 0, 1, 2, "pva_stage.y", 0, 1, 2),
    "ophyd-async of ours over Channel Access": ("scan", ["ca_station"], "ca_axis", -1, 1, 3),
    "ophyd-async of ours over PV Access": ("scan", ["pva_station", "pva_peak"], "pva_axis", -1, 1, 3),
    "parts of a DeviceVector": ("list_scan", ["ca_station.channels.2", "counter.channel.3"], "ca_axis", [2, -2]),
    "both libraries and protocols": ("scan", ["peak", "ca_station"], "axis", -1, 1, "mtr", 0, 1, 2),
}


@pytest.mark.parametrize("name", SCANS)
def test_documents_are_those_of_a_stock_engine(hardware: Hardware, name: str) -> None:
    hardware.compare(*SCANS[name])


def test_frames_of_an_area_detector_arrive_as_they_are_described(hardware: Hardware) -> None:
    """Their pixels are random, so only the rest can be compared with in process; 64 pixels in each of 48 rows."""
    remote, item = hardware.run("count", ["camera"], num=2)
    local, error = hardware.in_process.run("count", ["camera"], num=2)
    assert error is None and item.result is not None
    for documents in (remote, local):
        frames = [document["data"].pop("camera") for name, document in documents if name == "event"]
        assert [(frame.shape, frame.dtype) for frame in frames] == [((48, 64), "uint8")] * 2
    assert comparable(remote) == comparable(local)
    with h5py.File(nexus_file(hardware, item)) as nexus:
        assert nexus["entry/streams/primary/camera"].shape == (2, 48, 64)
        assert nexus["entry/streams/primary/camera"].dtype == "uint8"


def test_the_motor_of_ophyd_async_makes_the_same_documents_but_for_where_it_is(hardware: Hardware) -> None:
    """This motor record completes the put before the motor has moved, so each reading is of some moment of the move."""
    scan = ("scan", ["exposure"], "amtr", 0, 1, 3)
    remote, _ = hardware.run(*scan)
    local, error = hardware.in_process.run(*scan)
    assert error is None
    for documents in (remote, local):
        for value in (document["data"] for name, document in documents if name == "event"):
            assert 0.0 <= value.pop("amtr") <= 30.0
    assert comparable(remote) == comparable(local)


@pytest.mark.parametrize("layer", ["ca", "pva"])
def test_fresh_reads_past_a_monitor_that_keeps_silent(hardware: Hardware, layer: str) -> None:
    """`quiet` has a dead band: its monitor stays at the first value, in process too; with `fresh: true` it is right."""
    hardware.soft.put("soft:M1", 0.0)
    scan = ([f"{layer}_station", f"fresh_{layer}_station"], f"{layer}_axis", 0, 2, 3)
    documents, _ = hardware.run("scan", *scan)
    truth = events(documents, f"fresh_{layer}_station-peak")
    assert truth == pytest.approx([100.0, 60.653, 13.534], abs=0.001)
    assert events(documents, f"{layer}_station-quiet") == [100.0] * 3
    assert events(documents, f"fresh_{layer}_station-quiet") == truth


def test_a_monitor_of_a_signal_misses_no_update(hardware: Hardware) -> None:
    documents, item = hardware.run("watch", "ticks", 10)
    assert item.result is not None and item.result.exit_status == "completed"
    counted = events(documents, "ticks")
    if counted[0] == counted[1]:  # ophyd tells what it knows, then Channel Access the same as the monitor's first
        del counted[0]
    assert len(counted) >= 3
    assert counted == list(range(counted[0], counted[0] + len(counted)))


def test_the_file_of_a_scan_has_what_the_documents_say(hardware: Hardware) -> None:
    documents, item = hardware.run("scan", ["pva_counter", "wave"], "stage.x", 0, 1, 4)
    with h5py.File(nexus_file(hardware, item)) as nexus:
        stream = nexus["entry/streams/primary"]
        for key in ("stage-x", "pva_counter-channel-1-value", "pva_counter-channel-3-value"):
            assert stream[key.replace("-", "_")][:].tolist() == events(documents, key)
        assert stream["wave"].shape == (4, 100)
        assert stream["stage_x"].attrs["units"] == "mm"


def nexus_file(hardware: Hardware, item: QueueItem) -> str:
    """Give the file of an item's run, once it is complete."""
    assert item.result is not None
    (run,) = item.result.run_uids
    until(lambda: hardware.bl.files(run), "its file")
    return hardware.bl.files(run)[0].path
