"""Detectors' files beside a run's file: awaited, checked, and put together."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss

from bec_bluesky.documents import AnalysisResult, FileReady, RunProblem
from bec_bluesky.errors import SettingsError
from callbacks.peaks import PeakAnalysis
from tests.writers.nexus_harness import Documents, default_plot, feed, recorded, run
from writers.nexus import NexusWriter


def with_files(
    *files: tuple[Path, list[tuple[int, int]]], frame: tuple[int, ...] = (4, 3), mimetype: str = "application/x-hdf5"
) -> Documents:
    """Compose a run of two events whose detector `eiger` announced rows (from, up to) of files."""
    documents = recorded([1.0, 2.0])
    descriptor: dict[str, Any] = documents[1][1]
    key = {"dtype": "array", "shape": [1, *frame], "source": "cam", "external": "STREAM:"}
    descriptor["data_keys"] = {**descriptor["data_keys"], "eiger": key}
    descriptor["object_keys"] = {**descriptor["object_keys"], "eiger": ["eiger"]}
    descriptor["hints"] = {"eiger": {"fields": ["eiger"]}}
    told: Documents = []
    for number, (path, rows) in enumerate(files):
        told.append(
            ("stream_resource", {
                "uid": f"r{number}", "run_start": documents[0][1]["uid"], "data_key": "eiger", "mimetype": mimetype,
                "uri": f"file://localhost{path}", "parameters": {"dataset": "/frames"},
            })
        )  # fmt: skip
        for start, stop in rows:
            told.append(
                ("stream_datum", {
                    "uid": f"r{number}/{start}", "stream_resource": f"r{number}", "descriptor": descriptor["uid"],
                    "indices": {"start": start, "stop": stop}, "seq_nums": {"start": start + 1, "stop": stop + 1},
                })
            )  # fmt: skip
    return [*documents[:2], *told, *documents[2:]]


def write_frames(path: Path, *numbers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["frames"] = np.stack([np.full((4, 3), number, np.uint16) for number in numbers])


def tick_until(writer: NexusWriter, emitted: list[Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not emitted:
        assert time.monotonic() < deadline
        writer.tick()


def test_files_of_one_detector_become_one_dataset(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    write_frames(root / "a.h5", 1, 2)
    write_frames(root / "b.h5", 3, 4, 5)
    feed(writer, with_files((root / "a.h5", [(0, 2)]), (root / "b.h5", [(0, 1), (1, 3)])))
    assert emitted[0].problems == []
    moved = root.rename(root.with_name("moved"))
    data = default_plot(str(moved / Path(emitted[0].path).relative_to(root)))
    with data.file as file:
        frames = file["entry/streams/primary/eiger"]
        assert frames.is_virtual
        assert frames.dtype == np.uint16
        assert frames[:, 0, 0].tolist() == [1, 2, 3, 4, 5]
        assert file["entry/instrument/eiger/data"] == frames
        assert file["entry/external_files/primary_eiger_2/data"].shape == (3, 4, 3)
        assert file["entry/data_eiger/eiger"].shape == (5, 4, 3)


def test_only_the_rows_of_the_run_are_shown(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    write_frames(root / "shared.h5", 0, 1, 2, 3, 4)
    feed(writer, with_files((root / "shared.h5", [(1, 2), (2, 3)])))
    assert emitted[0].problems == []
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/eiger"][:, 0, 0].tolist() == [1, 2]


def test_the_points_of_a_run_are_counted_once_and_by_frames_if_it_has_no_events(
    writer: NexusWriter, emitted: list[FileReady], root: Path
) -> None:
    write_frames(root / "a.h5", *range(5))
    flown = with_files((root / "a.h5", [(1, 3), (3, 5)]))
    feed(writer, [(name, doc) for name, doc in flown if name != "event"])
    write_frames(root / "b.h5", *range(2))
    write_frames(root / "c.h5", *range(3))
    flown = with_files((root / "b.h5", [(0, 2)]), (root / "c.h5", [(0, 3)]))
    feed(writer, [(name, doc) for name, doc in flown if name != "event"])
    again = recorded([1.0, 2.0, 2.5, 3.0], num_points=8)
    for (_, event), number in zip(again[2:6], (1, 2, 2, 3), strict=True):  # after a pause
        event["seq_num"] = number
    feed(writer, again)
    found = []
    for ready in emitted:
        with h5py.File(ready.path) as file:
            found.append(file["entry/run/num_points_measured"][()])
    assert found == [4, 5, 3]


def test_a_file_that_is_gone_leaves_its_place_empty(
    writer: NexusWriter, emitted: list[FileReady], alarms: list[RunProblem], root: Path
) -> None:
    write_frames(root / "b.h5", 3, 4)
    feed(writer, with_files((root / "gone.h5", [(0, 2)]), (root / "b.h5", [(0, 3)])))
    assert emitted[0].problems == [
        f"primary/eiger: the file {root}/gone.h5 is not there",
        f"primary/eiger: {root}/b.h5 holds 2 frames of the 3 that were announced",
    ]
    assert [alarm.text.partition(": ")[2] for alarm in alarms] == emitted[0].problems
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/eiger"][:, 0, 0].tolist() == [0, 0, 3, 4, 0]


def test_gaps_and_repeats_of_frames_are_said(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    write_frames(root / "a.h5", *range(10))
    feed(writer, with_files((root / "a.h5", [(0, 2), (5, 8), (7, 10)])))
    assert emitted[0].problems == [
        "primary/eiger: 3 frames are missing, by the indices of the stream datums",
        "primary/eiger: 1 frames were announced twice",
    ]


def test_a_late_file_is_awaited_while_other_runs_go_on(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append)
    writer.tick()
    late = with_files((root / "late.h5", [(0, 2)]))
    feed(writer, late)
    writer.tick()
    assert not emitted
    assert not writer.is_stored(late[0][1]["uid"])
    feed(writer, other := recorded([1.0]))
    assert [ready.run_uid for ready in emitted] == [other[0][1]["uid"]]
    write_frames(root / "late.h5", 1)
    writer.tick()
    assert len(emitted) == 1, "it has one frame of two"
    write_frames(root / "late.h5", 1, 2)
    writer.tick()
    assert emitted[1].run_uid == late[0][1]["uid"]
    assert emitted[1].problems == []
    assert writer.is_stored(late[0][1]["uid"])


def test_a_file_that_never_comes_is_awaited_until_the_deadline(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=0.2)
    writer.tick()
    feed(writer, with_files((root / "never.h5", [(0, 2)])))
    assert not emitted
    tick_until(writer, emitted)
    assert emitted[0].problems == [f"primary/eiger: the file {root}/never.h5 is not there"]


def test_a_file_that_cannot_be_completed_after_all_is_told_and_never_counts_as_stored(
    root: Path, emitted: list[Any]
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=0.1)
    writer.tick()
    feed(writer, documents := with_files((root / "gone.h5", [(0, 2)])))
    uid = documents[0][1]["uid"]
    shutil.rmtree(root)  # somebody cleans up
    with pytest.raises((SettingsError, OSError), match="000001_recorded"):
        for _ in range(100):
            writer.tick()
            writer.is_stored(uid)
            time.sleep(0.05)
    assert not writer.is_stored(uid)
    assert not emitted


def test_without_anybody_who_ticks_late_files_are_awaited_at_the_stop(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=0.2)
    feed(writer, with_files((root / "never.h5", [(0, 2)])))
    assert emitted[0].problems == [f"primary/eiger: the file {root}/never.h5 is not there"]


def test_a_run_of_long_ago_waits_for_nothing(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=1e6)
    documents = with_files((root / "never.h5", [(0, 2)]))
    documents[-1][1]["time"] = time.time() - 2e6
    feed(writer, documents)
    assert emitted[0].problems == [f"primary/eiger: the file {root}/never.h5 is not there"]


WRITE_FRAMES = """
import os, signal, sys, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
frames = file.create_dataset("frames", (2, 4, 3), "u2", maxshape=(None, 4, 3), chunks=(1, 4, 3))
file.swmr_mode = True
frames[:] = 7
frames.flush()
print("written", flush=True)
sys.stdin.read()
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
file.close()
"""


@pytest.fixture
def detector(root: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that has written two frames, and closes its file, or is killed, with the end of its input."""
    root.mkdir()
    command = [sys.executable, "-c", WRITE_FRAMES, str(root / "a.h5"), request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        yield process


@pytest.mark.parametrize("detector", ["closed"], indirect=True)
def test_a_detector_that_is_unstaged_after_the_run_is_awaited(
    detector: subprocess.Popen[str], root: Path, emitted: list[Any]
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=60, wait_until_closed=60)
    writer.tick()
    feed(writer, with_files((root / "a.h5", [(0, 2)])))
    writer.tick()
    assert emitted == []
    detector.communicate(timeout=30)
    writer.tick()
    tick_until(writer, emitted)
    assert emitted[0].problems == []
    assert len(emitted) == 1


@pytest.mark.parametrize("detector", ["killed"], indirect=True)
def test_a_file_that_a_killed_detector_left_open_is_told_with_what_to_do(
    detector: subprocess.Popen[str], root: Path, emitted: list[Any]
) -> None:
    detector.communicate(timeout=30)
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=0.2)
    writer.tick()
    feed(writer, with_files((root / "a.h5", [(0, 2)])))
    tick_until(writer, emitted)
    ready, alarm = emitted
    (problem,) = ready.problems
    assert problem.startswith(f"{root / 'a.h5'} is still open for writing, or its writer was killed")
    assert f"`h5clear -s {root / 'a.h5'}`" in problem
    assert problem in alarm.text
    with h5py.File(ready.path) as file:
        assert file["entry/run/problems"].asstr()[()].tolist() == [problem]
    with pytest.raises(OSError, match="already open for write"), h5py.File(root / "a.h5") as file:
        pass
    with h5py.File(ready.path, swmr=True) as file:  # as it says
        assert file["entry/streams/primary/eiger"][:, 0, 0].tolist() == [7, 7]


