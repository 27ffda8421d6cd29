"""How signals and streams are joined to points, when they are awaited, and what comes late."""

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bec_bluesky.documents import Document, Point, RunProblem
from callbacks.bundler import ScanBundler, points
from tests.callbacks.composed import FRAME, NUMBER, Documents, Run, live


def with_updates(updates: list[tuple[float, Any]], times: list[float], *, late: bool = False, **metadata: Any) -> Run:
    """A run with points at `times` and updates of `beam`; in the order of time, or all updates after the points."""
    run = Run(**metadata)
    monitor = run.stream("beam_monitor", beam=NUMBER)
    stream = run.stream("primary", x=NUMBER)
    coming = [(time, 1, value) for time, value in updates] + [(time, 0, None) for time in times]
    counts = [0, 0]
    for time, is_update, value in sorted(coming, key=lambda each: (late and each[1], each[0], -each[1])):
        counts[is_update] += 1
        if is_update:
            run.event(monitor, counts[1], time, beam=value)
        else:
            run.event(stream, counts[0], time, x=1.0)
    return run


UPDATES = [(1_001.0, 10.0), (1_003.0, 30.0), (1_004.0, 20.0), (1_006.0, 60.0)]
TIMES = [1_002.0, 1_005.0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("last", [10.0, 20.0]),
        ("nearest", [10.0, 20.0]),
        ("linear", [20.0, 40.0]),
        ("mean", [10.0, 25.0]),
        ("min", [10.0, 20.0]),
        ("max", [10.0, 30.0]),
        ("count", [1, 2]),
        ("all", [[10.0], [30.0, 20.0]]),
        ("none", [None, None]),
    ],
)
def test_a_signal_is_joined_as_its_rule_says(how: str, expected: list[Any]) -> None:
    documents = with_updates(UPDATES, TIMES).stop()
    made = live(documents, joins={"beam": how})
    assert [point.data.get("beam") for point in made] == expected
    assert [point.missing for point in made] == [[], []]
    assert list(points(documents, joins={"beam": how})) == made


def test_a_rule_may_be_given_for_a_pattern_or_a_stream_and_by_the_plan() -> None:
    documents = with_updates(UPDATES, TIMES).stop()
    for joins in ({"be*": "max"}, {"beam_monitor": "max"}, {"be*": "min", "beam": "max"}):
        assert [point.data["beam"] for point in live(documents, joins=joins)] == [10.0, 30.0]
    asked = with_updates(UPDATES, TIMES, bundler={"joins": {"beam": "count"}}).stop()
    assert [point.data["beam"] for point in live(asked, joins={"beam": "max"})] == [1, 2]


def test_what_a_plan_asks_for_in_vain_is_told_and_the_profile_counts() -> None:
    documents = with_updates(UPDATES, TIMES, bundler={"joins": {"beam": "median"}}).stop()
    problem, *made = live(documents, joins={"beam": "max"})
    assert isinstance(problem, RunProblem)
    assert "median" in problem.text
    assert [point.data["beam"] for point in made] == [10.0, 30.0]


