"""Where NeXus files go, what they link, and what survives."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from nexusformat.nexus import nxload
from ophyd.sim import SynAxis, SynSignalWithRegistry
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import FileReady
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import column, default_plot, feed, recorded, run, texts, with_frames
from writers.nexus import NexusWriter, read_documents


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
        assert {
            Path(each.file_name).is_absolute() for each in file["entry/streams/primary/blob"].virtual_sources()
        } == {False}
        assert data.attrs["signal"] == "blob"
        assert list(data.attrs["axes"]) == ["motor", ".", "."]
        assert data["blob"].shape == (3, 240, 320)
        assert data["blob"][()].any()
        assert data["motor"][()].tolist() == [0, 1, 2]
        assert file["entry/instrument/blob/data"].shape == (3, 240, 320)
    assert nxload(str(path)).plottable_data.nxsignal.shape == (3, 240, 320)


def test_a_missing_detector_file_is_said(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    documents = with_frames(recorded([1.0, 2.0]), root / "gone.h5")
    feed(writer, documents)
    (problem,) = emitted[0].problems
    assert problem == f"primary/eiger: the file {root}/gone.h5 is not there"
    with h5py.File(emitted[0].path) as file:
        assert texts(file["entry/run/problems"]) == [problem]
        assert file.get("entry/streams/primary/eiger", getlink=True).filename == "../gone.h5"


def test_a_short_detector_file_is_said(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    root.mkdir()
    with h5py.File(root / "short.h5", "w") as file:
        file["frames"] = np.zeros((1, 4, 4))
    documents = with_frames(recorded([1.0, 2.0]), root / "short.h5")
    feed(writer, documents)
    assert "holds 1 frames of the 2" in emitted[0].problems[0]


def test_nothing_is_ever_overwritten(writer: NexusWriter, emitted: list[FileReady]) -> None:
    first, second = recorded([1.0]), recorded([2.0])
    feed(writer, first)
    before = Path(emitted[0].path).read_bytes()
    feed(writer, second)
    assert Path(emitted[0].path).read_bytes() == before
    assert emitted[1].path != emitted[0].path
    assert second[0][1]["uid"][:8] in emitted[1].path
    for ready in emitted:
        with h5py.File(ready.path) as file:
            assert file.attrs["file_name"] == Path(ready.path).name
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
    assert len(emitted) == 2, "it may have been killed before it told anybody"
    assert emitted[1].path == emitted[0].path
    assert emitted[1].shapes == emitted[0].shapes
    assert emitted[1].size == emitted[0].size
    assert len(list(root.rglob("*.nxs"))) == 1
    assert forgetful.holds(uid)
    assert [ready.path for ready in another.announcements(uid)] == [emitted[0].path]
    assert another.announcements(uid)[0].checksum == emitted[0].checksum
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


def test_older_resources_are_linked_and_listed(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], root: Path, tmp_path: Path
) -> None:
    root.mkdir()
    with h5py.File(root / "eiger.h5", "w") as file:
        file["entry/data/data"] = np.arange(8).reshape(2, 2, 2)
    documents = recorded([1.0])
    start = documents[0][1]["uid"]
    there: dict[str, Any] = {"uid": "r1", "run_start": start, "root": str(root), "resource_path": "eiger.h5"}
    there |= {"spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}, "path_semantics": "posix"}
    gone = there | {"uid": "r2", "resource_path": "gone.h5"}
    saved = SynSignalWithRegistry(
        func=lambda: np.ones((3, 3)), name="saved", labels={"detectors"}, save_path=str(tmp_path)
    )
    made = run(run_engine, bp.count([saved], 2), writer)
    assert emitted[0].problems == []
    with h5py.File(emitted[0].path) as file:
        (resource,) = (doc for name, doc in made if name == "resource")
        entry = file["entry/external_files"][resource["uid"].replace("-", "_")]
        assert entry.attrs["spec"] == "NPY_SEQ"
    feed(writer, [*documents[:2], ("resource", there), ("resource", gone), *documents[2:]])
    assert emitted[1].problems == [f"AD_HDF5: the file {root}/gone.h5 is not there"]
    with h5py.File(emitted[1].path) as file:
        assert file["entry/external_files/r1/data"][()].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
        assert file.get("entry/external_files/r1/data", getlink=True).filename == "../eiger.h5"


def test_a_file_that_cannot_be_written_is_given_up_and_harms_no_other(tmp_path: Path) -> None:
    """The limit stands for a full disk, which HDF5 meets in the same way; the process must end well."""
    root = tmp_path / "files"
    told = tmp_path / "documents.json"
    told.write_text(json.dumps([recorded([float(number) for number in range(3_000)]), recorded([1.0, 2.0])]))
    script = f"""
import json, resource, signal
from pathlib import Path
from bec_bluesky.errors import SettingsError
from writers.nexus import NexusWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
emitted = []
writer = NexusWriter(directory={str(root)!r}, emit=emitted.append)
big, small = json.loads(Path({str(told)!r}).read_text())
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
failures = []
for name, doc in big:
    try:
        writer(name, doc)
    except SettingsError as error:
        failures.append((name, str(error)))
assert "cannot be written" in failures[0][1], failures[0]
assert failures[-1][0] == "stop"
assert not emitted and not writer.holds(big[0][1]["uid"])
for name, doc in small:
    writer(name, doc)
assert len(emitted) == 1 and emitted[0].run_uid == small[0][1]["uid"]
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = root.rglob("*.nxs")
    assert column(list(read_documents(path)), "x") == [1.0, 2.0]


def test_a_run_is_found_among_many(root: Path) -> None:
    root.mkdir()
    uids = [f"uid-{number}" for number in range(100_000)]
    with (root / ".runs.jsonl").open("w") as index:
        index.writelines(json.dumps({"uid": uid, "path": "one.nxs"}) + "\n" for uid in uids)
    (root / "one.nxs").touch()
    writer = NexusWriter(directory=root)
    assert writer.holds(uids[-1])
    assert not writer.holds("another")
