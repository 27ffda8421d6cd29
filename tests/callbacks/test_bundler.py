import json
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import Msg, RunEngineInterrupted
from event_model import pack_event_page
from ophyd import Signal
from ophyd.sim import MockFlyer, SynAxis, SynGauss
from ophyd_async.core import TriggerInfo
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import Document, Point, RunProblem
from callbacks.bundler import ScanBundler, points
from tests.callbacks.composed import FRAME, NUMBER, Documents, Run, live


def run(engine: RunEngine, plan: Any) -> tuple[list[Point], Documents]:
    """Run a plan with the bundler on a bare RunEngine; its points, and the documents for a second opinion."""
    made: list[Any] = []
    documents: Documents = []
    engine(plan, [ScanBundler(emit=made.append), lambda name, doc: documents.append((name, doc))])
    return made, documents


def stored(documents: Documents) -> Documents:
    """What is left of documents that were kept as JSON."""
    return json.loads(json.dumps([[name, doc] for name, doc in documents], default=np.ndarray.tolist))


def test_a_line_scan_gives_a_point_for_each_event(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> None:
    made, documents = run(run_engine, bp.scan([gauss], motor, -1, 1, 5))
    start, events = documents[0][1], [doc for name, doc in documents if name == "event"]
    assert [point.index for point in made] == [1, 2, 3, 4, 5]
    assert [point.data["motor"] for point in made] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert [(point.data, point.timestamps, point.time) for point in made] == [
        (event["data"], event["timestamps"], event["time"]) for event in events
    ]
    for point in made:
        assert (point.run_uid, point.scan_id, point.stream) == (start["uid"], start["scan_id"], "primary")
        assert (point.positions, point.signals) == (["motor"], ["gauss"])
        assert (point.revision, point.missing, point.frames) == (0, [], {})


def test_a_grid_scan_has_its_axes_slowest_first(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> None:
    slow = SynAxis(name="slow")
    made, _ = run(run_engine, bp.grid_scan([gauss], slow, 0, 1, 2, motor, 0, 1, 3))
    assert [point.index for point in made] == [1, 2, 3, 4, 5, 6]
    assert made[0].positions == ["slow", "motor"]
    assert made[0].signals == ["gauss"]


def test_a_count_has_no_axes(run_engine: RunEngine, gauss: SynGauss) -> None:
    made, _ = run(run_engine, bp.count([gauss], 3))
    assert [(point.index, point.positions, point.signals) for point in made] == [
        (index, [], ["gauss"]) for index in (1, 2, 3)
    ]


def test_baseline_is_no_point_and_not_joined(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> None:
    table = SynAxis(name="table")
    made, documents = run(run_engine, bpp.baseline_wrapper(bp.scan([gauss], motor, 0, 1, 2), [table]))
    assert [doc["name"] for name, doc in documents if name == "descriptor"] == ["baseline", "primary"]
    assert [point.index for point in made] == [1, 2]
    assert all("table" not in point.data for point in made)


def test_a_monitored_signal_comes_with_the_points_by_time(
    run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    current = Signal(name="current", value=0.0)

    def step(detectors: Any, step: Any, pos_cache: Any) -> Iterator[Msg]:
        yield from bps.abs_set(current, 100 + next(iter(step.values())), wait=True)
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bpp.monitor_during_wrapper(bp.scan([gauss], motor, 1, 3, 3, per_step=step), [current])
    made, documents = run(run_engine, plan)
    assert [point.data["current"] for point in made] == [101, 102, 103]
    updates = [doc["timestamps"]["current"] for name, doc in documents if name == "event" and "current" in doc["data"]]
    assert [point.timestamps["current"] for point in made] == updates
    assert "current" not in made[0].signals
    assert list(points(stored(documents))) == made


def test_a_point_taken_again_after_a_rewind_is_a_revision_with_its_own_frame(
    run_engine: RunEngine, motor: SynAxis, blob: SimBlobDetector
) -> None:
    @bpp.stage_decorator([blob])
    @bpp.run_decorator(md={"motors": ["motor"]})
    def plan() -> Iterator[Msg]:
        for position in (1, 2, 3):
            yield from bps.checkpoint()
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([blob, motor])
            if position == 2:
                yield from bps.pause()

    made: list[Any] = []
    documents: Documents = []
    run_engine.subscribe(ScanBundler(emit=made.append))
    run_engine.subscribe(lambda name, doc: documents.append((name, doc)))
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    run_engine.resume()
    assert [(point.index, point.revision, point.frames["blob"], point.data["motor"]) for point in made] == [
        (1, 0, (0, 1), 1),
        (2, 0, (1, 2), 2),
        (2, 1, (2, 3), 2),
        (3, 0, (3, 4), 3),
    ]
    assert list(points(stored(documents))) == made


def test_frames_of_a_step_scan_are_those_in_the_detectors_file(
    run_engine: RunEngine, motor: SynAxis, blob: SimBlobDetector
) -> None:
    made, documents = run(run_engine, bp.scan([blob], motor, 0, 2, 3))
    assert [point.frames for point in made] == [{"blob": (n, n + 1), "blob-sum": (n, n + 1)} for n in range(3)]
    assert made[0].signals == ["blob"]
    uri = next(doc["uri"] for name, doc in documents if name == "stream_resource")
    with h5py.File(uri.removeprefix("file://localhost"), "r") as file:
        assert len(file["/entry/data/data"]) == made[-1].frames["blob"][1]
    assert list(points(stored(documents))) == made


def fly(blob: SimBlobDetector, frames: int) -> Iterator[Msg]:
    yield from bps.open_run()
    yield from bps.stage(blob, wait=True)
    yield from bps.prepare(blob, TriggerInfo(number_of_events=frames, livetime=0.01, deadtime=0.001), wait=True)
    yield from bps.declare_stream(blob, name="flight")
    yield from bps.kickoff(blob, wait=True)
    yield from bps.complete(blob, wait=False, group="flight")
    yield from bps.collect_while_completing([blob], [blob], flush_period=0.02, stream_name="flight")
    yield from bps.unstage(blob, wait=True)
    yield from bps.close_run()


def test_a_fly_scan_gives_a_point_for_each_frame(run_engine: RunEngine, blob: SimBlobDetector) -> None:
    made, documents = run(run_engine, fly(blob, 5))
    assert "event" not in [name for name, _ in documents]
    assert [point.index for point in made] == [1, 2, 3, 4, 5]
    assert [point.frames for point in made] == [{"blob": (n, n + 1), "blob-sum": (n, n + 1)} for n in range(5)]
    assert all((point.stream, point.data, point.missing) == ("flight", {}, []) for point in made)
    descriptor = next(doc for name, doc in documents if name == "descriptor")
    assert {point.time for point in made} == {descriptor["time"]}
    assert list(points(stored(documents))) == made


def test_event_pages_of_a_flyer_give_a_point_for_each_row(
    run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    made, documents = run(run_engine, bp.fly([MockFlyer("flyer", gauss, motor, -1, 1, 5)]))
    assert "event_page" in [name for name, _ in documents]
    assert [point.index for point in made] == [1, 2, 3, 4, 5]
    assert [point.data["motor"] for point in made] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert list(points(stored(documents))) == made


# ── composed documents: what devices do rarely ────────────────────────────────────────────────────


def test_nan_and_infinity_are_values_like_others() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER, y=NUMBER)
    run.event(stream, 1, 1_001.0, x=math.nan, y=math.inf)
    (point,) = live(run.stop())
    assert math.isnan(point.data["x"])
    assert point.data["y"] == math.inf


def test_units_come_with_the_first_point_only() -> None:
    run = Run()
    current = run.stream("ring_monitor", ring={**NUMBER, "units": "mA"})
    stream = run.stream("primary", x={**NUMBER, "units": "mm"}, y=NUMBER)
    run.event(current, 1, 1_000.5, ring=400.0)
    run.event(stream, 1, 1_001.0, x=1.0, y=1.0)
    run.event(stream, 2, 1_002.0, x=1.0, y=1.0)
    assert [point.units for point in live(run.stop())] == [{"x": "mm", "ring": "mA"}, {}]


def test_large_arrays_stay_out_and_small_ones_travel() -> None:
    run = Run()
    array = {"dtype": "array", "shape": [2000], "source": "test"}
    stream = run.stream("primary", small=array, large=array, nested=array)
    small = np.arange(1_000.0)
    run.event(stream, 1, 1_001.0, small=small, large=np.arange(1_001.0), nested=[[1.0] * 500] * 3)
    (point,) = live(run.stop())
    assert list(point.data) == ["small"]
    np.testing.assert_array_equal(point.data["small"], small)
    assert set(point.timestamps) == {"small", "large", "nested"}


def test_a_monitor_is_joined_by_its_own_timestamp_not_by_arrival() -> None:
    run = Run()
    monitor = run.stream("beam_monitor", beam=NUMBER)
    stream = run.stream("primary", x=NUMBER)
    run.event(stream, 1, 1_000.5, x=0.0)  # nothing known yet
    run.event(monitor, 1, 1_005.0, 1_001.0, beam=1.0)
    run.event(monitor, 2, 1_005.0, 1_003.0, beam=3.0)
    run.event(monitor, 3, 1_005.0, 1_002.0, beam=2.0)  # updates out of order
    for seq_num, time in enumerate((1_001.0, 1_001.9, 1_002.5, 1_002.999, 1_004.0), 2):
        run.event(stream, seq_num, time, x=1.0)
    made = live(run.stop())
    assert [point.data.get("beam") for point in made] == [None, 1.0, 1.0, 2.0, 2.0, 3.0]
    assert [point.timestamps.get("beam") for point in made[1:]] == [1_001.0, 1_001.0, 1_002.0, 1_002.0, 1_003.0]


def test_a_points_own_reading_is_not_replaced_by_a_monitor() -> None:
    run = Run()
    monitor = run.stream("x_monitor", x=NUMBER)
    stream = run.stream("primary", x=NUMBER)
    run.event(monitor, 1, 1_000.5, x=99.0)
    run.event(stream, 1, 1_001.0, x=1.0)
    assert live(run.stop())[0].data == {"x": 1.0}


def test_an_event_that_comes_twice_counts_once_and_a_repeat_is_a_revision() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    for seq_num, x in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 2.1), (3, 3.1), (2, 2.2), (5, 5.0), (4, 4.0)):
        run.event(stream, seq_num, 1_001.0, x=x)
    run.documents.append(run.documents[-1])
    made = live(run.stop())
    (problem,) = [product for product in made if isinstance(product, RunProblem)]
    assert problem.text == "primary: event 4 came twice"
    points = [product for product in made if isinstance(product, Point)]
    assert [(point.index, point.revision, point.data["x"]) for point in points] == [
        (1, 0, 1.0),
        (2, 0, 2.0),
        (3, 0, 3.0),
        (2, 1, 2.1),
        (3, 1, 3.1),
        (2, 2, 2.2),
        (5, 0, 5.0),
        (4, 0, 4.0),
    ]


def test_a_rewind_over_ten_thousand_points_still_raises_the_revision() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    for seq_num in [*range(1, 10_001), 1, 2, 1]:
        run.event(stream, seq_num, 1_001.0, x=0.0)
    last = live(run.stop())[-3:]
    assert [point.index for point in last] == [1, 2, 1]
    assert last[0].revision >= 1
    assert last[1].revision >= 1
    assert last[2].revision > last[0].revision


def test_frames_announced_before_a_rewind_are_not_taken_for_the_repeated_points() -> None:
    run = Run()
    stream = run.stream("primary", a=FRAME, b=FRAME)
    a, b = run.resource("a"), run.resource("b")
    run.frames(stream, a, (1, 4), (0, 3))
    run.frames(stream, b, (1, 3), (0, 2))  # point 3 of b never comes: the RunEngine goes back to point 2
    run.frames(stream, a, (2, 5), (3, 6))
    run.frames(stream, b, (2, 5), (2, 5))
    made = live(run.stop())
    assert [(point.index, point.revision, point.frames) for point in made] == [
        (1, 0, {"a": (0, 1), "b": (0, 1)}),
        (2, 0, {"a": (1, 2), "b": (1, 2)}),
        (2, 1, {"a": (3, 4), "b": (2, 3)}),
        (3, 0, {"a": (4, 5), "b": (3, 4)}),
        (4, 0, {"a": (5, 6), "b": (4, 5)}),
    ]


def test_many_frames_for_one_point_are_given_as_a_range() -> None:
    run = Run()
    stream = run.stream("primary", a={**FRAME, "shape": [10, 4, 4]}, b=FRAME)
    a, b = run.resource("a"), run.resource("b", chunk_shape=(4, 4))
    run.frames(stream, a, (1, 3), (0, 2))
    run.frames(stream, b, (1, 3), (0, 8))
    assert [point.frames for point in live(run.stop())] == [{"a": (0, 10), "b": (0, 4)}, {"a": (10, 20), "b": (4, 8)}]


def test_frames_that_come_late_complete_the_point_they_belong_to() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER, a=FRAME)
    resource = run.resource("a")
    run.event(stream, 1, 1_001.0, x=1.0)
    run.event(stream, 2, 1_002.0, x=2.0)
    run.frames(stream, resource, (1, 3), (0, 2))
    made = live(run.stop())
    assert [(p.index, p.data, p.frames, p.missing, p.revision) for p in made] == [
        (1, {"x": 1.0}, {"a": (0, 1)}, [], 0),
        (2, {"x": 2.0}, {"a": (1, 2)}, [], 0),
    ]


def test_a_point_whose_frames_do_not_come_in_time_says_so_and_is_revised_when_they_do() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER, a=FRAME)
    resource = run.resource("a")
    run.event(stream, 1, 1_001.0, x=1.0)
    run.event(stream, 2, 1_012.0, x=2.0)
    run.frames(stream, resource, (1, 2), (0, 1))
    documents = run.stop()
    made = live(documents)
    assert [(p.index, p.revision, p.missing, p.frames) for p in made] == [
        (1, 0, ["a"], {}),
        (1, 1, [], {"a": (0, 1)}),
        (2, 0, ["a"], {}),
    ]
    assert list(points(documents)) == made