@pytest.mark.parametrize(
    "joins",
    [
        {"beam": "median"},
        {"beam": {"how": "last", "within": 3}},
        {"beam": {"tolerance": -1}},
        {"beam": {"clock": "ioc"}},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(joins: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'beam'"):
        ScanBundler(joins=joins)


def test_a_value_that_is_too_far_away_does_not_count() -> None:
    documents = with_updates([(1_001.0, 1.0), (1_009.0, 9.0)], [1_002.0, 1_005.0]).stop()
    last = live(documents, joins={"beam": {"how": "last", "tolerance": 2}})
    assert [point.data.get("beam") for point in last] == [1.0, None]
    linear = live(documents, joins={"beam": {"how": "linear", "tolerance": 5}})
    assert [point.data.get("beam") for point in linear] == [None, None]


def test_the_events_clock_counts_where_a_signals_own_is_wrong() -> None:
    run = Run()
    monitor = run.stream("beam_monitor", beam=NUMBER)
    stream = run.stream("primary", x=NUMBER)
    run.event(monitor, 1, 1_001.0, 5.0, beam=1.0)  # an IOC that believes it is 1970
    run.event(stream, 1, 1_002.0, x=0.0)
    run.event(monitor, 2, 1_003.0, 7.0, beam=2.0)
    documents = run.stop()
    (point,) = live(documents, joins={"beam": {"how": "nearest", "tolerance": 3, "clock": "event"}})
    assert (point.data["beam"], point.joins) == (1.0, {"beam": "nearest by the event's time, within 3 s"})
    (point,) = live(documents, joins={"beam": {"how": "last", "tolerance": 3}})
    assert "beam" not in point.data


def test_a_point_waits_for_the_update_after_it_and_no_longer_than_the_deadline() -> None:
    run = with_updates([(1_001.0, 1.0)], [1_002.0])
    assert live(run.documents, joins={"beam": "linear"}) == []
    run = with_updates([(1_001.0, 1.0)], [1_002.0, 1_020.0])
    (given_up,) = live(run.documents, joins={"beam": "linear"})
    assert (given_up.index, given_up.missing, given_up.revision) == (1, ["beam"], 0)


def test_what_comes_after_the_deadline_gives_a_revision() -> None:
    run = with_updates([(1_001.0, 1.0)], [1_002.0, 1_020.0])
    monitor = next(doc["uid"] for name, doc in run.documents if doc.get("name") == "beam_monitor")
    update = {"descriptor": monitor, "uid": "late", "seq_num": 2, "time": 1_021.0, "data": {"beam": 3.0}}
    run.documents.append(("event", update | {"timestamps": {"beam": 1_003.0}}))
    documents = run.stop()
    made = live(documents, joins={"beam": "linear"})
    assert [(point.index, point.revision, point.data.get("beam")) for point in made] == [
        (1, 0, None),
        (1, 1, 2.0),
        (2, 0, None),
    ]
    assert list(points(documents, joins={"beam": "linear"})) == made


def test_a_revision_comes_only_if_something_is_different() -> None:
    run = with_updates([(1_001.0, 1.0), (1_030.0, 5.0)], [1_002.0, 1_020.0])
    made = live(run.stop(), joins={"beam": "nearest"})
    assert [(point.index, point.revision, point.data["beam"]) for point in made] == [(1, 0, 1.0), (2, 0, 5.0)]


def test_words_are_joined_by_their_last_value_where_numbers_would_be_averaged() -> None:
    documents = with_updates([(1_001.0, "open"), (1_003.0, "shut")], [1_002.0, 1_004.0]).stop()
    assert [point.data["beam"] for point in live(documents, joins={"beam": "mean"})] == ["open", "shut"]


def test_arrays_are_interpolated_and_averaged_element_by_element() -> None:
    updates = [(1_001.0, [0.0, 10.0]), (1_003.0, [2.0, 30.0])]
    documents = with_updates(updates, [1_002.0, 1_003.5]).stop()
    (first, _) = live(documents, joins={"beam": "linear"})
    np.testing.assert_array_equal(first.data["beam"], [1.0, 20.0])
    (_, second) = live(documents, joins={"beam": "mean"})
    np.testing.assert_array_equal(second.data["beam"], [2.0, 30.0])


def test_more_updates_than_are_kept_are_still_counted_and_averaged() -> None:
    updates = [(1_000.0 + n / 1_000, float(n)) for n in range(5_000)]
    documents = with_updates(updates, [1_001.9995, 1_004.9995]).stop()
    for how, expected in {
        "count": [2_000, 3_000],
        "mean": [999.5, 3_499.5],
        "min": [0.0, 2_000.0],
        "max": [1_999.0, 4_999.0],
    }.items():
        made = live(documents, joins={"beam": how}, history=100)
        assert [point.data["beam"] for point in made] == expected, how


def test_rows_of_another_stream_are_joined_by_the_points_number() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    spectra = run.stream("spectra", counts=NUMBER)
    run.event(stream, 1, 1_001.0, x=1.0)
    run.event(spectra, 1, 1_001.1, counts=11.0)
    run.event(spectra, 2, 1_001.9, counts=12.0)  # this one came first
    run.event(stream, 2, 1_002.0, x=2.0)
    documents = run.stop()
    made = live(documents, joins={"spectra": "point"})
    assert [(point.index, point.data, point.missing) for point in made] == [
        (1, {"x": 1.0, "counts": 11.0}, []),
        (2, {"x": 2.0, "counts": 12.0}, []),
    ]
    assert list(points(documents, joins={"spectra": "point"})) == made


def test_a_point_id_among_the_data_joins_by_itself() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    spectra = run.stream("spectra", counts=NUMBER, point_id={**NUMBER, "dtype": "integer"})
    for number in (1, 2):
        run.event(stream, number, 1_000.0 + number, x=0.0)
    run.event(spectra, 1, 1_003.0, counts=12.0, point_id=2)
    run.event(spectra, 2, 1_003.0, counts=11.0, point_id=1)
    assert sorted((point.index, point.data["counts"]) for point in live(run.stop())) == [(1, 11.0), (2, 12.0)]


def test_a_row_that_does_not_come_is_missing_by_the_name_of_its_stream() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    spectra = run.stream("spectra", counts=NUMBER)
    run.event(stream, 1, 1_001.0, x=1.0)
    run.event(stream, 2, 1_030.0, x=2.0)
    run.event(spectra, 1, 1_031.0, counts=11.0)
    made = live(run.stop(), joins={"spectra": "point"})
    assert [(point.index, point.revision, point.missing) for point in made] == [
        (1, 0, ["spectra"]),
        (1, 1, []),
        (2, 0, ["spectra"]),
    ]


def test_frames_of_another_stream_are_joined_by_the_points_number() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    flight = run.stream("flight", camera=FRAME)
    resource = run.resource("camera")
    for number in (1, 2):
        run.event(stream, number, 1_000.0 + number, x=0.0)
    run.frames(flight, resource, (1, 3), (0, 2))
    made = live(run.stop(), joins={"flight": "point"})
    assert [(point.index, point.frames) for point in made] == [(1, {"camera": (0, 1)}), (2, {"camera": (1, 2)})]


def test_after_a_rewind_rows_of_the_spoiled_attempt_are_not_taken_for_the_repeated_points() -> None:
    run = Run()
    stream = run.stream("primary", x=NUMBER)
    spectra = run.stream("spectra", counts=NUMBER)
    for number in (1, 2, 3):
        run.event(spectra, number, 1_001.0, counts=float(number))  # 3 is taken, its point is not
    run.event(stream, 1, 1_001.0, x=1.0)
    run.event(stream, 2, 1_001.0, x=2.0)
    run.event(spectra, 2, 1_002.0, counts=22.0)
    run.event(stream, 2, 1_002.0, x=2.0)
    run.event(stream, 3, 1_003.0, x=3.0)
    run.event(spectra, 3, 1_003.0, counts=33.0)
    made = live(run.stop(), joins={"spectra": "point"})
    assert [(point.index, point.revision, point.data["counts"]) for point in made] == [
        (1, 0, 1.0),
        (2, 0, 2.0),
        (2, 1, 22.0),
        (3, 0, 33.0),
    ]


# ── any order ─────────────────────────────────────────────────────────────────────────────────────
HOWS = st.sampled_from(["last", "nearest", "linear", "mean", "min", "max", "count", "all"])


def reference(how: str, updates: list[tuple[float, float]], since: float, time: float) -> Any:
    """The value of a point with everything at hand."""
    inside = [value for stamp, value in updates if since < stamp <= time]
    before = [value for stamp, value in updates if stamp <= time]
    last = before[-1] if before else None
    if how in ("count", "all"):
        return len(inside) if how == "count" else inside
    if how in ("mean", "min", "max"):
        of = {"mean": lambda values: sum(values) / len(values), "min": min, "max": max}[how]
        return of(inside) if inside else last
    if how == "nearest":
        return min(updates, key=lambda each: abs(each[0] - time))[1] if updates else None
    if how == "linear":
        earlier = [each for each in updates if each[0] <= time]
        later = [each for each in updates if each[0] >= time]
        if not earlier or not later:
            return None
        (t0, v0), (t1, v1) = earlier[-1], later[0]
        return v0 if t1 == t0 else v0 + (time - t0) / (t1 - t0) * (v1 - v0)
    return last


def pairs(count: int) -> Iterator[float]:
    yield from (1_000.0 + number for number in range(count))


@settings(deadline=None, max_examples=60)
@given(how=HOWS, kinds=st.lists(st.booleans(), min_size=1, max_size=40), shuffled=st.randoms(use_true_random=False))
def test_the_latest_revision_is_what_all_the_documents_say(
    how: str, kinds: list[bool], shuffled: random.Random
) -> None:
    updates = [(time, shuffled.random()) for time, is_update in zip(pairs(len(kinds)), kinds, strict=True) if is_update]
    times = [time for time, is_update in zip(pairs(len(kinds)), kinds, strict=True) if not is_update]
    documents: Documents = with_updates(updates, times, late=how not in ("last",) and shuffled.random() < 0.5).stop()
    made = [product for product in live(documents, joins={"beam": how}, wait=1e6) if isinstance(product, Point)]
    latest = {point.index: point for point in made}
    assert sorted(latest) == list(range(1, len(times) + 1))
    since = -math.inf
    for index, time in enumerate(times, 1):
        expected = reference(how, updates, since, time)
        found = latest[index].data.get("beam", [] if how == "all" else 0 if how == "count" else None)
        assert found == (None if expected is None else pytest.approx(expected)), (index, how)
        since = time
    stored: list[tuple[str, Document]] = json.loads(json.dumps(documents))
    assert list(points(stored, joins={"beam": how}, wait=1e6)) == made
