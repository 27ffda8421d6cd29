"""Small-angle scattering runs as NXsas files: valid, readable by pyFAI, complete after a kill."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from event_model import RunRouter, compose_run
from ophyd.sim import SynAxis, SynSignal
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected

from bec_bluesky.documents import FileReady, RunProblem, write_documents
from bec_bluesky.errors import SettingsError
from devices.saxs import SaxsCamera
from plans.saxs import saxs_count, saxs_scan
from tests.writers.nexus_harness import Documents, run
from tests.writers.readers import complaints
from writers.nxsas import NXsasWriter, Serializer, export, geometry


@pytest.fixture
def camera(run_engine: RunEngine, tmp_path: Path) -> SaxsCamera:
    folder = tmp_path / "raw" / "frames"
    folder.mkdir(parents=True)
    camera = SaxsCamera(StaticPathProvider(UUIDFilenameProvider(), folder), name="saxs")
    run_engine(ensure_connected(camera))
    return camera


@pytest.fixture
def scanned(run_engine: RunEngine, camera: SaxsCamera, motor: SynAxis) -> Documents:
    return run(run_engine, saxs_scan(camera, motor, -1, 1, 3), beamline="sim", sample="PE")


def only(artifacts: dict[str, list[Path]]) -> Path:
    (path,) = artifacts["stream_data"]
    return path


def test_a_scan_with_frames_is_valid_for_every_reader(scanned: Documents, tmp_path: Path) -> None:
    linked = only(export(scanned, tmp_path / "raw", "linked"))
    embedded = only(export(scanned, tmp_path / "raw", "embedded", embed=True))
    broken = tmp_path / "raw" / "broken.h5"
    shutil.copy(embedded, broken)
    with h5py.File(broken, "r+") as file:
        del file["entry/instrument/detector/distance"]
        file["entry/data"].attrs["signal"] = "nothing"
    found = complaints([linked, embedded, broken])
    assert found[linked] == found[embedded] == {"pynxtools": [], "nexusformat": [], "silx": []}
    assert any("distance" in text for text in found[broken]["pynxtools"])  # readers that are asked do look
    assert any("required field" in text for text in found[broken]["nexusformat"])
    assert found[broken]["silx"] == ["no default plot"]
    with h5py.File(linked) as file:
        assert file["entry/data"].attrs["axes"].tolist() == ["motor", ".", "."]
        assert file["entry/data/motor"][:].tolist() == [-1, 0, 1]
        assert file["entry/sample/name"].asstr()[()] == "PE"
        assert "problems" not in file["bluesky"]


def test_frames_are_found_after_the_directory_was_moved(scanned: Documents, tmp_path: Path) -> None:
    path = only(export(scanned, tmp_path / "raw"))
    with h5py.File(path) as file:
        before = file["entry/data/data"][()]
    assert before.shape == (3, 240, 320)
    assert before.max() > before.min()
    (tmp_path / "raw").rename(tmp_path / "archive")
    with h5py.File(tmp_path / "archive" / path.name) as file:
        assert np.array_equal(file["entry/data/data"][()], before)
        assert file["bluesky/events/primary/data/saxs"] == file["entry/instrument/detector/data"]


@pytest.mark.filterwarnings("ignore")
def test_pyfai_reads_geometry_and_frames(scanned: Documents, tmp_path: Path) -> None:
    import pyFAI

    path = only(export(scanned, tmp_path / "raw"))
    integrator = pyFAI.load(geometry(path))
    with h5py.File(path) as file:
        frame = file["entry/data/data"][1].astype(float)
    rows, columns = np.indices(frame.shape) + 0.5
    radius = np.hypot(columns * 0.172e-3 - 27.52e-3, rows * 0.172e-3 - 20.64e-3)
    q = 4 * np.pi / 0.1 * np.sin(np.arctan2(radius, 2.0) / 2)  # 1/nm, at 1 angstrom and 2 m
    assert np.allclose(integrator.array_from_unit(frame.shape, unit="q_nm^-1"), q, rtol=1e-6)
    profile = integrator.integrate1d(
        frame, 50, unit="q_nm^-1", correctSolidAngle=False, method=("no", "histogram", "cython")
    )
    total, _ = np.histogram(q, 50, weights=frame, range=(q.min(), q.max()))
    assert profile.sum_signal.sum() == pytest.approx(frame.sum())
    assert np.allclose(profile.sum_signal, total, rtol=0.05, atol=frame.max() * 20)
    assert profile.intensity[0] > 3 * profile.intensity[-1]  # the spot is where the beam is


def test_images_in_events_are_kept_in_the_file(run_engine: RunEngine, motor: SynAxis, tmp_path: Path) -> None:
    image = SynSignal(func=lambda: np.arange(12.0).reshape(3, 4), name="image")
    documents = run(run_engine, bp.count([image], 2))
    serializer = Serializer(tmp_path, "plain")
    with serializer:
        for name, doc in documents:
            serializer(name, doc)
    with h5py.File(only(serializer.artifacts)) as file:
        assert file["entry/data/data"].shape == (2, 3, 4)
        assert file["entry/instrument/detector/data"][1].tolist() == np.arange(12.0).reshape(3, 4).tolist()
        said = file["bluesky/problems"].asstr()[()].splitlines()
    assert said == serializer.problems
    assert "NXsas requires /entry/instrument/monochromator/wavelength, which the tree does not give" in said


def test_the_tree_of_suitcase_nxsas_is_laid_over_the_documents(tmp_path: Path) -> None:
    tree = {
        "entry": {
            "_attributes": {"NX_Class": "NXEntry", "default": "data"},
            "end_time": {"_attributes": {"NDAttrName": "EndTime"}, "_link": "#bluesky/stop/time"},
            "title": {"_attributes": {"NDAttrName": "SampleTitle"}, "_link": "#bluesky/start/sample_name"},
            "program_name": {"_attributes": {"version": "1"}, "_data": "EPICS areaDetector"},
            "gup": "#bluesky/desc/primary/configuration/eiger/data/gup@units",
            "instrument": {
                "_attributes": {"NX_Class": "NXInstrument"},
                "name_1": "#bluesky/start/beamline_id",
                "aperture": {"_attributes": {"NX_Class": "NXAperture"}, "vcenter": 1.0, "description": "slit"},
                "lost": "#bluesky/start/nothing/like/it",
                "../../out": 1,
            },
        }
    }
    techniques = [{"version": 1, "technique": "SAXS", "nxsas": tree}]
    metadata = {"md": {"techniques": techniques}, "sample_name": "PE", "beamline_id": "SST-1", "scan_id": 3}
    bundle = compose_run(metadata=metadata)
    keys: Any = {"x": {"dtype": "number", "shape": [], "source": "s"}}
    described = {"gup": {"units": "mm", "dtype": "integer", "source": "s", "shape": []}}
    configuration: Any = {"eiger": {"data": {"gup": 5}, "timestamps": {"gup": 0.0}, "data_keys": described}}
    descriptor = bundle.compose_descriptor(
        name="primary", data_keys=keys, object_keys={"x": ["x"]}, configuration=configuration
    )
    documents = [
        ("start", bundle.start_doc),
        ("descriptor", descriptor.descriptor_doc),
        ("stop", bundle.compose_stop()),
    ]
    with h5py.File(only(export(documents, tmp_path, "{scan_id:03d}_"))) as file:
        entry = file["entry"]
        assert Path(file.filename).name == "003.h5"
        assert entry.attrs["NX_class"] == "NXentry"
        assert entry["title"] == file["bluesky/start/sample_name"]  # a link, with attributes of its own
        assert entry["title"].attrs["NDAttrName"] == "SampleTitle"
        assert entry["end_time"].asstr()[()].startswith("20")  # seconds are no NeXus time
        assert entry["program_name"].attrs["version"] == "1"
        assert entry["gup"].asstr()[()] == "mm"
        assert entry["instrument/aperture"].attrs["NX_class"] == "NXaperture"
        assert entry["instrument/aperture/vcenter"][()] == 1.0
        said = file["bluesky/problems"].asstr()[()]
        assert "#bluesky/start/nothing/like/it names nothing in this run" in said
        assert "'../../out' is no name" in said
        assert "out" not in file


def test_a_serializer_serves_a_run_router_and_takes_one_run(scanned: Documents, tmp_path: Path) -> None:
    made: list[Serializer] = []

    def factory(name: str, doc: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        made.append(Serializer(tmp_path / "routed"))
        return [made[-1]], []

    router = RunRouter([factory])
    for name, doc in scanned:
        router(name, doc)
    assert only(made[0].artifacts).name == f"{scanned[0][1]['uid']}.h5"
    with pytest.raises(ValueError, match="takes one run"):
        made[0](*scanned[0])
    with pytest.raises(FileExistsError):
        export(scanned, tmp_path / "routed")


def test_frames_of_older_resources_are_linked_in_the_order_of_events(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = np.arange(6 * 12).reshape(6, 3, 4)
    start: dict[str, Any] = {"uid": "old", "time": 1.5e9, "scan_id": 1}
    key = {"dtype": "array", "shape": [3, 4, 0], "source": "PV:cam", "external": "FILESTORE:"}
    descriptor = {"uid": "d", "run_start": "old", "name": "primary", "time": 1.5e9, "data_keys": {"cam_image": key}}
    resource = {"uid": "r", "spec": "AD_HDF5", "root": str(tmp_path), "resource_path": "old.h5",
                "resource_kwargs": {"frame_per_point": 2}}  # fmt: skip
    documents: Documents = [("start", start), ("descriptor", descriptor), ("resource", resource)]
    for number, point in enumerate((0, 2)):  # the point between them was spoiled
        documents.append(
            ("datum", {"datum_id": f"r/{point}", "resource": "r", "datum_kwargs": {"point_number": point}})
        )
        event = {"uid": f"e{number}", "descriptor": "d", "seq_num": number + 1, "time": 1.5e9 + number}
        stamped = {
            "data": {"cam_image": f"r/{point}"},
            "timestamps": {"cam_image": 1.5e9},
            "filled": {"cam_image": False},
        }
        documents.append(("event", event | stamped))
    documents.append(("stop", {"uid": "s", "run_start": "old", "time": 1.5e9 + 2, "exit_status": "success"}))
    with h5py.File(only(export(documents, tmp_path, "run"))) as file:
        assert file["entry/data/data"][:, 0, 0].tolist() == [0, 12, 48, 60]


def test_where_there_are_no_hard_links_the_file_gets_its_name_and_takes_no_other(
    scanned: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = only(export(scanned, tmp_path / "raw", "run"))
    with h5py.File(path) as file:
        assert file["entry/data/data"].shape == (3, 240, 320)
    late = Serializer(tmp_path / "raw", "other")
    late(*scanned[0])
    (tmp_path / "raw" / "other.h5").write_text("came meanwhile")
    with pytest.raises(FileExistsError):
        late(*scanned[-1])
    assert (tmp_path / "raw" / "other.h5").read_text() == "came meanwhile"


def test_a_file_that_is_missing_or_short_is_said(scanned: Documents, tmp_path: Path) -> None:
    (frames,) = (tmp_path / "raw" / "frames").iterdir()
    with h5py.File(frames, "r+") as file:
        file["entry/data/data"].resize(2, axis=0)
    short = Serializer(tmp_path / "raw", "short")
    with short:
        for name, doc in scanned:
            short(name, doc)
    assert short.problems == [f"saxs: 1 announced frames are not in {frames}"]
    frames.rename(frames.with_suffix(".away"))
    late = Serializer(tmp_path / "raw", "late")
    with late:
        for name, doc in scanned:
            late(name, doc)
    assert any("cannot be read" in problem for problem in late.problems)
    frames.with_suffix(".away").rename(frames)
    with h5py.File(only(late.artifacts)) as file:
        assert file["entry/data/data"].shape == (2, 240, 320)  # it came late


@pytest.fixture
def emitted() -> list[Any]:
    return []


@pytest.fixture
def hosted(tmp_path: Path, emitted: list[Any]) -> Iterator[NXsasWriter]:
    writer = NXsasWriter(directory=tmp_path / "raw", emit=emitted.append)
    yield writer
    writer.close()


def test_the_hosted_writer_takes_scattering_runs_of_a_bare_engine(
    run_engine: RunEngine, camera: SaxsCamera, motor: SynAxis, hosted: NXsasWriter, emitted: list[FileReady]
) -> None:
    run(run_engine, bp.count([motor]), hosted)
    assert emitted == []
    documents = run(run_engine, saxs_count(camera, 2), hosted)
    (ready,) = emitted
    assert ready.problems == [
        "NXsas requires /entry/instrument/name, which neither the tree nor the metadata (beamline) give"
    ]
    assert hosted.holds(documents[0][1]["uid"])
    for name, doc in documents:
        hosted(name, doc)
    assert len(emitted) == 1
    with h5py.File(ready.path) as file:
        assert file["entry/data/data"].shape == (2, 240, 320)
        assert file["bluesky/events/primary/seq_num"][:].tolist() == [1, 2]


def test_a_prefix_without_the_uid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no \{uid\}"):
        NXsasWriter(directory=tmp_path, file_prefix="{scan_id}")


def test_a_run_whose_writer_was_killed_is_written_whole_by_the_next(
    scanned: Documents, hosted: NXsasWriter, emitted: list[Any], tmp_path: Path
) -> None:
    write_documents(tmp_path / "run.msgpack", scanned)
    killed = f"""
import os, signal
from bec_bluesky import plugins
from bec_bluesky.settings import load
plugins.mount(load())
from bec_bluesky.documents import read_documents
from writers.nxsas import NXsasWriter
writer = NXsasWriter(directory={str(tmp_path / "raw")!r})
for number, (name, doc) in enumerate(read_documents({str(tmp_path / "run.msgpack")!r})):
    if number == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    writer(name, doc)
    writer.tick()
"""
    ended = subprocess.run([sys.executable, "-c", killed], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert not hosted.holds(scanned[0][1]["uid"])
    for name, doc in scanned:
        hosted(name, doc)
    (ready,) = [made for made in emitted if not isinstance(made, RunProblem)]
    with h5py.File(ready.path) as file:
        assert file["bluesky/events/primary/data/motor"][:].tolist() == [-1, 0, 1]
    assert not list((tmp_path / "raw").glob(".*.part"))
