"""Scan points in the catalogue: a stream of their run, as complete as on Redis, that no document tells of."""

from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.bus import Bus
from bec_bluesky.channels import POINTS, STORED
from bec_bluesky.documents import CatalogAddress, Point, Run, RunProblem, open_catalog
from bec_bluesky.errors import RefusedError
from bec_bluesky.settings import Settings
from callbacks.bundler import ScanBundler, points
from tests.documents.feed_harness import feeding, publish, run_documents
from tests.documents.feed_harness import until as until_async
from tests.live_system import until
from writers.tiled import TiledWriter

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def catalog(served: Settings, address: CatalogAddress) -> Iterator[Any]:
    catalog = open_catalog(served, address)
    yield catalog
    catalog.context.http_client.close()


def hosted(address: CatalogAddress, problems: list[RunProblem] | None = None, **options: Any) -> TiledWriter:
    """Make a writer that knows that points may come."""

    def take(product: Any) -> None:
        if problems is not None and isinstance(product, RunProblem):
            problems.append(product)

    writer = TiledWriter(address.uri, address.api_key, flush_every=0.02, emit=take, **options)
    writer.tick()
    return writer


def documents_of(engine: RunEngine, plan: Any) -> Documents:
    documents: Documents = []
    engine(plan, lambda name, doc: documents.append((name, doc)))
    return documents


@pytest.fixture
def scan(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss, blob: SimBlobDetector) -> Documents:
    """A scan with frames, a waveform, a baseline and a monitor, whose axis has a name that SQL refuses."""
    watched = Signal(name="watched", value=1.5)
    wave = Signal(name="it's a wave", value=np.linspace(0, 1, 7))

    @bpp.stage_decorator([blob])
    @bpp.baseline_decorator([gauss])
    @bpp.monitor_during_decorator([watched])
    @bpp.run_decorator(md={"motors": ["motor"], "scan_id": 5})
    def plan() -> Any:
        for position in range(12):
            yield from bps.mv(motor, position, watched, position + 0.5)
            yield from bps.trigger_and_read([motor, gauss, blob, wave])

    return documents_of(run_engine, plan())


def counted(number: int) -> Documents:
    """Give the documents of a run of so many events."""
    documents = run_documents(number)
    for name, doc in documents:
        if name == "stop":
            doc["num_events"] = {"primary": number}
    return documents


def point(documents: Documents, index: int, **facts: Any) -> Point:
    given = {"stream": "primary", "time": 100.0 + index, "data": {"det": float(index)}, "timestamps": {"det": 1.0}}
    return Point(run_uid=documents[0][1]["uid"], scan_id=7, index=index, **given | facts)


def assert_same(run: Run, expected: list[Point]) -> None:
    """The catalogue has the newest revision of each point, whole, and nothing else."""
    newest = {each.index: each for each in expected}
    table = run.points
    assert table.index.tolist() == sorted(newest)
    arrays = {key for each in newest.values() for key, value in each.data.items() if isinstance(value, np.ndarray)}
    data = run.xarray("points", [*(set(table.columns) - {"time"}), *arrays])
    for row, index in enumerate(table.index):
        of = newest[index]
        assert table["time"][index] == of.time
        assert table["point_revision"][index] == of.revision
        assert table["point_missing"][index] == ("" if not of.missing else str(of.missing).replace("'", '"'))
        for key, value in of.data.items():
            assert np.array_equal(data[key].values[row], value), (key, index)
        for key, (first, stop) in of.frames.items():
            assert [table[f"{key}_frames_{which}"][index] for which in ("start", "stop")] == [first, stop]


async def test_points_in_the_catalogue_are_those_on_redis_and_those_of_the_documents(
    bus: Bus, catalog: Any, address: CatalogAddress, scan: Documents
) -> None:
    both = frozenset({"bundler", "tiled"})
    async with (
        feeding(bus, ScanBundler(), "bundler", required=both),
        feeding(bus, hosted(address), "tiled", required=both),
    ):
        uid = await publish(bus, scan)
        await until_async(lambda: bus.field(STORED, "tiled", run=uid), 60.0)
    on_redis = [message for _, message in await bus.read(POINTS, run=uid)]
    assert [each.index for each in on_redis] == list(range(1, 13))
    run = Run(catalog[uid])
    assert_same(run, on_redis)
    assert_same(run, list(points(scan)))
    assert run.points["watched"].tolist() == [position + 0.5 for position in range(12)]
    assert run.points["blob_frames_start"].tolist() == list(range(12))
    facts = catalog[uid]["points"].metadata["points"]
    assert (facts["stream"], facts["positions"], facts["joins"]) == ("primary", ["motor"], on_redis[0].joins)
    stamps = catalog[uid]["points"].read(["ts_watched", "ts_motor"])
    assert stamps["ts_watched"].values.tolist() == [each.timestamps["watched"] for each in on_redis]
    assert stamps["ts_motor"].values.tolist() == [each.timestamps["motor"] for each in on_redis]


