"""One run out in every format, from the documents of a real RunEngine."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from event_model import RunRouter
from ophyd.sim import SynAxis, SynGauss, SynSignal
from suitcase import jsonl as suitcase_jsonl

from bec_bluesky.documents import export_run, file_prefix, read_documents
from bec_bluesky.errors import RefusedError
from bec_bluesky.settings import Settings, load
from writers.tables import Serializer

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def settings() -> Settings:
    return load()


@pytest.fixture
def taken(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> Documents:
    """A scan with a waveform, whose baseline is the motor."""
    wave = SynSignal(func=lambda: np.arange(4.0), name="wave")
    documents: Documents = []
    plan = bpp.baseline_wrapper(bp.scan([gauss, wave], motor, -1, 1, 5), [motor])
    run_engine(plan, lambda name, doc: documents.append((name, doc)), sample={"name": "Cu/O"}, proposal="p1")
    return documents


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_file_for_each_stream_and_a_row_for_each_event(
    settings: Settings, taken: Documents, tmp_path: Path
) -> None:
    files = export_run(settings, taken, tmp_path, "csv", prefix="{scan_id:04d}_{start[sample][name]}_")
    assert sorted(path.name for path in files) == ["0001_Cu_O_baseline.csv", "0001_Cu_O_primary.csv"]
    primary = rows(tmp_path / "0001_Cu_O_primary.csv")
    events = [doc for name, doc in taken if name == "event" and "gauss" in doc["data"]]
    assert list(primary[0]) == ["time", "seq_num", "gauss", "motor", "motor_setpoint"]  # no waveform
    for row, event in zip(primary, events, strict=True):
        assert float(row["gauss"]) == event["data"]["gauss"]
        assert float(row["time"]) == event["time"]
        assert int(row["seq_num"]) == event["seq_num"]
    with pytest.raises(FileExistsError):
        export_run(settings, taken, tmp_path, "csv", prefix="{scan_id:04d}_{start[sample][name]}_")


@pytest.mark.parametrize("kind", ["jsonl", "msgpack"])
def test_documents_come_back_as_they_were(settings: Settings, taken: Documents, tmp_path: Path, kind: str) -> None:
    (path,) = export_run(settings, taken, tmp_path, kind)
    assert path.name == f"{taken[0][1]['uid']}.{kind}"
    back = list(read_documents(path))
    assert [name for name, _ in back] == [name for name, _ in taken]
    assert back[0][1]["uid"] == taken[0][1]["uid"]
    assert back[-1][1] == taken[-1][1]
    waves = [doc["data"]["wave"] for name, doc in back if name == "event" and "wave" in doc["data"]]
    assert np.array_equal(waves, [np.arange(4.0)] * 5)


def test_the_json_lines_are_those_of_suitcase_jsonl(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    (ours,) = export_run(settings, taken, tmp_path / "ours", "jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        (theirs,) = suitcase_jsonl.export(iter(taken), tmp_path / "theirs")["all"]
    assert list(read_documents(theirs)) == list(read_documents(ours))


def test_the_nexus_format_is_the_run_file(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    (path,) = export_run(settings, taken, tmp_path, "nexus", prefix="{plan_name}_{scan_id}")
    assert path.name == "scan_1.nxs"
    with h5py.File(path) as file:
        assert file["entry/streams/primary/gauss"].shape == (5,)
    with pytest.raises(FileExistsError, match="not overwritten"):
        export_run(settings, taken, tmp_path, "nexus", prefix="{plan_name}_{scan_id}")


def test_a_run_that_was_never_closed_is_exported_and_says_so(
    settings: Settings, taken: Documents, tmp_path: Path
) -> None:
    (path,) = export_run(settings, taken[:-1], tmp_path, "nexus")
    with h5py.File(path) as file:
        assert "no stop document" in file["entry/run/reason"].asstr()[()]
    assert len(export_run(settings, taken[:-1], tmp_path, "csv")) == 2


def test_spec_and_other_formats_come_from_suitcases(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    taken[0][1]["user"] = "ada"
    (path,) = export_run(settings, taken, tmp_path, "spec", prefix="{scan_id:03d}-")
    lines = path.read_text().splitlines()
    assert path.name == "001.spec"
    assert any(line.startswith("#C ada  User = ada") for line in lines)
    assert "owner" not in taken[0][1]
    assert any(line.startswith("#S 1 ascan motor -1 1 5") for line in lines)
    numbers = [line.split() for line in lines if line and line[0] in "-01"]
    assert [float(row[0]) for row in numbers] == [-1, -0.5, 0, 0.5, 1]


def test_an_instrument_names_an_exporter_of_its_own(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    (path,) = [
        path for path in export_run(settings, taken, tmp_path, "writers.tables:export") if "primary" in path.name
    ]
    assert len(rows(path)) == 5


def test_a_missing_format_is_refused_with_what_there_is(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no format 'cvs': did you mean 'csv'"):
        export_run(settings, taken, tmp_path, "cvs")
    with pytest.raises(RefusedError, match="no start document"):
        export_run(settings, taken[1:], tmp_path, "csv")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("cvs", {}),
        ("csv", {"prefix": "{nothing}"}),
        ("csv", {"options": {"bins": 3}}),
        ("jsonl", {"options": {"bins": 3}}),
        ("nxcansas", {}),
    ],
)
def test_a_refused_export_leaves_no_directory(
    settings: Settings, taken: Documents, tmp_path: Path, kind: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(RefusedError):
        export_run(settings, taken, tmp_path / "new" / "folder", kind, **asked)
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_format_are_given_to_it(settings: Settings, taken: Documents, tmp_path: Path) -> None:
    (path,) = export_run(settings, taken, tmp_path, "nxsas", options={"tree": {"entry": {"color": "red"}}})
    with h5py.File(path) as file:
        assert file["entry/color"].asstr()[()] == "red"


def test_a_serializer_serves_a_run_router(taken: Documents, tmp_path: Path) -> None:
    def factory(name: str, doc: dict[str, Any]) -> tuple[list[Callable[..., Any]], list[Any]]:
        return [Serializer(tmp_path)], []

    router = RunRouter([factory])
    for name, doc in taken:
        router(name, doc)
    assert len(rows(tmp_path / f"{taken[0][1]['uid']}-primary.csv")) == 5


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{uid}-", "u1-"),
        ("{start[uid]}-", "u1-"),
        ("{time:%Y}-{motors}", "2023-x-y"),
        ("{sample}", "_Fe_Ni_e"),
        ("../{plan_name}", "_scan"),
        ("{scan_id:05d}_", "00007_"),
        ("{proposal}_{start[user]}_{beamline}_", "no_proposal_no_user_sim_"),
        ("{user[name]}-", "no_user-"),
        ("{institute}", "PSI-N-2"),
    ],
)
def test_a_prefix_never_leaves_the_directory(template: str, expected: str) -> None:
    start = {"uid": "u1", "scan_id": 7, "time": 1.7e9, "motors": ["x", "y"], "sample": "/Fe/Ni é", "plan_name": "scan"}
    start |= {"user": "", "beamline": {"name": "sim"}, "institute": ["PSI", "N", "2"]}
    assert file_prefix(template, start) == expected


@pytest.mark.parametrize("template", ["{uid.__class__}", "{nothing}", "{}", "{uid[0]}", "{uid", "{scan_id:q}"])
def test_an_impossible_prefix_is_refused(template: str) -> None:
    with pytest.raises(RefusedError, match="begins no file names"):
        file_prefix(template, {"uid": "u1", "scan_id": 7})
