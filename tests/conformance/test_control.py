"""Pauses, stops, aborts and halts after every message of a plan: decided by counting messages, never by time."""

from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest

from tests.conformance.comparison import Act, Devices, Pair, acting

ACTS: dict[str, tuple[Act, str]] = {
    "pause and resume": (lambda RE: RE._request_pause_coro(False), "resume"),
    "pause and stop": (lambda RE: RE._request_pause_coro(False), "stop"),
    "pause and abort": (lambda RE: RE._request_pause_coro(False), "abort"),
    "pause and halt": (lambda RE: RE._request_pause_coro(False), "halt"),
    "pause at the next checkpoint and resume": (lambda RE: RE._request_pause_coro(True), "resume"),
    "stop": (lambda RE: RE._stop_coro(), "resume"),
    "abort": (lambda RE: RE._abort_coro("enough"), "resume"),
    "halt": (lambda RE: RE._halt_coro(), "resume"),
}
"""{what is done: (what does it in the RunEngine's loop, what follows when it has paused)}"""


def step_scan(d: Devices) -> Any:
    """Points of devices of both kinds, staged, with a device that is told of pauses."""
    devices = [d["det"], d["motor"], d["sim_x"], d["faulty"]]

    @bpp.stage_decorator(devices)
    @bpp.run_decorator()
    def inner() -> Any:
        for number in range(2):
            yield from bps.checkpoint()
            yield from bps.mv(d["motor"], number, d["sim_x"], -number)
            yield from bps.trigger_and_read(devices)
        return (yield from bps.rd(d["sim_x"]))

    return _at_rest(d, inner())


def fly_scan(d: Devices) -> Any:
    """A flyer, two runs one within the other, and moments at which there is no way back."""

    @bpp.stage_decorator([d["faulty_async"]])
    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer() -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([d["faulty_async"]])
        yield from inner()
        yield from bps.clear_checkpoint()
        yield from bps.trigger_and_read([d["faulty_async"]])

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.kickoff(d["faulty"], wait=True)
        yield from bps.complete(d["faulty"], wait=True)
        yield from bps.collect(d["faulty"])

    return _at_rest(d, outer())


def _at_rest(d: Devices, plan: Any) -> Any:
    yield from bps.mv(d["motor"], 5, d["sim_x"], 5, d["sig"], 5, d["faulty"].gain, 2, d["faulty_async"].gain, 2)
    return (yield from plan)


def a_pausing_plan(d: Devices) -> Any:
    @bpp.stage_decorator([d["det"], d["motor"], d["sim_x"]])
    @bpp.run_decorator()
    def inner() -> Any:
        for number in range(4):
            yield from bps.checkpoint()
            yield from bps.mv(d["motor"], number, d["sim_x"], -number)
            yield from bps.trigger_and_read([d["det"], d["motor"], d["sim_x"]])
            if number == 2:
                yield from bps.pause()
        return "ended"

    return inner()


@pytest.mark.parametrize("action", ["resume", "stop", "abort", "halt"])
def test_a_paused_plan_goes_on_or_ends_in_the_same_way(action: str, pair: Pair) -> None:
    assert pair.compare(a_pausing_plan, when_paused=action).documents[-1][0] == "stop"


def a_monitored_plan(d: Devices) -> Any:
    signal = d["temperature"]

    @bpp.monitor_during_decorator([signal])
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.checkpoint()
        for value in (2.0, 3.0):
            yield from bps.mv(signal, value)
            yield from bps.trigger_and_read([d["det"]])

    yield from bps.mv(signal, 1.5)
    yield from bpp.finalize_wrapper(inner(), lambda: bps.mv(signal, 1.5))


def _messages_of(pair: Pair, plan: Callable[[Devices], Any]) -> list[str]:
    with acting(pair.local.RE, -2, lambda RE: None) as done:
        pair.run(pair.local, plan)
    return done


@pytest.mark.parametrize("what", ["pause and resume", "abort"])
def test_a_monitor_goes_on_in_the_same_way_after_an_interruption(what: str, pair: Pair) -> None:
    act, when_paused = ACTS[what]
    for at, command in enumerate(_messages_of(pair, a_monitored_plan)):
        if command != "set":  # a change that is under way just then may be told or not: docs/reference/conformance.md
            pair.compare(a_monitored_plan, at=at, act=act, when_paused=when_paused)


@pytest.mark.parametrize("what", ACTS)
@pytest.mark.parametrize("plan", [step_scan, fly_scan], ids=lambda plan: plan.__name__)
def test_a_plan_is_interrupted_in_the_same_way_after_every_message(
    plan: Callable[[Devices], Any], what: str, pair: Pair
) -> None:
    act, when_paused = ACTS[what]
    number = len(_messages_of(pair, plan))
    every = 9 if "checkpoint" in what else 1  # bluesky sleeps half a second before it pauses at a checkpoint
    outcomes = [pair.compare(plan, at=at, act=act, when_paused=when_paused) for at in range(0, number, every)]
    assert "checkpoint" in what or len({len(outcome.documents) for outcome in outcomes}) > 1
    assert ("abort" if "abort" in what or "halt" in what else "success") in {each.exit_status for each in outcomes}
