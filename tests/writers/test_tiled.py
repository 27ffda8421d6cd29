"""Runs of a real RunEngine into a real Tiled server, and out again with its client and databroker."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
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
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.sim import SimBlobDetector
from tiled.client import from_uri
from tiled.queries import Key

from bec_bluesky.documents import AnalysisResult, CatalogAddress, FileReady, Run, Runs, find_catalog
from bec_bluesky.documents._lost import LOST
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from callbacks.bundler import points
from writers.tiled import RunNotTakenError, TiledWriter

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def emitted() -> list[FileReady]:
    return []


@pytest.fixture
def writer(address: CatalogAddress, emitted: list[FileReady]) -> Iterator[TiledWriter]:
    writer = TiledWriter(address.uri, address.api_key, emit=emitted.append)
    yield writer
    writer.close()


@pytest.fixture
def catalog(address: CatalogAddress) -> Iterator[Any]:
    with opened(address) as catalog:
        yield catalog


@contextlib.contextmanager
def opened(address: CatalogAddress | None) -> Iterator[Any]:
    assert address is not None
    catalog = from_uri(address.uri, api_key=address.api_key)
    try:
        yield catalog
    finally:
        catalog.context.http_client.close()


def run(engine: RunEngine, plan: Any, *callbacks: Any) -> tuple[str, Documents]:
    """Run a plan; give the run's uid and its documents."""
    documents: Documents = []
    engine(plan, [lambda name, doc: documents.append((name, doc)), *callbacks])
    return documents[0][1]["uid"], documents


def column(documents: Documents, key: str) -> list[Any]:
    return [doc["data"][key] for name, doc in documents if name == "event" and key in doc["data"]]


def test_a_scan_reads_back_with_the_same_numbers(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, motor: SynAxis, gauss: SynGauss
) -> None:
    uid, documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 21), writer)
    assert writer.wait()
    primary = catalog[uid]["primary"]
    assert primary["gauss"].read().tolist() == column(documents, "gauss")
    assert primary["motor"].read().tolist() == column(documents, "motor")
    assert catalog[uid].metadata["start"]["plan_name"] == "scan"
    assert catalog[uid].metadata["stop"]["exit_status"] == "success"


