"""Runs that were stored, as people find, read, export and replay them: every way gives the same numbers."""

import csv
import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bec_bluesky.documents import read_documents
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.products import Point
from callbacks.bundler import points
from tests.live_system import NEXUS, System, is_catalogued, make_system, until

TILED = """
[[hosted]]
name = "tiled"
use = "writers.tiled:TiledWriter"
process = "tiled"
"""
MORE_DEVICES = """
  temperature: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 21.5], readout: baseline}
  trace: {class: "ophyd.sim:SynSignal", kwargs: {func: {$obj: "tests.system.waveform:Waveform"}}}
  blob:
    class: ophyd_async.sim:SimBlobDetector
    kwargs: {path_provider: {$obj: devices.paths:DatedPaths, directory: "{files_dir}"}}
"""


@dataclass
class Stored:
    """A system and the runs that it stored, by name."""

    system: System
    runs: dict[str, str]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    system = make_system(tmp_path_factory.mktemp("stored"), hosted=NEXUS + TILED)
    devices = system.directory / "profile" / "devices.yaml"
    devices.write_text(devices.read_text() + MORE_DEVICES)
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield Stored(system, take_runs(system))
    finally:
        system.call("down")


def take_runs(system: System) -> dict[str, str]:
    runs: dict[str, str] = {}
    with system.connect() as bl:
        calls: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
            "scan": ("scan", [["det"], "motor", -2, 2, 5], {}),
            "waveform": ("count", [["trace"]], {"num": 3}),
            "frames": ("fly_scan", [["blob"], 4, 0.02], {}),
        }
        for name, (plan, args, kwargs) in calls.items():
            item = bl.queue.put(plan, args, kwargs, sample="CuO" if name == "scan" else "", start=True)
            runs[name] = item.wait(60.0).result.run_uids[0]
        item = bl.queue.put("count", [["det"]], {"num": 500, "delay": 0.05}, start=True)
        for event in item.follow():
            if isinstance(event, Point) and event.index == 3:
                bl.abort("enough")
        runs["aborted"] = item.result.run_uids[0]
        for name, uid in runs.items():
            until(lambda uid=uid: is_catalogued(bl, uid), f"{name} was not stored", system)
    return runs


def test_runs_are_found_by_number_uid_and_place(stored: Stored) -> None:
    with stored.system.connect() as bl:
        assert bl.data[1].uid == stored.runs["scan"]
        assert bl.data[stored.runs["frames"][:8]].scan_id == 3
        assert bl.data[-1].uid == stored.runs["aborted"]
        assert [run.scan_id for run in bl.data] == [4, 3, 2, 1]
        assert [run.scan_id for run in bl.data.last(2)] == [4, 3]
        with pytest.raises(RefusedError, match="no run of scan number 77"):
            bl.data[77]
        assert [run.scan_id for run in bl.data[-3:-1]] == [2, 3]
        assert [run.scan_id for run in bl.data[-1:-4:-2]] == [4, 2]
        assert bl.data[-1:-1] == []
        with pytest.raises(RefusedError, match="no run of uid 'ffffffff"):
            bl.data["ffffffffffff"]
        with pytest.raises(RefusedError, match="no run of uid 'zzz'"):
            bl.data["zzz"]
        with pytest.raises(RefusedError, match=r"the newest five runs are \[-5:\]"):
            bl.data[1:2]


def test_a_run_tells_its_files_whatever_redis_knows(stored: Stored) -> None:
    with stored.system.connect() as bl:
        announced = [file for file in bl.files(stored.runs["scan"]) if file.kind == "file"]
        assert [file.writer for file in announced] == ["nexus"]
        assert bl.data[stored.runs["scan"]].files == announced
    shown = stored.system.call("data", "files", stored.runs["scan"])
    assert shown.stdout.splitlines() == [file.path for file in announced]
    newest = stored.system.call("data", "files", "-1")
    assert newest.returncode == 0, newest.stderr
    assert "not there any more" not in stored.system.call("data", "show", "-1").stdout


def test_runs_are_searched_by_what_people_know_of_them(stored: Stored) -> None:
    with stored.system.connect() as bl:
        data = bl.data
        hour = datetime.timedelta(hours=1)
        now = datetime.datetime.now()
        for query, numbers in [
            ({"sample": "CuO"}, [1]),
            ({"plan": "count"}, [4, 2]),
            ({"motor": "motor"}, [1]),
            ({"detector": "trace"}, [2]),
            ({"status": "abort"}, [4]),
            ({"text": "CuO"}, [1]),
            ({"since": now - hour, "until": now + hour}, [4, 3, 2, 1]),
            ({"until": "2020-01-01"}, []),
            ({"plan": "count", "status": "success"}, [2]),
            ({"scan_id": 3}, [3]),
        ]:
            assert [run.scan_id for run in data.search(**query)] == numbers, query
        with pytest.raises(RefusedError, match="'yesterday' is no time"):
            data.search(since="yesterday")