async def test_the_documents_of_a_run_with_points_are_its_own(
    bus: Bus, catalog: Any, address: CatalogAddress, scan: Documents
) -> None:
    plain = TiledWriter(address.uri, address.api_key)
    for name, doc in scan:
        plain(name, doc)
    assert plain.wait()
    plain.close()
    uid = scan[0][1]["uid"]
    without, others = list(Run(catalog[uid]).documents()), list(catalog[uid].documents())
    catalog.delete_contents([uid], recursive=True, external_only=False)
    async with feeding(bus, ScanBundler(), "bundler"), feeding(bus, hosted(address), "tiled"):
        await publish(bus, scan)
        await until_async(lambda: bus.field(STORED, "tiled", run=uid), 60.0)
    run = Run(catalog[uid])
    assert len(run.points) == 12
    assert set(catalog[uid]) == {"baseline", "points", "primary", "watched_monitor"}
    assert run.streams == ["primary", "baseline", "watched_monitor"]
    assert [plainly(*each) for each in run.documents()] == [plainly(*each) for each in without]
    assert [plainly(*each) for each in catalog[uid].documents()] == [plainly(*each) for each in others]


def plainly(name: str, doc: Any) -> tuple[str, str]:
    return name, repr(dict(doc))


def test_a_point_that_is_published_again_is_stored_by_its_newest_revision(
    catalog: Any, address: CatalogAddress
) -> None:
    documents = counted(6)
    uid = documents[0][1]["uid"]
    writer = hosted(address)
    for name, doc in documents[:-1]:
        writer(name, doc)
    first = [point(documents, index) for index in (1, 2, 4)]
    first[1] = point(documents, 2, missing=["blob"], data={"det": 2.0, "more": 1})
    for each in first:
        writer.take_point(each)
    run = until_there(catalog, uid, 3)
    assert_same(run, first)
    again = [
        point(documents, 2, revision=1, frames={"blob": (1, 2)}, data={"det": 2.0, "more": 2}),
        point(documents, 3, data={"det": "none"}),
        point(documents, 6),
        point(documents, 4, revision=1, data={"det": 4.5}),
        point(documents, 5),
    ]
    for each in again:
        writer.take_point(each)
    writer(*documents[-1])
    assert writer.wait()
    writer.close()
    run = Run(catalog[uid])
    table = run.points
    assert run.table("points").index.tolist() == [1, 2, 3, 4, 5, 6]
    assert table["det"].tolist() == ["1.0", "2.0", "none", "4.5", "5.0", "6.0"]  # of mixed types: as text
    assert table["point_revision"].tolist() == [0, 1, 0, 1, 0, 0]
    assert table["point_missing"].tolist() == [""] * 6
    assert table["more"][2] == 2.0
    assert table["blob_frames_stop"][2] == 2.0
    assert run.table()["det"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def until_there(catalog: Any, uid: str, number: int) -> Run:
    def is_there() -> bool:
        try:
            return len(Run(catalog[uid]).points) == number
        except (KeyError, RefusedError):
            return False

    until(is_there, "the points did not come")
    return Run(catalog[uid])


def test_points_that_come_after_the_stop_document_are_awaited(
    catalog: Any, address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("writers._tiled_points._PATIENCE", 120.0)
    documents = counted(3)
    uid = documents[0][1]["uid"]
    problems: list[RunProblem] = []
    writer = hosted(address, problems, wait_for_results=0.0)
    for name, doc in documents[:-1]:
        writer(name, doc)
    writer.take_point(point(documents, 1))
    writer(*documents[-1])
    until_there(catalog, uid, 1)
    for index in (3, 2):
        assert not writer.holds(uid)
        writer.take_point(point(documents, index))
    assert writer.wait()
    writer.close()
    assert_same(Run(catalog[uid]), [point(documents, index) for index in (1, 2, 3)])
    assert problems == []


def test_a_first_point_is_awaited_until_a_run_had_none(
    catalog: Any, address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("writers._tiled_points._FIRST_PATIENCE", 600.0)
    runs = [counted(1) for _ in range(3)]
    uids = [documents[0][1]["uid"] for documents in runs]
    writer = hosted(address, wait_for_results=0.0)
    writer.owner = "here:tiled"
    for name, doc in runs[0]:
        writer(name, doc)
    until(lambda: uids[0] in catalog, "the run did not come")
    assert not writer.wait(1.0)
    writer.take_point(point(runs[0], 1))
    assert writer.wait(60.0)
    monkeypatch.setattr("writers._tiled_points._FIRST_PATIENCE", 0.0)
    for name, doc in runs[1]:
        writer(name, doc)
    assert writer.wait(60.0)
    monkeypatch.setattr("writers._tiled_points._FIRST_PATIENCE", 600.0)
    for name, doc in runs[2]:
        writer(name, doc)
    assert writer.wait(60.0)
    writer.close()
    assert [number_of_points(catalog, uid) for uid in uids] == [1, 0, 0]


def test_points_that_never_come_are_told(
    catalog: Any, address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("writers._tiled_points._PATIENCE", 0.1)
    documents = counted(5)
    problems: list[RunProblem] = []
    writer = hosted(address, problems)
    for index, (name, doc) in enumerate(documents):
        writer(name, doc)
        if index == 0:
            writer.take_point(point(documents, 2))
    assert writer.wait()
    writer.close()
    assert Run(catalog[documents[0][1]["uid"]]).points["det"].tolist() == [2.0]
    assert [each.text for each in problems] == ["4 of its points did not come in time, and are not in the catalogue"]


async def test_a_run_that_is_written_again_has_each_point_once(
    bus: Bus, catalog: Any, address: CatalogAddress, run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    documents = documents_of(run_engine, bp.scan([gauss], motor, -1, 1, 20))
    uid = documents[0][1]["uid"]
    async with feeding(bus, ScanBundler(), "bundler"):
        async with feeding(bus, hosted(address), "tiled"):
            await publish(bus, documents[:12])
            await until_async(lambda: number_of_points(catalog, uid) == 10, 60.0)
        assert "stop" not in catalog[uid].metadata
        async with feeding(bus, hosted(address), "tiled"):
            await publish(bus, documents[12:], first=13)
            await until_async(lambda: bus.field(STORED, "tiled", run=uid), 60.0)
    assert Run(catalog[uid]).table("points").index.tolist() == list(range(1, 21))
    assert_same(Run(catalog[uid]), list(points(documents)))


def number_of_points(catalog: Any, uid: str) -> int:
    try:
        return len(Run(catalog[uid]).points)
    except (KeyError, RefusedError):
        return 0


def test_a_run_with_a_stream_of_its_own_called_points_keeps_it(
    catalog: Any, address: CatalogAddress, run_engine: RunEngine, gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([gauss])
        yield from bps.trigger_and_read([gauss])
        yield from bps.trigger_and_read([Signal(name="own", value=3.0)], name="points")
        yield from bps.close_run()

    documents = documents_of(run_engine, plan())
    uid = documents[0][1]["uid"]
    writer = hosted(address)
    late = next(place for place, (name, doc) in enumerate(documents) if doc.get("name") == "points")
    for name, doc in documents[:late]:
        writer(name, doc)
    made = list(points(documents))
    writer.take_point(made[0])
    until_there(catalog, uid, 1)
    for name, doc in documents[late:]:
        writer(name, doc)
    writer.take_point(made[1])
    assert writer.wait()
    writer.close()
    run = Run(catalog[uid])
    assert run.streams == ["primary", "points"]
    assert run.table("points")["own"].tolist() == [3.0]
    assert len(run.points) == 2
    assert "points_2" in set(catalog[uid])
    assert [name for name, _ in run.documents()] == [
        "start",
        "descriptor",
        "event",
        "event",
        "descriptor",
        "event",
        "stop",
    ]


def test_points_that_the_server_does_not_take_cost_the_run_nothing_else(catalog: Any, address: CatalogAddress) -> None:
    documents = counted(2)
    problems: list[RunProblem] = []
    writer = hosted(address, problems)
    for name, doc in documents[:-1]:
        writer(name, doc)
    for index in (1, 2):  # Tiled's name for the table itself
        writer.take_point(point(documents, index, data={"internal": [1.0, 2.0], "det": 1.0}))
    writer(*documents[-1])
    assert writer.wait(60.0)
    writer.close()
    run = Run(catalog[documents[0][1]["uid"]])
    assert run.table()["det"].tolist() == [1.0, 2.0]
    assert run.exit_status == "success"
    assert set(run.client) == {"primary"}
    (problem,) = problems
    assert problem.text.startswith("its points are not in the catalogue: ")


def test_points_of_an_earlier_main_stream_give_way(catalog: Any, address: CatalogAddress) -> None:
    documents = counted(2)
    uid = documents[0][1]["uid"]
    writer = hosted(address)
    for name, doc in documents[:-1]:
        writer(name, doc)
    for index in (1, 2, 3):
        writer.take_point(point(documents, index, stream="dark", data={"dark": 1.0}))
    until_there(catalog, uid, 3)
    for index in (1, 2):
        writer.take_point(point(documents, index))
    writer(*documents[-1])
    assert writer.wait()
    writer.close()
    assert Run(catalog[uid]).points["det"].tolist() == [1.0, 2.0]


def test_a_run_without_points_says_how_they_are_made(
    catalog: Any, address: CatalogAddress, run_engine: RunEngine, gauss: SynGauss
) -> None:
    writer = TiledWriter(address.uri, address.api_key)
    documents: Documents = []
    run_engine(bp.count([gauss], 2), [lambda name, doc: documents.append((name, doc)), writer])
    assert writer.wait()
    writer.close()
    with pytest.raises(RefusedError, match="nobody bundled it"):
        _ = Run(catalog[documents[0][1]["uid"]]).points