def test_no_more_points_wait_than_the_limit() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER, a=FRAME)
    for seq_num in range(1, 8):
        run.event(stream, seq_num, 1_001.0, x=0.0)
    made = live(run.documents, open_points=3)
    assert [product.index for product in made if isinstance(product, Point)] == [1, 2, 3, 4]
    (problem,) = [product for product in made if isinstance(product, RunProblem)]
    assert "more than 3 points wait" in problem.text


def test_fly_indices_that_one_detector_never_delivered_are_given_at_the_end() -> None:
    run = Run()
    stream = run.stream("primary", a=FRAME, b=FRAME)
    a, b = run.resource("a"), run.resource("b")
    run.frames(stream, a, (1, 4), (0, 3))
    run.frames(stream, b, (1, 2), (0, 1))
    assert [point.missing for point in live(run.documents)] == [[]]
    assert [(point.index, point.missing) for point in points(run.documents)] == [(1, []), (2, ["b"]), (3, ["b"])]
    assert [(point.index, point.missing) for point in live(run.stop())] == [(1, []), (2, ["b"]), (3, ["b"])]


def test_another_stream_is_the_main_one_only_until_primary_comes() -> None:
    run = Run()
    dark = run.stream("dark", x=NUMBER)
    run.event(dark, 1, 1_001.0, x=0.0)
    stream = run.stream("primary", x=NUMBER)
    run.event(stream, 1, 1_002.0, x=1.0)
    run.event(dark, 2, 1_003.0, x=0.0)
    assert [(point.stream, point.index, point.revision) for point in live(run.stop())] == [
        ("dark", 1, 0),
        ("primary", 1, 0),
    ]