def test_every_way_of_reading_gives_the_same_numbers(stored: Stored) -> None:
    with stored.system.connect() as bl:
        expected = [point.data["det"] for point in bl.points(stored.runs["scan"])]
        run = bl.data[stored.runs["scan"]]
        table = run.table()
        assert list(table.columns) == ["time", "det", "motor", "motor_setpoint"]
        assert table.index.tolist() == [1, 2, 3, 4, 5]
        assert table["det"].tolist() == expected
        assert run.xarray()["det"].values.tolist() == expected
        assert run["primary"]["det"].read().tolist() == expected
        broker = bl.data.catalog.v1
        assert broker[stored.runs["scan"]].table()["det"].tolist() == expected
        assert bl.data.catalog.v2[stored.runs["scan"]]["primary"]["data"]["det"].read().tolist() == expected
        assert bl.data[stored.runs["scan"]].table()["det"].tolist() == expected  # whatever `v2` made of the catalogue
        assert run.table("baseline")["temperature"].tolist() == [21.5, 21.5]
        assert run.streams == ["primary", "baseline"]
        (peak,) = [result for result in run.results if result.y == "det"]
        assert (peak.analysis, peak.x, peak.final, peak.points) == ("peaks", "motor", True, 5)
        events = [document for name, document in run.documents() if name == "event"]
        assert [event["data"]["det"] for event in events if "det" in event["data"]] == expected


def test_points_are_in_the_catalogue_as_they_were_published(stored: Stored) -> None:
    with stored.system.connect() as bl:
        for uid in stored.runs.values():
            published = {point.index: point for point in bl.points(uid)}
            table = bl.data[uid].points
            assert table.index.tolist() == sorted(published)
            for index, point in published.items():
                assert (table["time"][index], table["point_revision"][index]) == (point.time, point.revision)
                assert table["point_missing"][index] == ""
                scalars = {key: value for key, value in point.data.items() if not isinstance(value, np.ndarray | list)}
                assert {key: table[key][index] for key in scalars} == scalars
        assert bl.data[stored.runs["scan"]].points["det"].tolist() == bl.data[1].table()["det"].tolist()
        assert bl.data[stored.runs["frames"]].points["blob_frames_stop"].tolist() == [1, 2, 3, 4]
        assert bl.data[stored.runs["waveform"]].xarray("points", ["trace"])["trace"].shape == (3, 16)
        made = [(point.index, point.data) for point in points(bl.data[1].documents())]
        assert made == [(point.index, point.data) for point in bl.points(1)]


def test_arrays_and_frames_come_only_when_asked_for(stored: Stored) -> None:
    with stored.system.connect() as bl:
        waveform = bl.data[stored.runs["waveform"]]
        assert waveform.columns() == []
        read = waveform.xarray(frames=True)["trace"].values
        assert read.shape == (3, 16)
        assert np.array_equal(read[0], np.arange(16) ** 2)
        frames = bl.data[stored.runs["frames"]]
        assert frames.columns() == ["blob-sum"]
        assert len(frames.table()) == 4
        assert frames.xarray(columns=["blob"])["blob"].shape[0] == 4
        with pytest.raises(RefusedError, match="no column 'blbo': did you mean 'blob'"):
            frames.xarray(columns=["blbo"])
        aborted = bl.data[stored.runs["aborted"]]
        assert aborted.exit_status == "abort"
        assert 3 <= len(aborted.table()) < 500


def test_the_command_line_lists_shows_and_writes_csv(stored: Stored, tmp_path: Path) -> None:
    listed = stored.system.call("data", "list", "--sample", "CuO")
    assert stored.runs["scan"][:8] in listed.stdout
    assert stored.runs["frames"][:8] not in listed.stdout
    shown = stored.system.call("data", "show", "1").stdout
    assert "primary: 5 points: det, motor, motor_setpoint" in shown
    rows = list(csv.DictReader(stored.system.call("data", "get", "1").stdout.splitlines()))
    assert [float(row["motor"]) for row in rows] == [-2, -1, 0, 1, 2]
    with stored.system.connect() as bl:
        target = tmp_path / "out.csv"
        bl.data[-1].csv(target)
        assert target.read_text().startswith("seq_num,time,det\n")
        with pytest.raises(FileExistsError):
            bl.data[-1].csv(target)


