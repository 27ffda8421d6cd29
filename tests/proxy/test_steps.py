"""Points of one instruction: one round trip each, and nothing in documents, values or errors tells them apart."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.simulators import check_limits
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import Msg

from bec_bluesky.proxy import DeviceLink
from plans.one_instruction import one_instruction_shot, one_instruction_step
from tests.proxy.conftest import DEADLINE, Bench, Outcome

Devices = Mapping[str, Any]
Hook = Callable[..., Any] | None
PLANS: dict[str, Callable[[Devices, Hook, Hook], Any]] = {}


def plan(function: Callable[[Devices, Hook, Hook], Any]) -> Callable[[Devices, Hook, Hook], Any]:
    """Make a plan part of the suite: it is run with our per_step and per_shot, and with bluesky's own."""
    PLANS[function.__name__] = function
    return function


@plan
def scan_ophyd(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["det"], d["det2"]], d["motor"], -1, 1, 5, per_step=step)


@plan
def scan_ophyd_async(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["temperature"], d["mode"]], d["sim_x"], -1, 1, 5, per_step=step)


@plan
def scan_two_axes_of_both_kinds(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["det"], d["bank"]], d["motor"], -1, 1, d["sim_x"], 0, 2, 4, per_step=step)


@plan
def list_scan(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.list_scan([d["det"]], d["motor"], [0, 1, 1, 5, 2], per_step=step)


@plan
def grid_scan_snaked(d: Devices, step: Hook, shot: Hook) -> Any:
    axes = (d["motor"], -1, 1, 3, d["sim_x"], 0, 2, 4)
    return bp.grid_scan([d["det"], d["det2"]], *axes, snake_axes=True, per_step=step)


@plan
def rel_scan(d: Devices, step: Hook, shot: Hook) -> Any:
    yield from bps.mv(d["motor"], 3, d["sim_x"], 2)
    yield from bp.rel_scan([d["det"]], d["motor"], -1, 1, 3, per_step=step)
    yield from bp.rel_scan([d["temperature"]], d["sim_x"], -1, 1, 3, per_step=step)
    return (yield from bps.rd(d["motor"])), (yield from bps.rd(d["sim_x"]))


@plan
def a_pseudo_axis(d: Devices, step: Hook, shot: Hook) -> Any:
    yield from bps.mv(d["turned"].along, 0, d["turned"].across, 0)
    yield from bp.scan([d["det"]], d["turned"].along, -1, 1, 3, per_step=step)


@plan
def count(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.count([d["det"], d["sim_x"], d["temperature"]], num=3, per_shot=shot)


@plan
def count_of_a_signal(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.count([d["mode"]], num=2, per_shot=shot)


@plan
def parts_of_one_device(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["bank"], d["bank"].parts[2]], d["bank"].parts[1], 0, 1, 3, per_step=step)


@plan
def a_device_that_writes_files(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["blob"]], d["sim_x"], 0, 2, 2, per_step=step)


@plan
def baseline_and_monitor(d: Devices, step: Hook, shot: Hook) -> Any:
    supplement = bpp.SupplementalData(baseline=[d["sim_x"], d["mode"]], monitors=[d["temperature"]])
    return supplement(bp.scan([d["det"]], d["motor"], 0, 1, 3, per_step=step))


@plan
def one_of_two_nested_runs(d: Devices, step: Hook, shot: Hook) -> Any:
    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator()
    def outer() -> Any:
        yield from bps.trigger_and_read([d["det2"]])
        yield from bpp.set_run_key_wrapper(bp.scan([d["det"]], d["motor"], 0, 1, 3, per_step=step), "inner")
        yield from bps.trigger_and_read([d["det2"]])

    return outer()


@plan
def beyond_limits(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["det"]], d["limited"], 0, 4, 5, per_step=step)


@plan
def a_value_that_is_none(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.list_scan([d["det"]], d["temperature"], [1.0, "hot"], per_step=step)


@plan
def a_failing_detector(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["det"], d["broken"]], d["motor"], 0, 1, 2, per_step=step)


@plan
def a_failing_detector_is_survived(d: Devices, step: Hook, shot: Hook) -> Any:
    try:
        yield from bp.count([d["broken"], d["det"]], 1, per_shot=shot)
    except Exception as error:  # noqa: BLE001  # what the plan sees is compared
        yield from bp.scan([d["det"]], d["motor"], 0, 1, 2, per_step=step)
        return type(error).__name__, type(error.__cause__).__name__
    return None


@plan
def a_detector_that_raises_in_its_method(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["refusing"]], d["motor"], 0, 1, 2, per_step=step)


