"""Runs of a real RunEngine into NeXus files, and out again with h5py and nexusformat."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RequestAbort, RunEngineInterrupted
from event_model import compose_run, pack_event_page
from nexusformat.nexus import nxload
from ophyd import Signal
from ophyd.sim import Syn2DGauss, SynAxis, SynGauss, SynSignal
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator, SimBlobDetector

from bec_bluesky.documents import FileReady
from bec_bluesky.errors import SettingsError
from writers.nexus import NexusWriter, read_documents

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def emitted() -> list[FileReady]:
    return []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def writer(root: Path, emitted: list[FileReady]) -> Iterator[NexusWriter]:
    writer = NexusWriter(directory=root, emit=emitted.append)
    yield writer
    writer.close()


@pytest.fixture
def motor() -> SynAxis:
    return SynAxis(name="motor")


@pytest.fixture
def gauss(motor: SynAxis) -> SynGauss:
    return SynGauss("gauss", motor, "motor", center=0.7, Imax=100, sigma=0.8)


@pytest.fixture
def frames(run_engine: RunEngine, root: Path) -> SimBlobDetector:
    folder = root / "frames"
    folder.mkdir(parents=True)
    blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder), PatternGenerator(), name="blob")
    run_engine(ensure_connected(blob))
    return blob


def run(engine: RunEngine, plan: Any, *callbacks: Any, **metadata: Any) -> Documents:
    documents: Documents = []
    engine(plan, [lambda name, doc: documents.append((name, doc)), *callbacks], **metadata)
    return documents


def column(documents: Documents, key: str) -> list[Any]:
    return [doc["data"][key] for name, doc in documents if name == "event" and key in doc["data"]]


def recorded(values: list[Any], *, dtype: str = "number", **start: Any) -> Documents:
    """Compose the documents of a run of one reading `x`."""
    bundle = compose_run(metadata={"scan_id": 1, "plan_name": "recorded"} | start)
    data_keys: Any = {"x": {"dtype": dtype, "shape": [], "source": "here"}}
    descriptor = bundle.compose_descriptor(name="primary", data_keys=data_keys, object_keys={"x": ["x"]})
    documents: Documents = [("start", dict(bundle.start_doc)), ("descriptor", dict(descriptor.descriptor_doc))]
    for number, value in enumerate(values):
        event = {"uid": f"e{number}", "descriptor": descriptor.descriptor_doc["uid"], "time": 1.0 + number}
        filled: dict[str, Any] = {"data": {"x": value}, "timestamps": {"x": 0.5 + number}, "filled": {}}
        documents.append(("event", event | filled | {"seq_num": number + 1}))
    stop = {"uid": "s", "run_start": bundle.start_doc["uid"], "time": time.time(), "exit_status": "success"}
    return [*documents, ("stop", stop)]


def feed(writer: NexusWriter, documents: Documents) -> None:
    for name, doc in documents:
        writer(name, doc)


def default_plot(path: str) -> h5py.Group:
    """Follow `default` as a reader does; the file must be closed with the group's `.file`."""
    file = h5py.File(path, "r")
    entry = file[file.attrs["default"]]
    return entry[entry.attrs["default"]]


def texts(dataset: h5py.Dataset) -> list[str]:
    return list(dataset.asstr()[()])


def test_a_scan_opens_with_its_signal_over_its_motor(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 21), writer)
    (ready,) = emitted
    data = default_plot(ready.path)
    with data.file:
        assert data.attrs["NX_class"] == "NXdata"
        assert data.attrs["signal"] == "gauss"
        assert list(data.attrs["axes"]) == ["motor"]
        assert data.attrs["motor_indices"] == 0
        assert data["gauss"][()].tolist() == column(documents, "gauss")
        assert data["motor"][()].tolist() == column(documents, "motor")
    plotted = nxload(ready.path).plottable_data
    assert plotted.nxsignal.nxdata.tolist() == column(documents, "gauss")
    assert plotted.nxaxes[0].nxdata.tolist() == column(documents, "motor")
    assert ready.writer == "nexus"
    assert ready.size == Path(ready.path).stat().st_size
    assert ready.shapes == {"/entry/data/gauss": [21]}
    assert ready.problems == []