@pytest.mark.parametrize("detector", ["closed"], indirect=True)
def test_a_bare_engine_which_unstages_after_the_stop_document_waits_for_nothing(
    detector: subprocess.Popen[str], root: Path, emitted: list[Any]
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_files=600)
    feed(writer, with_files((root / "a.h5", [(0, 2)])))
    assert emitted[0].problems == []
    detector.communicate(timeout=30)


def test_checksums_of_detector_files_are_written_when_asked_for(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, file_checksums=True)
    write_frames(root / "a.h5", 1, 2)
    feed(writer, with_files((root / "a.h5", [(0, 2)])))
    digest = hashlib.sha256((root / "a.h5").read_bytes()).hexdigest()
    with h5py.File(emitted[0].path) as file:
        assert file["entry/external_files/primary_eiger"].attrs["checksum"] == f"sha256:{digest}"


def test_files_of_other_kinds_are_named_and_checked(writer: NexusWriter, emitted: list[FileReady], root: Path) -> None:
    feed(writer, with_files((root / "a.tif", [(0, 2)]), mimetype="image/tiff"))
    assert emitted[0].problems == [
        f"primary/eiger: file://localhost{root}/a.tif (image/tiff) is named here, but only HDF5 files are linked, "
        "and is not there"
    ]


def test_results_of_analyses_are_in_the_file(
    run_engine: RunEngine, root: Path, emitted: list[Any], motor: SynAxis, gauss: SynGauss
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append)
    peaks = PeakAnalysis(emit=lambda product: writer.take_result(product))  # type: ignore[arg-type]
    documents = run(run_engine, bp.scan([gauss], motor, -3, 3, 31), peaks, writer, title="a peak")
    with h5py.File(emitted[-1].path) as file:  # it may have been growing before
        (result,) = file["entry/results"].values()
        assert result.attrs["NX_class"] == "NXprocess"
        assert result["program"].asstr()[()] == "peaks"
        assert result.attrs["x"] == "motor"
        assert result.attrs["y"] == "gauss"
        assert bool(result.attrs["is_final"])
        assert result["values/center"][()] == pytest.approx(gauss.center.get(), abs=0.01)
        assert result["fit"].attrs["NX_class"] == "NXcollection"
    assert documents[-1][0] == "stop"


def test_a_scan_waits_for_its_results_and_a_count_does_not(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, wait_for_results=60)
    writer.tick()
    feed(writer, recorded([1.0]))
    assert len(emitted) == 1
    scan = recorded([1.0, 2.0], hints={"dimensions": [[["x"], "primary"]]})
    feed(writer, scan)
    writer.tick()
    assert len(emitted) == 1
    facts: dict[str, Any] = {"run_uid": scan[0][1]["uid"], "scan_id": 1, "analysis": "peaks", "x": "x", "y": "y"}
    facts |= {"points": 2, "values": {"center": 1.5}}
    writer.take_result(AnalysisResult(**facts, final=False))
    writer.take_result(AnalysisResult(**facts, final=True))
    emitted.clear()
    tick_until(writer, emitted)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/results/peaks_y_x/values/center"][()] == 1.5