def test_the_stream_named_by_the_dimensions_or_the_settings_is_the_main_one() -> None:
    run = Run(hints={"dimensions": [[["x"], "flight"]]})
    for name in ("primary", "flight"):
        run.event(run.stream(name, x=NUMBER), 1, 1_001.0, x=0.0)
    documents = run.stop()
    assert [(point.stream, point.positions) for point in live(documents)] == [("flight", ["x"])]
    assert [point.stream for point in live(documents, stream="primary")] == ["primary"]
    assert [point.stream for point in points(documents, stream="primary")] == ["primary"]


def test_interleaved_runs_do_not_mix() -> None:
    runs = [Run(), Run()]
    streams = [run.stream("primary", x=NUMBER) for run in runs]
    for seq_num in (1, 2):
        for number, (run, stream) in enumerate(zip(runs, streams, strict=True)):
            run.event(stream, seq_num, 1_001.0, x=float(number))
    mixed = [pair for pairs in zip(*(run.stop() for run in runs), strict=True) for pair in pairs]
    made = live(mixed)
    assert [(point.run_uid, point.index, point.data["x"]) for point in made] == [
        (run.bundle.start_doc["uid"], seq_num, float(number)) for seq_num in (1, 2) for number, run in enumerate(runs)
    ]


def test_a_page_gives_the_same_points_as_its_events() -> None:
    run = Run()
    monitor = run.stream("beam_monitor", beam=NUMBER)
    stream = run.stream("primary", x=NUMBER)
    run.event(monitor, 1, 1_001.5, beam=1.0)
    for seq_num in (1, 2, 3):
        run.event(stream, seq_num, 1_000.0 + seq_num, x=float(seq_num))
    documents = run.stop()
    rows = [doc for name, doc in documents if name == "event" and "x" in doc["data"]]
    paged = [pair for pair in documents if pair[1] not in rows]
    paged.insert(-1, ("event_page", pack_event_page(*rows)))
    made = live(paged)
    assert made == live(documents)
    assert [point.data.get("beam") for point in made] == [None, 1.0, 1.0]