@plan
def a_reading_that_fails(d: Devices, step: Hook, shot: Hook) -> Any:
    return bp.scan([d["det"], d["unreadable"]], d["motor"], 0, 1, 2, per_step=step)


@plan
def a_status_that_failed_before(d: Devices, step: Hook, shot: Hook) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.trigger(d["broken"])
        yield from (shot or bps.one_shot)([d["det"]])
        yield from bps.sleep(0.2)

    return inner()


@plan
def something_else_moves(d: Devices, step: Hook, shot: Hook) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.abs_set(d["motor2"], 1.0, group="other")
        yield from (step or bps.one_nd_step)([d["det"]], {d["motor"]: 1.0}, {d["motor"]: None})
        yield from bps.wait("other")

    return inner()


@plan
def a_suspender(d: Devices, step: Hook, shot: Hook) -> Any:
    suspender = SuspendBoolHigh(d["sig"], sleep=0)

    def inner() -> Any:
        yield from bps.mv(d["sig"], 0)
        yield from bps.install_suspender(suspender)
        yield from bp.scan([d["det"]], d["motor"], 0, 1, 2, per_step=step)
        yield from bps.remove_suspender(suspender)
        yield from bps.mv(d["sig"], 1.0)

    return inner()


def run(bench: Bench, plan: Any, **more: Any) -> Outcome:
    """Run a plan; leave out which per_step or per_shot it was, and how many runs came before."""
    outcome = bench.run(plan, **more)
    for name, document in outcome.documents:
        if name == "start":
            del document["scan_id"]
            for hook in ("per_step", "per_shot"):
                document.get("plan_args", {}).pop(hook, None)
    return outcome


def messages_of(bench: Bench, plan: Any) -> list[Msg]:
    """Run a plan; give its messages."""
    messages: list[Msg] = []
    bench.RE.msg_hook = messages.append
    try:
        bench.run(plan)
    finally:
        bench.RE.msg_hook = None
    return messages


@pytest.mark.parametrize("name", PLANS)
def test_a_step_of_one_instruction_gives_the_same(name: str, local: Bench, remote: Bench) -> None:
    at_home = run(local, PLANS[name](local.devices, None, None))
    far_away = run(remote, PLANS[name](remote.devices, one_instruction_step, one_instruction_shot))
    assert far_away.documents == at_home.documents
    assert far_away.value == at_home.value
    assert far_away.errors == at_home.errors
    assert far_away.exit_status == at_home.exit_status


def test_in_a_bare_engine_the_stubs_give_bluesky_s_own_messages(local: Bench) -> None:
    d = local.devices

    def commands(step: Hook, shot: Hook) -> list[str]:
        scan = bp.scan([d["det"]], d["motor"], 0, 1, 2, per_step=step)
        return [msg.command for msg in messages_of(local, bpp.pchain(scan, bp.count([d["det"]], 2, per_shot=shot)))]

    stock = commands(None, None)
    assert stock.count("read") == 2 * 2 + 2
    assert commands(one_instruction_step, one_instruction_shot) == stock


# ── round trips ──


def test_a_point_is_one_round_trip_whatever_moves_and_is_read(remote: Bench) -> None:
    d = remote.devices
    link: DeviceLink = d["det"]._link
    detectors = [d["det"], d["det2"], d["temperature"], d["bank"]]

    def trips(points: int) -> int:
        before = link.operations.round_trips
        axes = (d["motor"], 0, 1, d["sim_x"], 0, 1)
        run(remote, bp.scan(detectors, *axes, points, per_step=one_instruction_step))
        return link.operations.round_trips - before

    assert trips(20) - trips(10) == 10
    scan = bp.scan(detectors, d["motor"], 0, 1, 10, per_step=one_instruction_step)
    messages = [msg.command for msg in messages_of(remote, scan)]
    assert messages.count("remote_step") == 10
    assert not {"trigger", "read", "create", "save"} & set(messages)


def test_limits_are_checked_beforehand_as_ever(remote: Bench) -> None:
    d = remote.devices
    check_limits(bp.scan([d["det"]], d["limited"], 0, 1, 2, per_step=one_instruction_step))
    with pytest.raises(Exception, match="limits"):
        check_limits(bp.scan([d["det"]], d["limited"], 0, 4, 5, per_step=one_instruction_step))


# ── interruptions ──


def _points(d: Devices, step: Hook) -> Any:
    return bp.scan([d["det"], d["temperature"]], d["motor"], 0, 1, d["sim_x"], 0, 1, 2, per_step=step)