def test_an_exported_run_is_replayed_into_an_equal_file(stored: Stored, tmp_path: Path) -> None:
    import h5py

    path, lines = tmp_path / "run.msgpack", tmp_path / "run.jsonl"
    assert stored.system.call("data", "export", "2", str(path)).returncode == 0
    with stored.system.connect() as bl:
        bl.data[2].export(lines)
    names = [name for name, _ in read_documents(path)]
    assert (names[0], names[-1], names.count("event")) == ("start", "stop", 3 + 2)
    assert names == [name for name, _ in read_documents(lines)]
    replayed = stored.system.call(
        "data", "replay", str(lines), "--only", "nexus", "--only", "bundler", "--directory", str(tmp_path / "files")
    )
    assert replayed.returncode == 0, replayed.stderr
    assert "3 Point" in replayed.stdout
    (file,) = (tmp_path / "files").rglob("*.nxs")
    with h5py.File(file) as content:
        assert content["entry/streams/primary/trace"].shape == (3, 16)


def test_a_run_comes_back_into_a_catalogue(stored: Stored, tmp_path: Path) -> None:
    path = tmp_path / "foreign.jsonl"
    with stored.system.connect() as bl:
        documents = list(bl.data[1].documents())
    text = "".join(json.dumps([name, dict(document)]) + "\n" for name, document in documents)
    for old, new in [
        (document["uid"], f"imported-{n:04}") for n, (_, document) in enumerate(documents) if "uid" in document
    ]:
        text = text.replace(old, new)
    path.write_text(text)
    imported = stored.system.call("data", "replay", str(path), "--only", "tiled")
    assert imported.returncode == 0, imported.stderr
    with stored.system.connect() as bl:
        assert [run.uid for run in bl.data.search(sample="CuO")] == ["imported-0000", stored.runs["scan"]]
        assert bl.data["imported-0000"].table()["motor"].tolist() == [-2, -1, 0, 1, 2]


def test_files_that_are_no_documents_are_refused_with_their_line(stored: Stored, tmp_path: Path) -> None:
    for name, content, message in [
        ("a.jsonl", b'["start", {}]\nnonsense\n', "line 2"),
        ("b.jsonl", b'{"start": 1}\n', "document 1 is no"),
        ("c.msgpack", b"\x92\xa5start", "byte 0"),
        ("d.txt", b"", "no format"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RefusedError, match=message):
            list(read_documents(path))
    refused = stored.system.call("data", "replay", str(tmp_path / "a.jsonl"), "--only", "nexsu")
    assert refused.returncode == 1
    assert "did you mean 'nexus'" in refused.stderr


def test_a_run_is_exported_into_a_directory_in_other_formats(stored: Stored, tmp_path: Path) -> None:
    made = stored.system.call("data", "export", "1", str(tmp_path / "out"), "--format", "csv", "--prefix", "{scan_id}_")
    assert made.returncode == 0, made.stderr
    assert sorted(Path(line).name for line in made.stdout.splitlines()) == ["1_baseline.csv", "1_primary.csv"]
    rows = list(csv.DictReader((tmp_path / "out" / "1_primary.csv").read_text().splitlines()))
    assert [float(row["motor"]) for row in rows] == [-2, -1, 0, 1, 2]
    refused = stored.system.call("data", "export", "1", str(tmp_path / "out"), "--format", "cvs")
    assert refused.returncode == 1
    assert "did you mean 'csv'" in refused.stderr
    with stored.system.connect() as bl:
        (file,) = bl.data[3].export(tmp_path / "out", "nexus", prefix="frames")
        assert file.name == "frames.nxs"


def test_runs_that_could_not_be_written_are_written_when_the_cause_is_mended(stored: Stored) -> None:
    system = stored.system
    files, away = system.data / "files", system.data / "away"
    files.rename(away)
    files.write_text("where the directory should be")
    try:
        assert system.call("run", "count", "[det]", "num=2").returncode == 0, "the other sinks go on"
        until(lambda: system.status()["services"]["documents-files"]["state"] == "degraded", "it was never told")
    finally:
        files.unlink()
        away.rename(files)
    with system.connect() as bl:
        uid = bl.runs()[0].run_uid
    told = system.call("alarms", "--run", uid[:8]).stdout
    assert "nexus gave up on a run: SettingsError: Run files cannot be written in" in told
    assert told.count("\n") == 1
    assert f"{uid} nexus: SettingsError: Run files cannot be written in" in system.call("data", "unwritten").stdout
    shown = system.call("status").stdout
    assert "in the last hour (`bec-bluesky alarms`), the newest: " in shown
    restarted = system.call("restart", "documents-files")
    assert restarted.returncode == 0, restarted.stderr
    until(lambda: system.call("data", "files", uid).stdout.rstrip().endswith("_count.nxs"), "it was never written")
    assert system.call("data", "unwritten").stdout == ""
    until(lambda: system.status()["services"]["documents-files"]["state"] == "running", "it stays degraded")