@pytest.mark.parametrize("setting", [{"open_points": 0}, {"history": 0}, {"wait": -1.0}])
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        ScanBundler(**setting)


def test_memory_does_not_grow_with_the_run() -> None:
    run = Run()
    monitor = run.stream("beam_monitor", beam=NUMBER)
    stream = run.stream("primary", x=NUMBER, a=FRAME)
    resource = run.resource("a")
    count = 0

    def emit(_: object) -> None:
        nonlocal count
        count += 1

    bundler = ScanBundler(emit=emit, history=500)
    for name, doc in run.documents:
        bundler(name, doc)

    def take(first: int, last: int) -> int:
        for n in range(first, last):
            for number, key, of in ((n, "beam", monitor), (n, "x", stream)):
                if of is stream:
                    bundler("stream_datum", {**datum, "indices": {"start": n - 1, "stop": n}} | seq_nums(n))
                event = {"descriptor": of.descriptor_doc["uid"], "uid": f"{key}{n}", "seq_num": number, "time": 1e3 + n}
                bundler("event", {**event, "data": {key: float(n)}, "timestamps": {key: 1e3 + n}})
        return tracemalloc.get_traced_memory()[0]

    def seq_nums(n: int) -> Document:
        return {"seq_nums": {"start": n, "stop": n + 1}}

    datum = {"descriptor": stream.descriptor_doc["uid"], "stream_resource": resource.stream_resource_doc["uid"]}
    tracemalloc.start()
    try:
        before = take(1, 5_001)
        after = take(5_001, 10_001)
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert after - before < 100_000  # bytes; 5,000 points of a run would be megabytes


def test_very_many_frames_announced_at_once_are_not_held_at_once() -> None:
    run = Run()
    stream = run.stream("primary", a=FRAME, b=FRAME)
    for key in ("a", "b"):
        run.frames(stream, run.resource(key), (1, 30_001), (0, 30_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in points(run.stop()))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30_000
    assert most < 3_000_000  # bytes; all of them at once would be tens of millions
