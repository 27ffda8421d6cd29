"""Bursts, with the device in this process and in a device server: the points of a step scan, in pages."""

import threading
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.suspenders import SuspendBoolHigh
from event_model import unpack_event_page

from plans.burst import burst_scan
from tests.proxy.conftest import Bench, Outcome


@pytest.fixture(params=["local", "remote"])
def bench(request: pytest.FixtureRequest, local: Bench, remote: Bench) -> Bench:
    """Both benches, one after the other."""
    return {"local": local, "remote": remote}[request.param]


def events(outcome: Outcome) -> list[dict[str, Any]]:
    """Give the events of all pages, or of a step scan."""
    found: list[dict[str, Any]] = []
    for name, document in outcome.documents:
        if name == "event_page":
            document = {**document, "time": [0.0] * len(document["seq_num"])}
            document["timestamps"] = {key: [0.0] * len(column) for key, column in document["data"].items()}
            found += [dict(event) for event in unpack_event_page(document)]
        elif name == "event":
            found.append(document)
    return found


def points(outcome: Outcome) -> list[tuple[int, dict[str, Any]]]:
    return [(event["seq_num"], event["data"]) for event in events(outcome)]


def stop_of(outcome: Outcome) -> dict[str, Any]:
    return outcome.documents[-1][1]


def test_a_burst_gives_the_points_of_a_step_scan(bench: Bench) -> None:
    d = bench.devices
    step = bench.run(bp.scan([d["det"], d["temperature"]], d["motor"], -1, 1, 21))
    burst = bench.run(burst_scan(d["burst"], [d["det"], d["temperature"]], d["motor"], -1, 1, 21))
    assert points(burst) == points(step)
    assert stop_of(burst)["num_events"] == {"primary": 21}

    def described(outcome: Outcome) -> dict[str, Any]:
        (descriptor,) = [document for name, document in outcome.documents if name == "descriptor"]
        keys = {key: {**value, "object_name": None} for key, value in descriptor["data_keys"].items()}
        fields = [field for hint in descriptor["hints"].values() for field in hint["fields"]]
        configuration = {key for each in descriptor["configuration"].values() for key in each["data"]}
        return {"keys": keys, "order": list(keys), "fields": fields, "configuration": configuration}

    assert described(burst) == described(step)
    starts = [outcome.documents[0][1] for outcome in (step, burst)]
    differing = {key for key in starts[0] if starts[1][key] != starts[0][key]}
    assert differing == {"scan_id", "plan_name", "plan_args"}


def test_both_give_the_same_documents_to_the_last_key(local: Bench, remote: Bench) -> None:
    outcomes = [
        bench.run(burst_scan(d["burst"], [d["det"], d["temperature"]], d["motor"], -1, 1, 5, settle=0.01))
        for bench in (local, remote)
        for d in [bench.devices]
    ]
    for outcome in outcomes:
        del outcome.documents[0][1]["scan_id"]
    at_home, far_away = ([document for document in each.documents if document[0] != "event_page"] for each in outcomes)
    assert far_away == at_home
    assert points(outcomes[0]) == points(outcomes[1])


def test_more_points_than_it_keeps_come_while_it_goes_on(bench: Bench) -> None:
    d = bench.devices
    outcome = bench.run(burst_scan(d["burst"], [d["det"]], d["motor"], 0, 1, 200, period=0.01))
    assert [event["seq_num"] for event in events(outcome)] == list(range(1, 201))
    pages = [document for name, document in outcome.documents if name == "event_page"]
    assert len(pages) >= 200 // 40
    assert max(len(page["seq_num"]) for page in pages) <= 40