def test_the_file_tells_who_what_and_when(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    about = {"user": "Ada", "sample": {"name": "Si 111", "thickness": 0.5}, "proposal": "p123"}
    documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 3), writer, **about)
    with h5py.File(emitted[0].path) as file:
        entry = file["entry"]
        assert entry["entry_identifier"].asstr()[()] == documents[0][1]["uid"]
        assert entry["start_time"].asstr()[()][-6] in "+-"
        assert entry["end_time"].asstr()[()] >= entry["start_time"].asstr()[()]
        assert entry["run/scan_id"][()] == 1
        assert entry["run/plan_name"].asstr()[()] == "scan"
        assert '"num":3' in entry["run/plan_args"].asstr()[()]
        assert entry["run/exit_status"].asstr()[()] == "success"
        assert entry["user/name"].asstr()[()] == "Ada"
        assert entry["user"].attrs["NX_class"] == "NXuser"
        assert entry["sample/name"].asstr()[()] == "Si 111"
        assert entry["sample/thickness"][()] == 0.5
        assert entry["experiment_identifier"].asstr()[()] == "p123"


def test_devices_are_positioners_and_detectors_with_their_configuration(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    plain = Signal(name="plain", value=3, kind="normal")
    documents = run(run_engine, bp.scan([gauss, plain], motor, -2, 2, 5), writer)
    with h5py.File(emitted[0].path) as file:
        instrument = file["entry/instrument"]
        assert instrument["motor"].attrs["NX_class"] == "NXpositioner"
        assert instrument["motor/value"][()].tolist() == column(documents, "motor")
        assert instrument["motor/value"] == file["entry/streams/primary/motor"], "a link, not a copy"
        assert instrument["motor/value"].attrs["source"] == "SIM:motor"
        assert instrument["motor/value"].attrs["precision"] == 3
        stamps = [doc["timestamps"]["motor"] for name, doc in documents if name == "event"]
        assert instrument["motor/value_timestamps"][()].tolist() == stamps
        assert instrument["motor/configuration/motor_velocity"][()] == 1
        assert instrument["gauss"].attrs["NX_class"] == "NXdetector"
        assert instrument["gauss/data"][()].tolist() == column(documents, "gauss")
        assert list(instrument["gauss/configuration/gauss_noise"].attrs["enum_strs"]) == ["none", "poisson", "uniform"]
        assert instrument["plain/value"][()].tolist() == [3] * 5


def test_a_snaked_grid_is_put_in_order(run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]) -> None:
    y, x = SynAxis(name="y"), SynAxis(name="x")
    peak = Syn2DGauss("peak", y, "y", x, "x", center=(0.3, -0.2), Imax=10, sigma=1)
    run(run_engine, bp.grid_scan([peak], y, -1, 1, 4, x, -2, 2, 5, snake_axes=True), writer)
    ys, xs = np.linspace(-1, 1, 4), np.linspace(-2, 2, 5)
    expected = 10 * np.exp(-((ys[:, None] - 0.3) ** 2 + (xs[None, :] + 0.2) ** 2) / 2)
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxsignal.nxname == "peak"
    np.testing.assert_allclose(plotted.nxsignal.nxdata, expected)
    np.testing.assert_allclose(plotted.nxaxes[0].nxdata, ys)
    np.testing.assert_allclose(plotted.nxaxes[1].nxdata, xs)
    assert emitted[0].shapes == {"/entry/data/peak": [4, 5]}


