"""Documents of earlier versions, and of other programs: read, brought up to date, replayed."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
import suitcase.msgpack
from bluesky import RunEngine
from bluesky.callbacks.json_writer import JSONLinesWriter, JSONWriter
from event_model import DocumentRouter, pack_event_page
from ophyd.sim import SynAxis, SynGauss, SynSignal

from bec_bluesky.documents import read_documents, upgraded
from bec_bluesky.errors import RefusedError

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def taken(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> Documents:
    documents: Documents = []
    wave = SynSignal(func=lambda: np.arange(4.0), name="wave")
    run_engine(bp.scan([gauss, wave], motor, -1, 1, 3), lambda name, doc: documents.append((name, doc)))
    return documents


def installed(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], *parts)


def column(documents: Documents, key: str) -> list[Any]:
    return [doc["data"][key] for name, doc in documents if name == "event"]


def test_recorded_runs_are_replayed_by_one_command_without_a_system(tmp_path: Path) -> None:
    """Runs of 2019 come with suitcase-specfile, one of resources and datums with bluesky."""
    recorded = sorted(installed("suitcase.specfile", "tests", "documents").glob("*.jsonl"))
    assert len(recorded) == 4
    text = installed("bluesky", "tests", "examples", "external_assets_legacy.json").read_text()
    legacy = tmp_path / "legacy.json"
    legacy.write_text(text.replace("{{ uuid }}", "legacy").replace("{{ root_path }}", str(tmp_path)))
    with h5py.File(tmp_path / "dataset.h5", "w") as file:
        file["entry/data/data"] = np.zeros((3, 13, 17))
    into = tmp_path / "into"
    command = [sys.executable, "-m", "bec_bluesky", "replay", *map(str, recorded), str(legacy), "--into", str(into)]
    replayed = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert replayed.returncode == 0, replayed.stderr
    assert "5 runs: 5 FileReady" in replayed.stdout
    products = [json.loads(line) for line in (into / "products.jsonl").read_text().splitlines()]
    points = [product for product in products if "index" in product]
    for path in recorded:
        documents = [(name, dict(doc)) for name, doc in read_documents(path)]
        uid, scan_id = documents[0][1]["uid"], documents[0][1]["scan_id"]
        expected = [doc["data"]["det"] for name, doc in documents if name == "event" and "det" in doc["data"]]
        (file_path,) = (into / "2019").glob(f"{scan_id:06d}_*.nxs")
        with h5py.File(file_path) as file:
            assert file["entry/streams/primary/det"][:].tolist() == expected
        assert [point["data"]["det"] for point in points if point["run_uid"] == uid] == expected
    again = [sys.executable, "-m", "bec_bluesky", "replay", str(file_path), "--into", str(tmp_path / "second")]
    rebuilt = subprocess.run([*again, "-w", "nexus"], capture_output=True, text=True, timeout=100, check=False)
    assert "1 runs: 1 FileReady" in rebuilt.stdout, rebuilt.stderr  # from the run file alone


def test_documents_of_metadatastore_give_todays_numbers(taken: Documents) -> None:
    start = taken[0][1]
    kept: dict[str, dict[str, Any]] = {}
    older: Documents = []
    for name, doc in copy.deepcopy(taken):
        if name == "descriptor":
            doc = {key: doc[key] for key in ("uid", "time", "data_keys")} | {"run_start": start}
            kept[doc["uid"]] = doc
        elif name == "event":
            pairs = {key: [value, doc["timestamps"][key]] for key, value in doc["data"].items()}
            doc = {"uid": doc["uid"], "time": doc["time"], "seq_num": doc["seq_num"], "data": pairs}
            doc["descriptor"] = kept[taken[1][1]["uid"]]
        elif name == "stop":
            doc = {"run_start": start, "time": doc["time"]}
        older.append((name, doc))
    today = list(upgraded(older))
    for key in ("gauss", "motor"):
        assert column(today, key) == column(taken, key)
    assert [doc["timestamps"] for name, doc in today if name == "event"] == [
        doc["timestamps"] for name, doc in taken if name == "event"
    ]
    descriptor = today[1][1]
    assert (descriptor["name"], descriptor["run_start"]) == ("primary", start["uid"])
    assert descriptor["object_keys"] == {"gauss": ["gauss"], "wave": ["wave"], "motor": ["motor", "motor_setpoint"]}
    assert (today[-1][1]["exit_status"], today[-1][1]["run_start"]) == ("success", start["uid"])


def test_bulk_events_and_bulk_datum_become_pages(taken: Documents) -> None:
    events = [doc for name, doc in taken if name == "event"]
    bulk = [(name, doc) for name, doc in taken if name != "event"]
    bulk.insert(2, ("bulk_events", {events[0]["descriptor"]: events}))
    (page,) = [doc for name, doc in upgraded(bulk) if name == "event_page"]
    assert page["seq_num"] == pack_event_page(*events)["seq_num"]
    assert page["data"]["gauss"] == column(taken, "gauss")
    datums = {"resource": "r", "datum_ids": ["r/0", "r/1"], "datum_kwarg_list": [{"n": 0}, {"n": 1}]}
    resource = {"id": "r", "spec": "AD_HDF5", "resource_path": "f.h5"}
    found = list(upgraded([taken[0], ("resource", resource), ("bulk_datum", datums)]))
    assert found[1][1] | {"uid": "r", "run_start": taken[0][1]["uid"], "path_semantics": "posix"} == found[1][1]
    assert found[2] == ("datum_page", {"resource": "r", "datum_id": ["r/0", "r/1"], "datum_kwargs": {"n": [0, 1]}})


def test_documents_of_today_are_left_as_they_are(taken: Documents) -> None:
    assert [name for name, _ in upgraded(taken)] == [name for name, _ in taken]
    for (_, before), (_, after) in zip(taken, upgraded(taken), strict=True):
        assert before.keys() <= after.keys()
        assert all(after[key] is before[key] for key in before)


def test_a_document_without_uid_is_refused(taken: Documents) -> None:
    with pytest.raises(RefusedError, match="the event document has no uid"):
        list(upgraded([*taken[:2], ("event", {"data": {}})]))


@pytest.fixture(params=["suitcase-msgpack", "JSONWriter", "JSONLinesWriter"])
def foreign(request: pytest.FixtureRequest, taken: Documents, tmp_path: Path) -> Iterator[Path]:
    if request.param == "suitcase-msgpack":
        (path,) = suitcase.msgpack.export(iter(taken), tmp_path)["all"]
        yield path
        return
    writer = {"JSONWriter": JSONWriter, "JSONLinesWriter": JSONLinesWriter}[request.param](str(tmp_path))
    for name, doc in taken:
        writer(name, json.loads(json.dumps(doc, default=lambda array: array.tolist())))
    (path,) = tmp_path.glob("*.json*")
    yield path


def test_files_of_other_programs_are_read(foreign: Path, taken: Documents) -> None:
    rows: list[Any] = []

    class Router(DocumentRouter):
        def event_page(self, doc: Any) -> Any:
            rows.extend(zip(doc["data"]["gauss"], doc["data"]["wave"], strict=True))

    router = Router()
    for name, doc in read_documents(foreign):
        router(name, doc)
    assert [value for value, _ in rows] == column(taken, "gauss")
    assert [np.asarray(wave).tolist() for _, wave in rows] == [[0, 1, 2, 3]] * 3
