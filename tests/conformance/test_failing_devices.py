"""Every verb failing, in its call and by its status, on devices of both kinds: what the plan and its caller see."""

from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.simulators import check_limits_async
from bluesky.utils import FailedStatus

from tests.conformance import faulty
from tests.conformance.comparison import Devices, Pair, seen

KINDS = ["faulty", "faulty_async"]
FAULTS = [
    *(f"{verb} status RuntimeError" for verb in faulty.STATUSES),
    *(f"{verb} call ValueError" for verb in faulty.STATUSES),
    *(f"{verb} call RuntimeError" for verb in (*faulty.CALLS, "locate")),
]


def attempt(results: list[Any], name: str, plan: Any) -> Any:
    """Do something of which the errors are noted."""
    try:
        yield from plan
    except Exception as error:  # noqa: BLE001  # what the plan sees is compared
        results.append([name, *seen(error)])


def everything(d: Devices, kind: str, fault: str, *, is_brave: bool) -> Any:
    """Do all that can be done with a device of which one verb fails; the `is_brave` one goes on after errors."""
    device = d[kind]
    results: list[Any] = []

    def do(name: str, plan: Any) -> Any:
        return attempt(results, name, plan) if is_brave else plan

    def run() -> Any:
        yield from do("stage", bps.stage(device, wait=True))
        yield from bps.open_run()
        if device.name == "faulty":  # those of ophyd-async have no `configure`
            yield from do("configure", bps.configure(device, {"gain": 3}))
        yield from do("prepare", bps.prepare(device, 1.0, wait=True))
        yield from do("set", bps.abs_set(device, 4.0, wait=True))
        yield from do("read", bps.trigger_and_read([device, d["det"]]))
        yield from do("locate", bps.locate(device))
        yield from do("fly", _fly(device))
        yield from do("again", bps.trigger_and_read([device], name="again"))
        yield from do("unstage", bps.unstage(device, wait=True))
        yield from bps.close_run()
        return results

    yield from bps.mv(device.value, 1.0, device.gain, 2, device.fault, fault)
    return (yield from bpp.finalize_wrapper(run(), lambda: bps.mv(device.fault, "")))


def _fly(device: Any) -> Any:
    yield from bps.kickoff(device, wait=True)
    yield from bps.complete(device, wait=True)
    yield from bps.collect(device)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_verb_fails_in_the_same_way(kind: str, fault: str, pair: Pair) -> None:
    pair.compare(lambda d: everything(d, kind, fault, is_brave=True))
    pair.compare(lambda d: everything(d, kind, fault, is_brave=False))


@pytest.mark.parametrize("error", faulty.ERRORS)
def test_an_error_stays_what_it_was(error: str, pair: Pair) -> None:
    def plan(d: Devices) -> Any:
        results: list[Any] = []
        for kind in KINDS:
            device = d[kind]
            for fault in (f"trigger call {error}", f"set status {error}", f"read call {error}"):
                yield from bps.mv(device.fault, fault)
                yield from attempt(results, fault, bps.abs_set(device, 1.0, wait=True))
                yield from attempt(results, fault, bps.trigger(device, wait=True))
                yield from attempt(results, fault, bps.read(device))
                yield from bps.mv(device.fault, "")
        return results

    outcome = pair.compare(plan)
    assert len(outcome.value) == 6


@pytest.mark.parametrize("verb", ["resume", "check_value", "subscribe"])  # a failing `pause` breaks a RunEngine
@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_around_a_plan_fails_in_the_same_way(kind: str, verb: str, pair: Pair) -> None:
    def plan(d: Devices) -> Any:
        device = d[kind]
        results: list[Any] = []

        def check(moves: list[Any]) -> Any:
            errors: list[Exception] = []

            async def look() -> None:
                try:
                    await check_limits_async(moves)
                except Exception as error:  # noqa: BLE001  # `wait_for` would not tell the plan
                    errors.append(error)

            yield from bps.wait_for([look])
            for error in errors:
                raise error

        @bpp.run_decorator()
        def run() -> Any:
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([device])
            moved = [bps.Msg("set", device, 1.0)]
            yield from attempt(results, "check", check(moved))
            yield from attempt(results, "monitor", bps.monitor(device, name="monitored"))
            yield from attempt(results, "unmonitor", bps.unmonitor(device))
            yield from bps.pause()
            yield from bps.trigger_and_read([device])

        yield from bps.mv(device.gain, 2, device.fault, f"{verb} call RuntimeError")
        yield from bpp.finalize_wrapper(run(), lambda: bps.mv(device.fault, ""))
        return results

    outcome = pair.compare(plan)
    assert outcome.errors == (["RuntimeError"] if verb == "resume" else [])
    assert verb == "resume" or {"subscribe": "monitor", "check_value": "check"}[verb] in [
        each[0] for each in outcome.value
    ]


def test_the_text_of_a_failure_names_device_and_server(pair: Pair) -> None:
    texts: list[str] = []

    def plan(d: Devices) -> Any:
        for fault in ("trigger call KeyError", "trigger status KeyError", "trigger status FileNotFoundError"):
            yield from bps.mv(d["faulty"].fault, fault)
            try:
                yield from bps.trigger(d["faulty"], wait=True)
            except (KeyError, FailedStatus) as error:
                texts.extend([str(error), str(error.__cause__ or error)])
            yield from bps.mv(d["faulty"].fault, "")

    assert pair.run(pair.remote, plan).errors == []
    assert len(texts) == 6
    assert all("faulty" in text and "device server" in text for text in texts[1::2])
    assert "faulty.trigger()" in texts[2]