def test_databroker_v1_and_v2_give_the_same_numbers(
    run_engine: RunEngine, writer: TiledWriter, address: CatalogAddress, motor: SynAxis, gauss: SynGauss
) -> None:
    uid, documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 5), writer)
    assert writer.wait()
    # in a process of its own: `.v2` of a client changes what every client of the process gives
    script = f"""
import json
from databroker.v1 import Broker
from tiled.client import from_uri
from tiled.queries import Key
catalog = from_uri({address.uri!r}, api_key={address.api_key!r})
v3 = catalog[{uid!r}]["primary"]["gauss"].read()
header = Broker(catalog)[{uid!r}]
table = header.table()["gauss"]
events = [doc["data"]["gauss"] for name, doc in header.documents() if name == "event"]
v2 = catalog.v2[{uid!r}]["primary"]["data"]["gauss"].read()
print(json.dumps([list(map(float, values)) for values in (v3, table, events, v2)]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    expected = column(documents, "gauss")
    assert json.loads(done.stdout.splitlines()[-1]) == [expected] * 4


def test_frames_are_read_from_the_detectors_own_file(
    run_engine: RunEngine,
    writer: TiledWriter,
    catalog: Any,
    blob: SimBlobDetector,
    emitted: list[FileReady],
    served: Settings,
) -> None:
    uid, documents = run(run_engine, bp.count([blob], 3), writer)
    assert writer.wait()
    resources = {doc["data_key"]: doc for name, doc in documents if name == "stream_resource"}
    path = Path(resources["blob"]["uri"].partition("localhost")[2])
    with h5py.File(path) as file:
        frames = file[resources["blob"]["parameters"]["dataset"]][:]
    read = np.asarray(catalog[uid]["primary"]["blob"].read())
    assert read.shape == (3, 1, *frames.shape[1:])  # points, frames a point, y, x
    assert (read[:, 0] == frames).all()
    assert catalog[uid]["primary"]["blob-sum"].read().shape == (3,)
    assert emitted[-1].shapes["primary/blob"] == list(read.shape)


def test_an_aborted_run_keeps_its_points_and_its_reason(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, motor: SynAxis, gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        for position in (1.0, 2.0, 3.0):
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([motor, gauss])
        yield from bps.checkpoint()
        yield from bps.pause()

    documents: Documents = []
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan(), [lambda name, doc: documents.append((name, doc)), writer])
    run_engine.abort("enough")
    assert writer.wait()
    stored = catalog[documents[0][1]["uid"]]
    assert stored["primary"]["motor"].read().tolist() == [1.0, 2.0, 3.0]
    assert stored.metadata["stop"]["exit_status"] == "abort"
    assert stored.metadata["stop"]["reason"] == "enough"


def test_points_are_there_while_the_run_goes_on(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, motor: SynAxis, gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([motor, gauss])
        yield from bps.checkpoint()
        yield from bps.pause()
        yield from bps.close_run()

    documents: Documents = []
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan(), [lambda name, doc: documents.append((name, doc)), writer])
    uid = documents[0][1]["uid"]
    until(lambda: rows(catalog, uid) == 1)
    assert "stop" not in catalog[uid].metadata
    run_engine.resume()
    assert writer.wait()
    assert catalog[uid].metadata["stop"]["num_events"] == {"primary": 1}


def test_waveforms_baseline_and_monitors_are_stored_in_their_streams(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, motor: SynAxis, gauss: SynGauss
) -> None:
    wave = Signal(name="wave", value=np.linspace(0, 1, 7))
    watched = Signal(name="watched", value=1.5)

    @bpp.baseline_decorator([motor])
    @bpp.monitor_during_decorator([watched])
    @bpp.run_decorator()
    def plan() -> Any:
        for position in (-1, 0, 1):
            yield from bps.mv(motor, position, watched, position + 0.5)
            yield from bps.trigger_and_read([motor, gauss, wave])

    uid, documents = run(run_engine, plan(), writer)
    assert writer.wait()
    stored = catalog[uid]
    assert set(stored) == {"primary", "baseline", "watched_monitor"}
    assert np.array_equal(stored["primary"]["wave"].read(), [np.linspace(0, 1, 7)] * 3)
    assert len(stored["baseline"]["motor"].read()) == 2
    assert stored["watched_monitor"]["watched"].read().tolist() == column(documents, "watched")
    assert stored["watched_monitor"]["watched"].read().tolist()[-3:] == [-0.5, 0.5, 1.5]
    assert column(documents, "gauss") == stored["primary"]["gauss"].read().tolist()


def test_a_stop_announces_the_run_by_its_address(
    run_engine: RunEngine, writer: TiledWriter, emitted: list[FileReady], address: CatalogAddress, gauss: SynGauss
) -> None:
    uid, _ = run(run_engine, bp.count([gauss], 4), writer)
    assert writer.wait()
    (ready,) = emitted
    assert (ready.run_uid, ready.writer, ready.kind, ready.shapes) == (uid, "tiled", "catalogue", {"primary": [4]})
    with opened(CatalogAddress(ready.path, address.api_key)) as stored:
        assert stored.metadata["start"]["uid"] == uid


def test_a_complete_run_that_is_fed_again_leaves_no_row_twice(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, address: CatalogAddress, gauss: SynGauss
) -> None:
    uid, documents = run(run_engine, bp.count([gauss], 4), writer)
    assert writer.wait()
    again = TiledWriter(address.uri, address.api_key)
    assert again.holds(uid)
    for _ in range(2):
        for name, doc in documents:
            again(name, doc)
    assert again.wait()
    again.close()
    assert catalog[uid]["primary"]["seq_num"].read().tolist() == [1, 2, 3, 4]


def test_a_run_that_broke_off_is_written_again_from_its_start(
    run_engine: RunEngine, catalog: Any, address: CatalogAddress, gauss: SynGauss
) -> None:
    uid, documents = run(run_engine, bp.count([gauss], 6))
    first = TiledWriter(address.uri, address.api_key)
    for name, doc in documents[:5]:
        first(name, doc)
    first.close()
    assert catalog[uid]["primary"]["seq_num"].read().tolist() == [1, 2, 3]
    second = TiledWriter(address.uri, address.api_key)
    assert not second.holds(uid)
    for name, doc in documents:
        second(name, doc)
    assert second.wait()
    assert second.is_stored(uid)
    second.close()
    assert catalog[uid]["primary"]["seq_num"].read().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_script_that_ends_at_once_leaves_its_run_complete(catalog: Any, address: CatalogAddress) -> None:
    script = f"""