def _places(plan: Iterable[Msg]) -> list[int]:
    """Give the numbers of the messages that our step and bluesky's have in common, `remote_step` being a `wait`."""
    commands = [msg.command for msg in plan]
    after_set = {n for n, pair in enumerate(itertools.pairwise(commands), start=1) if pair == ("set", "wait")}
    alike = ("checkpoint", "set", "remote_step", "open_run", "close_run")
    return [n for n, command in enumerate(commands) if command in alike or n in after_set]


def _with_pause_before(plan: Any, place: int) -> Any:
    numbers = itertools.count()

    def pausing(msg: Msg) -> Any:
        pauses = msg.command != "pause" and next(numbers) == place
        return (bpp.pchain(bps.pause(), bpp.single_gen(msg)) if pauses else None), None

    return bpp.plan_mutator(plan, pausing)


@pytest.mark.parametrize("action", ["resume", "stop", "abort", "halt"])
def test_a_pause_before_any_message_is_as_with_bluesky_s_own_step(action: str, local: Bench, remote: Bench) -> None:
    steps = messages_of(remote, _points(remote.devices, one_instruction_step))
    ours, theirs = _places(steps), _places(messages_of(local, _points(local.devices, None)))
    assert len(ours) == len(theirs) == 10
    for our, their in zip(ours, theirs, strict=True):
        at_home = run(local, _with_pause_before(_points(local.devices, None), their), when_paused=action)
        far_away = run(
            remote, _with_pause_before(_points(remote.devices, one_instruction_step), our), when_paused=action
        )
        assert far_away == at_home, steps[our]


@pytest.fixture
def slow_motor(remote: Bench) -> Iterator[Any]:
    """A motor that takes half a second for 1 mm, at 0."""
    slow = remote.devices["slow"]
    remote.RE(bps.mv(slow.velocity, 0.0))
    remote.RE(bps.mv(slow, 0.0, slow.velocity, 2.0, slow.acceleration_time, 0.1))
    yield slow
    remote.RE(bps.mv(slow.velocity, 0.0, slow.acceleration_time, 0.5))


@pytest.mark.parametrize("action", ["resume", "stop", "abort", "halt"])
def test_a_pause_while_it_moves_stops_the_motor_and_triggers_nothing(
    action: str, remote: Bench, slow_motor: Any
) -> None:
    d = remote.devices
    before = d["counter"].read().result(DEADLINE)["counter_value"]["value"]
    asked = threading.Event()
    paused: list[Any] = []

    def pause_once(reading: Any) -> None:
        if 0.0 < reading["slow"]["value"] < 1.0 and not asked.is_set():
            asked.set()
            threading.Thread(target=remote.RE.request_pause).start()

    def look_when_paused() -> Any:
        paused.append(d["counter"].read().result(DEADLINE)["counter_value"]["value"])
        paused.append(d["slow"].read().result(DEADLINE)["slow"]["value"])

    slow_motor.subscribe(pause_once)
    try:
        scan = bp.scan([d["counter"]], slow_motor, 1.0, 2.0, 2, per_step=one_instruction_step)
        outcome = run(remote, scan, when_paused=action, then=look_when_paused)
    finally:
        slow_motor.clear_sub(pause_once)
    assert asked.is_set()
    assert paused[0] == before
    assert 0.0 < paused[1] < 1.0
    events = [document for name, document in outcome.documents if name == "event"]
    assert len(events) == (2 if action == "resume" else 0)
    after = d["counter"].read().result(DEADLINE)["counter_value"]["value"]
    assert after == before + len(events)


def test_a_step_does_not_wait_for_what_it_does_not_move(remote: Bench, slow_motor: Any) -> None:
    d = remote.devices

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.abs_set(slow_motor, 2.0, group="other")
        yield from one_instruction_step([d["det"], slow_motor], {d["motor"]: 1.0}, {d["motor"]: None})
        yield from bps.wait("other")
        yield from one_instruction_shot([d["det"], slow_motor, d["motor"]])

    outcome = run(remote, plan())
    first, second = [document["data"]["slow"] for name, document in outcome.documents if name == "event"]
    assert first < 2.0
    assert second == 2.0


def test_moves_that_are_under_way_already_are_waited_for(remote: Bench, slow_motor: Any) -> None:
    d = remote.devices

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.abs_set(slow_motor, 1.0, group="point")
        yield from bps.sleep(0.1)  # it is sent meanwhile
        yield Msg("remote_step", None, d["counter"], slow_motor, group="point", name="primary")

    outcome = run(remote, plan())
    assert [document["data"]["slow"] for name, document in outcome.documents if name == "event"] == [1.0]