def test_bluesky_s_own_way_to_collect_works_too(bench: Bench) -> None:
    d = bench.devices
    burst = d["burst"]

    @bpp.stage_decorator([burst])
    @bpp.run_decorator()
    def plan() -> Any:
        positions = {"motor": [1.0, 1.0, 2.0], "temperature": [5.0, 6.0, 6.0]}
        yield from bps.prepare(burst, {"positions": positions}, wait=True)
        yield from bps.declare_stream(burst, name="primary", collect=True)
        yield from bps.kickoff(burst, wait=True)
        yield from bps.collect_while_completing([burst], [burst], flush_period=0.1, stream_name="primary")

    outcome = bench.run(plan())
    assert [(data["motor"], data["temperature"]) for _, data in points(outcome)] == [(1, 5), (1, 6), (2, 6)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"positions": {"nobody": [1.0]}}, "burst moves motor, slow, temperature, not 'nobody'"),
        ({"positions": {"motor": [1.0]}, "detectors": ["eye"]}, "burst reads det, counter, broken, temperature"),
        ({"positions": {"motor": [1.0], "slow": [1.0, 2.0]}}, "as many positions"),
        ({"positions": {}}, "positions"),
        ({"positions": {"motor": [1.0]}, "speed": 3}, "speed"),
    ],
)
def test_points_that_cannot_be_are_refused(bench: Bench, value: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        bench.RE(bps.prepare(bench.devices["burst"], value, wait=True))
    assert words in str(caught.value.__cause__ or caught.value)


def test_what_was_taken_before_a_device_failed_is_kept(bench: Bench) -> None:
    d = bench.devices
    motor, counter = d["motor"], d["counter"]

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(d["burst"], {"positions": {"temperature": [1.0, 2.0, "hot", 4.0]}}, wait=True)
        yield from bps.declare_stream(d["burst"], name="primary", collect=True)
        yield from bps.kickoff(d["burst"], wait=True)
        yield from bps.complete(d["burst"], wait=True)

    assert bench.run(plan()).errors[0] == "FailedStatus"
    outcome = bench.run(burst_scan(d["burst"], [counter, d["broken"]], motor, 0, 1, 3))
    assert outcome.errors == ["FailedStatus", "RuntimeError"]
    assert stop_of(outcome)["exit_status"] == "fail"
    assert points(outcome) == []


# ── pauses ──


@pytest.fixture
def slow(bench: Bench) -> Iterator[Any]:
    """A motor that takes half a second for 1 mm, at 0."""
    slow = bench.devices["slow"]
    bench.RE(bps.mv(slow.velocity, 0.0))
    bench.RE(bps.mv(slow, 0.0, slow.velocity, 2.0, slow.acceleration_time, 0.02))
    yield slow
    bench.RE(bps.mv(slow.velocity, 0.0, slow.acceleration_time, 0.5))


def run_with_pause(bench: Bench, slow: Any, action: str, plan: Any) -> tuple[Outcome, list[float]]:
    """Run a plan; let it pause when the motor is between 0.5 and 1."""
    asked = threading.Event()
    seen: list[float] = []

    def pause_once(reading: Any) -> None:
        seen.append(reading["slow"]["value"])
        if 0.5 < seen[-1] < 1.0 and not asked.is_set():
            asked.set()
            threading.Thread(target=bench.RE.request_pause).start()

    bench.RE.loop.call_soon_threadsafe(slow.subscribe, pause_once)
    where: list[float] = []
    try:
        outcome = bench.run(plan, when_paused=action, then=lambda: where.append(seen[-1]))
    finally:
        bench.RE.loop.call_soon_threadsafe(slow.clear_sub, pause_once)
    assert asked.is_set()
    return outcome, where


@pytest.mark.parametrize("action", ["resume", "stop", "abort"])
def test_a_pause_stops_the_motor_and_costs_no_point(bench: Bench, slow: Any, action: str) -> None:
    d = bench.devices
    before = events(bench.run(bp.count([d["counter"]], 1)))[0]["data"]["counter_value"]
    plan = burst_scan(d["burst"], [d["counter"]], slow, 0.0, 1.5, 4, period=0.05)
    outcome, (where,) = run_with_pause(bench, slow, action, plan)
    assert 0.5 < where < 1.0
    expected = [0.0, 0.5, 1.0, 1.5] if action == "resume" else [0.0, 0.5]
    numbers = range(1, len(expected) + 1)
    assert points(outcome) == [
        (number, {"counter_value": before + number, "slow": at}) for number, at in zip(numbers, expected, strict=True)
    ]
    exit_status = {"resume": "success", "stop": "success", "abort": "abort"}[action]
    assert stop_of(outcome)["exit_status"] == exit_status
    assert stop_of(outcome)["num_events"] == {"primary": len(expected)}


def test_a_halt_leaves_no_motor_moving(bench: Bench, slow: Any) -> None:
    plan = burst_scan(bench.devices["burst"], [], slow, 0.0, 1.5, 4)
    outcome, (where,) = run_with_pause(bench, slow, "halt", plan)
    assert outcome.exit_status == "abort"
    assert [point["data"]["slow"] for point in events(bench.run(bp.count([slow], 1)))] == [where]


def test_a_suspender_stops_it_and_lets_it_go_on(bench: Bench, slow: Any) -> None:
    d = bench.devices
    suspender = SuspendBoolHigh(d["sig"], sleep=0)
    tripped = threading.Event()

    def trip_once(reading: Any) -> None:
        if 0.5 < reading["slow"]["value"] < 1.0 and not tripped.is_set():
            tripped.set()
            suspender(1, timestamp=0.0)
            bench.RE.loop.call_later(0.2, lambda: suspender(0, timestamp=0.0))

    def plan() -> Any:
        yield from bps.mv(d["sig"], 0)
        yield from bps.install_suspender(suspender)
        yield from burst_scan(d["burst"], [d["det"]], slow, 0.0, 1.5, 4, period=0.05)
        yield from bps.remove_suspender(suspender)
        yield from bps.mv(d["sig"], 1.0)

    bench.RE.loop.call_soon_threadsafe(slow.subscribe, trip_once)
    try:
        outcome = bench.run(plan())
    finally:
        bench.RE.loop.call_soon_threadsafe(slow.clear_sub, trip_once)
    assert tripped.is_set()
    assert [(number, data["slow"]) for number, data in points(outcome)] == [(1, 0.0), (2, 0.5), (3, 1.0), (4, 1.5)]