from bec_bluesky import plugins, settings
plugins.mount(settings.load())
from bluesky import RunEngine, plans
from ophyd.sim import det
from writers.tiled import TiledWriter
RE = RunEngine()
RE.subscribe(TiledWriter({address.uri!r}, {address.api_key!r}))
print(*RE(plans.count([det], 3)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    stored = catalog[done.stdout.split()[-1]]
    assert stored.metadata["stop"]["exit_status"] == "success"
    assert len(stored["primary"]["det"].read()) == 3


def test_values_that_do_not_fit_the_first_ones_are_kept(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any
) -> None:
    whole = Signal(name="whole", value=1)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([whole])
        yield from bps.checkpoint()
        yield from bps.pause()
        for value in (2, 2.5):
            yield from bps.mv(whole, value)
            yield from bps.trigger_and_read([whole])
        yield from bps.close_run()

    documents: Documents = []
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan(), [lambda name, doc: documents.append((name, doc)), writer])
    uid = documents[0][1]["uid"]
    until(lambda: rows(catalog, uid) == 1)
    run_engine.resume()
    assert writer.wait()
    assert catalog[uid]["primary"]["whole"].read().tolist() == [1, 2, 2.5]


def test_names_that_sql_refuses_are_stored_under_others(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any
) -> None:
    names = ["Det", "det", "it's", "f(x)", "1st", "x" * 100, "two words", "select", "ts_det"]
    uid, _ = run(run_engine, bp.count([Signal(name=name, value=float(n)) for n, name in enumerate(names)], 2), writer)
    assert writer.wait()
    primary = catalog[uid]["primary"]
    keys = primary.metadata["data_keys"]
    stored = {of.get("data_key", key): key for key, of in keys.items()}
    assert stored.keys() == set(names)
    table = primary.read()
    assert {name: table[stored[name]].values.tolist() for name in names} == {
        name: [float(n)] * 2 for n, name in enumerate(names)
    }
    found = Run(catalog[uid])
    assert set(found.columns()) == set(names)
    table = found.table(columns=names[:4]).drop(columns="time")
    assert table.to_dict("list") == {name: [float(n)] * 2 for n, name in enumerate(names[:4])}
    assert set(found.xarray().data_vars) - {"seq_num"} == set(names)


def test_a_run_that_the_server_never_takes_is_given_up(
    run_engine: RunEngine, address: CatalogAddress, monkeypatch: pytest.MonkeyPatch, gauss: SynGauss
) -> None:
    monkeypatch.setattr("writers.tiled._ATTEMPTS", 2)
    writer = TiledWriter(address.uri, address.api_key)
    _, documents = run(run_engine, bp.count([gauss], 2))
    documents[1][1]["data_keys"]["gauss"] = {"dtype": "array", "shape": ["no shape"], "source": ""}
    for name, doc in documents:
        writer(name, doc)
    assert not writer.wait()
    with pytest.raises(RunNotTakenError, match="did not take the run in 2 attempts"):
        writer.is_stored(documents[0][1]["uid"])
    writer.close()


@pytest.mark.parametrize("uid", ["{other}/primary", "x/../{other}", "..", ""])
def test_a_run_whose_uid_would_address_another_one_is_refused(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, gauss: SynGauss, uid: str
) -> None:
    other, _ = run(run_engine, bp.count([gauss], 2), writer)
    assert writer.wait()
    _, documents = run(run_engine, bp.count([gauss], 2))
    start = {**documents[0][1], "uid": uid.format(other=other)}
    with pytest.raises(RunNotTakenError, match="cannot be the key of a run in the catalogue"):
        writer("start", start)
    assert not writer.holds(start["uid"])
    assert len(catalog[other]["primary"]["gauss"].read()) == 2


def test_a_run_taken_while_the_server_is_absent_is_written_when_it_comes(
    run_engine: RunEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, motor: SynAxis, gauss: SynGauss
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert find_catalog() is None
    writer = TiledWriter()
    uid, documents = run(run_engine, bp.scan([gauss], motor, -1, 1, 11), writer)
    assert not writer.is_stored(uid)
    with running_api(settings):
        assert writer.wait()
        with opened(find_catalog(settings)) as catalog:
            assert catalog[uid]["primary"]["gauss"].read().tolist() == column(documents, "gauss")
    writer.close()


def test_a_server_that_is_killed_in_mid_run_costs_no_row_and_doubles_none(
    run_engine: RunEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, motor: SynAxis, gauss: SynGauss
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    _, documents = run(run_engine, bp.scan([gauss], motor, -1, 1, 30))
    uid = documents[0][1]["uid"]
    made = list(points(documents))
    writer = TiledWriter(flush_every=0.02)
    with running_api(settings):
        for name, doc in documents[:12]:
            writer(name, doc)
        for point in made[:10]:
            writer.take_point(point)
        with opened(find_catalog(settings)) as catalog:
            until(lambda: rows(catalog, uid) == 10)
        os.kill(json.loads((settings.data_dir / "api.json").read_text())["pid"], signal.SIGKILL)
    for name, doc in documents[12:20]:
        writer(name, doc)
    with running_api(settings):
        for point in made[10:]:
            writer.take_point(point)
        for name, doc in documents[20:]:
            writer(name, doc)
        assert writer.wait()
        with opened(find_catalog(settings)) as catalog:
            stored = catalog[uid]["primary"]
            assert stored["seq_num"].read().tolist() == list(range(1, 31))
            assert Run(catalog[uid]).points["gauss"].tolist() == column(documents, "gauss")
            assert stored["gauss"].read().tolist() == column(documents, "gauss")
    writer.close()


def test_what_analyses_find_is_stored_with_the_run(
    run_engine: RunEngine, catalog: Any, address: CatalogAddress, motor: SynAxis, gauss: SynGauss
) -> None:
    _, documents = run(run_engine, bp.scan([gauss], motor, -1, 1, 4))
    uid = documents[0][1]["uid"]
    early, last = (
        AnalysisResult(
            run_uid=uid,
            scan_id=1,
            analysis="peaks",
            x="motor",
            y="gauss",
            values={"center": center},
            points=points,
            final=points == 4,
        )
        for center, points in ((0.5, 3), (0.25, 4))
    )
    for _ in range(2):  # the second time from the start, as after a writer that was killed
        writer = TiledWriter(address.uri, address.api_key, flush_every=0.02, wait_for_results=10.0)
        writer.tick()  # hosted: there may be results
        for name, doc in documents[:4]:
            writer(name, doc)
        writer.take_result(early)
        until(lambda: results(catalog, uid) == [early])
        writer.close()
    writer = TiledWriter(address.uri, address.api_key, wait_for_results=10.0)
    writer.tick()
    for name, doc in documents:
        writer(name, doc)
    writer.take_result(early)
    writer.take_result(last)
    writer.take_result(early)
    assert writer.wait()
    writer.close()
    stored = catalog[uid]
    assert Run(stored).results == [last]
    assert stored.metadata["stop"]["exit_status"] == "success"
    assert list(stored) == ["primary"]
    assert [name for name, _ in stored.documents()] == [name for name, _ in documents]


def test_runs_that_wait_for_results_are_in_the_catalogue_in_their_order(
    run_engine: RunEngine, catalog: Any, address: CatalogAddress, gauss: SynGauss
) -> None:
    documents: Documents = []
    for _ in range(2):
        documents += run(run_engine, bp.count([gauss], 2))[1]
    writer = TiledWriter(address.uri, address.api_key, wait_for_results=0.5)
    writer.tick()
    for name, doc in documents[:-1]:  # the first one has ended and waits, the second goes on
        writer(name, doc)
    uids = [doc["uid"] for name, doc in documents if name == "start"]
    until(lambda: "stop" in catalog[uids[0]].metadata if uids[0] in catalog else False)
    writer(*documents[-1])
    assert writer.wait()
    writer.close()
    assert list(catalog)[-2:] == uids


def test_runs_are_listed_by_when_they_began(run_engine: RunEngine, writer: TiledWriter, catalog: Any) -> None:
    ran = [run(run_engine, bp.count([], num=1)) for _ in range(3)]
    uids = [uid for uid, _ in ran]
    for _, documents in (ran[1], ran[2], ran[0]):  # as when the first one had to be written again
        for name, doc in documents:
            writer(name, doc)
        assert writer.wait()
    runs = Runs(catalog.search(Key("start.time") >= ran[0][1][0][1]["time"]))
    assert [each.uid for each in runs] == uids[::-1]
    assert [runs[-1].uid, runs[-3].uid] == [uids[2], uids[0]]


def results(catalog: Any, uid: str) -> list[AnalysisResult]:
    try:
        return Run(catalog[uid]).results
    except KeyError:
        return []


def rows(catalog: Any, uid: str) -> int:
    try:
        return len(catalog[uid]["primary"]["seq_num"].read())
    except KeyError:
        return 0


def until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)


def test_a_run_closed_without_its_lost_documents_is_written_again_when_they_come(
    run_engine: RunEngine, writer: TiledWriter, catalog: Any, gauss: SynGauss
) -> None:
    uid, documents = run(run_engine, bp.count([gauss], 3))
    for name, doc in documents[:4]:
        writer(name, doc)
    writer.close_lost(uid)
    assert writer.wait()
    assert catalog[uid].metadata["stop"]["exit_status"] == "fail"
    assert catalog[uid].metadata["stop"]["reason"] == LOST
    assert rows(catalog, uid) == 2
    assert not writer.holds(uid)
    for name, doc in documents:
        writer(name, doc)
    assert writer.wait()
    assert writer.holds(uid)
    assert catalog[uid].metadata["stop"]["exit_status"] == "success"
    assert rows(catalog, uid) == 3
    (again,) = writer.announcements(uid)
    assert (again.run_uid, again.scan_id, again.kind) == (uid, documents[0][1]["scan_id"], "catalogue")