def test_three_snaked_axes_are_put_in_order(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    z, y, x = SynAxis(name="z"), SynAxis(name="y"), SynAxis(name="x")
    where = Code("where", z, y, x)
    run(run_engine, bp.grid_scan([where], z, 0, 2, 3, y, 0, 1, 2, x, 0, 3, 4, snake_axes=True), writer)
    expected = [[[100 * k + 10 * j + i for i in range(4)] for j in range(2)] for k in range(3)]
    assert nxload(emitted[0].path).plottable_data.nxsignal.nxdata.tolist() == expected


class Code(Signal):
    """Reads as 100 z + 10 y + x, and is hinted."""

    def __init__(self, name: str, z: SynAxis, y: SynAxis, x: SynAxis) -> None:
        super().__init__(name=name, value=0.0)
        self._axes = (z, y, x)

    @property
    def hints(self) -> dict[str, list[str]]:
        return {"fields": [self.name]}

    def get(self, **_: Any) -> float:
        z, y, x = (axis.position for axis in self._axes)
        return float(100 * z + 10 * y + x)

    def read(self) -> Any:
        return {self.name: {"value": self.get(), "timestamp": time.time()}}


def test_an_incomplete_grid_has_nan_where_nothing_was_measured(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    y, x = SynAxis(name="y"), SynAxis(name="x")
    peak = Syn2DGauss("peak", y, "y", x, "x", center=(0, 0), Imax=10)
    seen = 0

    def after_five(detectors: Any, step: Any, pos_cache: Any) -> Any:
        nonlocal seen
        if seen == 5:
            raise RequestAbort
        seen += 1
        yield from bps.one_nd_step(detectors, step, pos_cache)

    run(run_engine, bp.grid_scan([peak], y, 0, 2, 3, x, 0, 3, 4, snake_axes=True, per_step=after_five), writer)
    data = default_plot(emitted[0].path)
    with data.file as file:
        measured = ~np.isnan(data["peak"][()])
        assert measured.tolist() == [[True] * 4, [False, False, False, True], [False] * 4]
        np.testing.assert_allclose(data["y"][()], [0, 1, 2])
        assert file["entry/run/exit_status"].asstr()[()] == "abort"


def test_a_count_is_plotted_over_time(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], gauss: SynGauss
) -> None:
    documents = run(run_engine, bp.count([gauss], 4), writer)
    times = [doc["time"] - documents[0][1]["time"] for name, doc in documents if name == "event"]
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxaxes[0].nxname == "time"
    assert plotted.nxaxes[0].nxdata.tolist() == times
    assert plotted.nxsignal.nxdata.tolist() == column(documents, "gauss")


def test_baseline_and_monitors_have_their_places(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    table, ring = Signal(name="table", value=7.5), Signal(name="ring", value=1.0)

    def step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.abs_set(ring, ring.get() + 0.25, wait=True)
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bp.scan([gauss], motor, 0, 1, 3, per_step=step)
    plan = bpp.monitor_during_wrapper(bpp.baseline_wrapper(plan, [table]), [ring])
    documents = run(run_engine, plan, writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/baseline/table"][()].tolist() == [7.5, 7.5]
        log = file["entry/monitors/ring"]
        assert log.attrs["NX_class"] == "NXlog"
        assert log["value"][()].tolist() == column(documents, "ring")
        assert log["value"][()].tolist()[-3:] == [1.25, 1.5, 1.75]
        stamps = [doc["timestamps"]["ring"] for name, doc in documents if name == "event" and "ring" in doc["data"]]
        assert log["time"][()].tolist() == stamps
        assert file["entry/instrument/table"].attrs["NX_class"] == "NXcollection"
        assert file["entry/instrument/table/value"][()].tolist() == [7.5, 7.5]
        assert file["entry"].attrs["default"] == "data"


def test_an_aborted_run_keeps_what_was_measured(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run({"plan_name": "broken"})
        for position in range(3):
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([gauss, motor])
        raise RuntimeError("the shutter fell")

    with pytest.raises(RuntimeError, match="shutter"):
        run(run_engine, plan(), writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/motor"][()].tolist() == [0, 1, 2]
        assert file["entry/run/exit_status"].asstr()[()] == "fail"
        assert "the shutter fell" in file["entry/run/reason"].asstr()[()]
    assert nxload(emitted[0].path).plottable_data.nxsignal.shape == (3,)


def test_a_run_without_events_makes_a_file_without_a_plot(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    documents = run(run_engine, bpp.run_wrapper(bps.null()), writer)
    with h5py.File(emitted[0].path) as file:
        assert file.attrs["default"] == "entry"
        assert "default" not in file["entry"].attrs
        assert "data" not in file["entry"]
    assert list(read_documents(emitted[0].path)) == documents


def test_documents_come_back_equal(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    plan = bpp.baseline_wrapper(bp.scan([gauss], motor, 0, 1, 3), [Signal(name="word", value="ünïcode\0")])
    documents = run(run_engine, plan, writer)
    found = list(read_documents(emitted[0].path))
    assert [name for name, _ in found] == [name for name, _ in documents]
    for (_, stored), (_, doc) in zip(found, documents, strict=True):
        assert stored == _as_lists(doc)


def _as_lists(value: Any) -> Any:
    """Make tuples lists, which is all that JSON changes."""
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def test_nan_and_numpy_are_kept_in_documents(writer: NexusWriter, emitted: list[FileReady]) -> None:
    feed(writer, recorded([math.nan, np.float64(2.5), np.float32(0.5), -math.inf], note=np.arange(3)))
    found = list(read_documents(emitted[0].path))
    values = column(found, "x")
    assert math.isnan(values[0])
    assert values[1:] == [2.5, 0.5, -math.inf]
    assert found[0][1]["note"] == [0, 1, 2]
    with h5py.File(emitted[0].path) as file:
        np.testing.assert_array_equal(file["entry/streams/primary/x"], [math.nan, 2.5, 0.5, -math.inf])


def test_frames_are_linked_by_relative_paths(
    run_engine: RunEngine,
    writer: NexusWriter,
    emitted: list[FileReady],
    motor: SynAxis,
    frames: SimBlobDetector,
    root: Path,
    tmp_path: Path,
) -> None:
    run(run_engine, bp.scan([frames], motor, 0, 2, 3), writer)
    assert emitted[0].problems == []
    assert emitted[0].shapes["/entry/data/blob"][0] == 3
    moved = tmp_path / "moved"
    root.rename(moved)
    path = moved / Path(emitted[0].path).relative_to(root)
    data = default_plot(str(path))
    with data.file as file:
        link = file.get("entry/streams/primary/blob", getlink=True)
        assert isinstance(link, h5py.ExternalLink)
        assert not Path(link.filename).is_absolute()
        assert data.attrs["signal"] == "blob"
        assert list(data.attrs["axes"]) == ["motor", ".", "."]
        assert data["blob"].shape == (3, 240, 320)
        assert data["blob"][()].any()
        assert data["motor"][()].tolist() == [0, 1, 2]
        assert file["entry/instrument/blob/data"].shape == (3, 240, 320)
    assert nxload(str(path)).plottable_data.nxsignal.shape == (3, 240, 320)


def test_a_missing_detector_file_is_said(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    documents = recorded([1.0, 2.0])
    resource = {
        "uid": "r", "run_start": documents[0][1]["uid"], "data_key": "eiger", "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{root}/gone.h5", "parameters": {"dataset": "/entry/data", "chunk_shape": [1]},
    }  # fmt: skip
    datum = {
        "uid": "r/0", "stream_resource": "r", "descriptor": documents[1][1]["uid"],
        "indices": {"start": 0, "stop": 2}, "seq_nums": {"start": 1, "stop": 3},
    }  # fmt: skip
    feed(writer, [*documents[:2], ("stream_resource", resource), ("stream_datum", datum), *documents[2:]])
    (problem,) = emitted[0].problems
    assert problem == f"primary/eiger: the file {root}/gone.h5 is not there"
    with h5py.File(emitted[0].path) as file:
        assert texts(file["entry/run/problems"]) == [problem]
        assert file.get("entry/streams/primary/eiger", getlink=True).filename == "../gone.h5"


def test_a_short_detector_file_is_said(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    root.mkdir()
    with h5py.File(root / "short.h5", "w") as file:
        file["frames"] = np.zeros((1, 4, 4))
    documents = recorded([1.0, 2.0])
    resource = {
        "uid": "r", "run_start": documents[0][1]["uid"], "data_key": "eiger", "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{root}/short.h5", "parameters": {"dataset": "/frames"},
    }  # fmt: skip
    datum = {
        "uid": "r/0", "stream_resource": "r", "descriptor": documents[1][1]["uid"],
        "indices": {"start": 0, "stop": 2}, "seq_nums": {"start": 1, "stop": 3},
    }  # fmt: skip
    feed(writer, [*documents[:2], ("stream_resource", resource), ("stream_datum", datum), *documents[2:]])
    assert "holds 1 frames of the 2" in emitted[0].problems[0]


@pytest.mark.parametrize(
    ("values", "dtype", "stored", "is_said"),
    [
        ([1, 2, 3], "integer", [1, 2, 3], False),
        ([0, 0.5], "integer", [0.0, 0.5], False),
        ([1.0, None], "number", [1.0, math.nan], True),
        (["a", "b"], "string", ["a", "b"], False),
        (["a", ""], "integer", ["a", ""], False),
        (["a\0b"], "string", [r'"a\u0000b"'], True),
        (["a", 1, None], "string", ['"a"', "1", "null"], True),
        ([[1.5, 2.5], [1.5]], "array", ["[1.5,2.5]", "[1.5]"], True),
        ([[1, 2], None], "array", [[1, 2], [math.nan, math.nan]], True),
        ([{"a": 1}], "number", ['{"a":1}'], True),
        ([2**70, 1], "integer", [2.0**70, 1.0], False),
        ([True, False], "boolean", [True, False], False),
    ],
)
@pytest.mark.parametrize("is_flushed", [False, True])
def test_values_take_their_nearest_form(
    writer: NexusWriter,
    emitted: list[FileReady],
    values: list[Any],
    dtype: str,
    stored: list[Any],
    is_said: bool,
    is_flushed: bool,
) -> None:
    for name, doc in recorded(values, dtype=dtype):
        writer(name, doc)
        if is_flushed and name != "stop":
            for sink in writer.open_runs.values():
                sink.file.flush()
    with h5py.File(emitted[0].path) as file:
        dataset = file["entry/streams/primary/x"]
        found = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]
        expected = np.array(stored, dtype=object if isinstance(stored[0], str) else None)
        np.testing.assert_array_equal(found, expected)
        assert ("entry/run/problems" in file) == is_said
    assert bool(emitted[0].problems) == is_said


def test_nothing_is_ever_overwritten(writer: NexusWriter, emitted: list[FileReady]) -> None:
    first, second = recorded([1.0]), recorded([2.0])
    feed(writer, first)
    before = Path(emitted[0].path).read_bytes()
    feed(writer, second)
    assert Path(emitted[0].path).read_bytes() == before
    assert emitted[1].path != emitted[0].path
    assert second[0][1]["uid"][:8] in emitted[1].path
    assert column(list(read_documents(emitted[1].path)), "x") == [2.0]


def test_a_run_that_is_complete_is_not_written_again(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    documents = recorded([1.0])
    uid = documents[0][1]["uid"]
    assert not writer.holds(uid)
    feed(writer, documents)
    assert writer.holds(uid)
    another = NexusWriter(directory=root, emit=emitted.append)
    assert another.holds(uid)
    feed(another, documents)
    (root / ".runs.jsonl").unlink()
    forgetful = NexusWriter(directory=root, emit=emitted.append)
    feed(forgetful, documents)
    assert len(emitted) == 1
    assert len(list(root.rglob("*.nxs"))) == 1
    assert forgetful.holds(uid)
    Path(emitted[0].path).unlink()
    assert not writer.holds(uid)


def test_a_part_that_a_kill_left_is_replaced(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    documents = recorded([1.0, 2.0])
    killed = NexusWriter(directory=root)
    feed(killed, documents[:3])
    killed.close()
    (part,) = root.rglob(".*.part")
    assert h5py.is_hdf5(part)
    feed(writer, documents)
    assert not list(root.rglob(".*.part"))
    assert list(read_documents(emitted[0].path)) == documents


def test_a_part_file_opens_while_the_run_goes_on(writer: NexusWriter, root: Path) -> None:
    documents = recorded([float(number) for number in range(2_500)])
    feed(writer, documents[:-1])
    writer.close()
    (part,) = root.rglob(".*.part")
    with h5py.File(part) as file:
        assert file["entry/streams/primary/x"].shape == (2_500,)
        assert len(file["entry/documents/json"]) == 2_502


@pytest.mark.parametrize("plan", ["../../../etc/passwd", "/absolute", "a\0b", "x" * 300, "", "..", "名前"])
def test_hostile_plan_names_stay_inside(
    writer: NexusWriter, emitted: list[FileReady], root: Path, tmp_path: Path, plan: str
) -> None:
    feed(writer, recorded([1.0], plan_name=plan))
    path = Path(emitted[0].path)
    assert path.resolve().is_relative_to(root.resolve())
    assert path.suffix == ".nxs"
    assert [found.name for found in tmp_path.iterdir()] == ["files"]


@pytest.mark.parametrize("name", ["../up", "a/b", "time", "seq_num", ".", "", "x" * 300, "é ü\0", "a-b"])
def test_hostile_data_keys_are_stored(writer: NexusWriter, emitted: list[FileReady], name: str) -> None:
    documents = recorded([1.0, 2.0])
    documents[1][1].update(data_keys={name: documents[1][1]["data_keys"]["x"]}, object_keys={name: [name]})
    for _, event in documents[2:-1]:
        event["data"] = {name: event["data"]["x"]}
        event["timestamps"] = {name: event["timestamps"]["x"]}
    feed(writer, documents)
    data = default_plot(emitted[0].path)
    with data.file as file:
        assert data[data.attrs["signal"]][()].tolist() == [1.0, 2.0]
        assert len(file["entry/instrument"]) == 1
        assert file["entry/streams/primary/time"][()].tolist() == [1.0, 2.0]
    assert list(read_documents(emitted[0].path)) == documents


def test_a_directory_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"Run files cannot be written in .*: make it writable"):
        feed(NexusWriter(directory=tmp_path / "file" / "below"), recorded([1.0]))


def test_a_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    documents = recorded([1.0])
    root, elsewhere = tmp_path / "files", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    year = time.localtime(documents[0][1]["time"]).tm_year
    (root / str(year)).symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="leads out of it"):
        feed(NexusWriter(directory=root), documents)
    assert not list(elsewhere.iterdir())


def test_runs_that_are_open_together_get_a_file_each(writer: NexusWriter, emitted: list[FileReady]) -> None:
    one, two = recorded([1.0, 2.0]), recorded([3.0, 4.0])
    for pair in zip(one, two, strict=True):
        feed(writer, list(pair))
    assert [column(list(read_documents(ready.path)), "x") for ready in emitted] == [[1.0, 2.0], [3.0, 4.0]]


def test_missing_and_repeated_events_are_said(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0, 4.0])
    del documents[3]
    feed(writer, [*documents[:-1], documents[-2], documents[-1]])
    assert emitted[0].problems == [
        "primary: 1 events are missing, by their seq_num",
        "primary: 1 events repeat a seq_num",
    ]


def test_malformed_documents_cost_no_data(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0], user=7)
    documents[0][1].update(motors=5, hints="none", sample=["a", 1], scan_id="nine", plan_name=None)
    documents[3][1]["data"] = None
    documents[1][1]["hints"] = "odd"
    feed(writer, documents)
    assert list(read_documents(emitted[0].path)) == documents
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 3.0]
        problems = texts(file["entry/run/problems"])
    assert problems == emitted[0].problems
    assert "event e1: without data or descriptor; it is only among the documents" in problems


def test_a_waveform_is_plotted_by_position(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis
) -> None:
    trace = SynSignal(name="trace", func=lambda: np.arange(8) * motor.position, kind="hinted")
    run(run_engine, bp.scan([trace], motor, 1, 3, 3), writer)
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxsignal.nxdata.tolist() == [[i * position for i in range(8)] for position in (1, 2, 3)]
    assert list(plotted.attrs["axes"]) == ["motor", "."]


def test_pages_of_events_are_events(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    page = pack_event_page(*(doc for _, doc in documents[2:-1]))
    feed(writer, [*documents[:2], ("event_page", dict(page)), documents[-1]])
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 2.0, 3.0]
        assert file["entry/streams/primary/seq_num"][()].tolist() == [1, 2, 3]


def test_a_subscribed_writer_follows_a_run_that_was_paused(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    token = run_engine.subscribe(writer)

    def plan() -> Any:
        yield from bps.open_run()
        for position in range(4):
            yield from bps.checkpoint()
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([gauss, motor])
            if position == 2 and run_engine.state == "running" and not paused:
                paused.append(position)
                yield from bps.pause()
        yield from bps.close_run()

    paused: list[int] = []
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    run_engine.resume()
    run_engine.unsubscribe(token)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/motor"][()].tolist() == column(
            list(read_documents(emitted[0].path)), "motor"
        )
        assert file["entry/streams/primary/motor"][()].tolist()[-1] == 3


def test_a_writer_that_was_killed_makes_the_same_file_again(
    writer: NexusWriter, emitted: list[FileReady], root: Path, tmp_path: Path
) -> None:
    documents = recorded([float(number) for number in range(5_000)])
    told = tmp_path / "documents.json"
    told.write_text(json.dumps(documents))
    script = f"""
import json, os, signal
from pathlib import Path
from writers.nexus import NexusWriter
writer = NexusWriter(directory={str(root)!r})
for name, doc in json.loads(Path({str(told)!r}).read_text())[:4321]:
    writer(name, doc)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (part,) = root.rglob(".*.part")
    with h5py.File(part) as file:
        rows = len(file["entry/streams/primary/x"])
        assert 3_000 <= rows <= 4_321
        assert file["entry/streams/primary/x"][()].tolist() == list(range(rows))
    assert not writer.holds(documents[0][1]["uid"])
    feed(writer, documents)
    assert list(read_documents(emitted[0].path)) == documents
    assert not list(root.rglob(".*.part"))
