"""Devices in a NeXus file: their classes, and how each was read."""

from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import pytest
from bluesky import RunEngine
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import FileReady, RunProblem
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import feed, recorded, run
from writers.nexus import NexusWriter

DEVICE_FILE = """
devices:
  ring: {class: "ophyd:Signal", labels: [machine, sources]}
  table: {class: "ophyd:Signal", labels: [slits]}
  gauss: {class: "ophyd.sim:SynGauss", labels: [detectors]}
"""


class Hinting(Signal):
    """A signal that says what it is to NeXus, as event-model has it."""

    @property
    def hints(self) -> dict[str, Any]:
        return {"fields": [self.name], "NX_class": "NXsensor"}


def test_classes_come_from_patterns_then_hints_then_labels_then_their_part(
    run_engine: RunEngine, root: Path, emitted: list[Any], tmp_path: Path, motor: SynAxis, gauss: SynGauss
) -> None:
    (tmp_path / "devices.yaml").write_text(DEVICE_FILE)
    writer = NexusWriter(
        directory=root, emit=emitted.append, classes={"gau*": "NXmonitor"}, device_file=tmp_path / "devices.yaml"
    )
    ring, table, heat = Signal(name="ring", value=1.0), Signal(name="table", value=2.0), Hinting(name="heat", value=3.0)
    run(run_engine, bpp.baseline_wrapper(bp.scan([gauss, heat], motor, 0, 1, 3), [ring, table]), writer)
    with h5py.File(emitted[0].path) as file:
        entry = file["entry"]
        found = {name: group.attrs["NX_class"] for name, group in entry["instrument"].items()}
        assert found == {"motor": "NXpositioner", "heat": "NXsensor", "ring": "NXsource", "table": "NXslit"}
        assert entry["gauss"].attrs["NX_class"] == "NXmonitor"
        assert entry["gauss/data"] == entry["streams/primary/gauss"]
        assert entry["instrument/ring/name"].asstr()[()] == "ring"
        assert file["entry/readout_groups/monitored/gauss/data"].shape == (3,)
        assert entry["data"].attrs["signal"] == "gauss"


def test_readout_groups_say_how_each_device_was_read(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, frames: SimBlobDetector
) -> None:
    table, ring = Signal(name="table", value=7.5), Signal(name="ring", value=1.0)
    plan = bpp.baseline_wrapper(bp.scan([frames], motor, 0, 1, 2), [table])
    run(run_engine, bpp.monitor_during_wrapper(plan, [ring]), writer)
    with h5py.File(emitted[0].path) as file:
        groups = file["entry/readout_groups"]
        assert {how: sorted(groups[how]) for how in groups} == {
            "asynchronous": ["blob"], "baseline": ["table"], "continuous": ["ring"], "monitored": ["motor"],
        }  # fmt: skip
        assert groups["baseline/table"] == file["entry/instrument/table"]


def test_a_device_named_as_a_group_of_the_entry_gets_another_name(
    run_engine: RunEngine, root: Path, emitted: list[Any]
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, classes={"*": "NXmonitor"})
    run(run_engine, bp.count([Signal(name="data", value=1.0, kind="hinted")], 2), writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/data"].attrs["NX_class"] == "NXdata"
        assert file["entry/data_2"].attrs["NX_class"] == "NXmonitor"
    assert emitted[0].problems == []


def test_a_class_that_no_device_can_have_is_refused(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"'ring' = 'NXdog' is no class of a device: NXaperture"):
        NexusWriter(directory=root, classes={"ring": "NXdog"})


@pytest.mark.parametrize("text", ["devices: [", "- 1", "devices: {ring: 5}", ""])
def test_a_device_file_that_cannot_be_read_gives_no_labels(
    run_engine: RunEngine, root: Path, emitted: list[Any], tmp_path: Path, text: str
) -> None:
    (tmp_path / "devices.yaml").write_text(text)
    writer = NexusWriter(directory=root, emit=emitted.append, device_file=tmp_path / "devices.yaml")
    run(run_engine, bp.count([Signal(name="ring", value=1.0, kind="hinted")]), writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/instrument/ring"].attrs["NX_class"] == "NXdetector"


def test_problems_become_alarms_but_not_a_flood(
    writer: NexusWriter, emitted: list[FileReady], alarms: list[RunProblem]
) -> None:
    documents = recorded([1.0])
    stray = [("event", {"uid": f"stray{number}", "descriptor": "unknown"}) for number in range(20)]
    told = [(name, doc | {"run_start": documents[0][1]["uid"]}) for name, doc in stray]
    feed(writer, [*documents[:-1], *told, documents[-1]])
    assert len(emitted[0].problems) == 21
    assert len(alarms) == 5
    assert "20 documents came without a descriptor" in alarms[0].text
    assert "stray0" in alarms[1].text
    assert alarms[-1].text.endswith("and 17 more problems, in the file at /entry/run/problems")
    assert {alarm.run_uid for alarm in alarms} == {documents[0][1]["uid"]}


def test_a_file_says_that_it_was_resumed(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    documents = recorded([1.0, 2.0])
    killed = NexusWriter(directory=root)
    feed(killed, documents[:3])
    killed.close()
    feed(writer, documents)
    feed(writer, recorded([1.0]))
    with h5py.File(emitted[0].path) as file:
        assert "written again" in file["entry/run/resumed"].asstr()[()]
    with h5py.File(emitted[1].path) as file:
        assert "resumed" not in file["entry/run"]
    assert not [path for path in root.rglob(".*") if path.name != ".runs.jsonl"]


def test_a_published_file_has_the_checksum_that_was_announced(writer: NexusWriter, emitted: list[FileReady]) -> None:
    import hashlib

    feed(writer, recorded([1.0]))
    digest = hashlib.sha256(Path(emitted[0].path).read_bytes()).hexdigest()
    assert emitted[0].checksum == f"sha256:{digest}"


def test_a_monitored_stream_with_no_event_costs_nothing(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.declare_stream(gauss, name="never", collect=False)
        yield from bps.trigger_and_read([gauss])
        yield from bps.close_run()

    run(run_engine, plan(), writer)
    assert emitted[0].problems == []
