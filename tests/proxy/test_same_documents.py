"""Every plan gives the same documents, value and error with remote devices as with devices in process."""

from collections.abc import Callable, Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.suspenders import SuspendBoolHigh
from ophyd_async.core import TriggerInfo

from tests.proxy.conftest import Bench

Devices = Mapping[str, Any]
PLANS: dict[str, Callable[[Devices], Any]] = {}


def plan(function: Callable[[Devices], Any]) -> Callable[[Devices], Any]:
    """Make a plan part of the suite."""
    PLANS[function.__name__] = function
    return function


@plan
def count(d: Devices) -> Any:
    return bp.count([d["det"], d["sim_x"], d["temperature"]], num=3)


@plan
def scan_ophyd(d: Devices) -> Any:
    return bp.scan([d["det"], d["det2"]], d["motor"], -1, 1, 5)


@plan
def scan_ophyd_async(d: Devices) -> Any:
    return bp.scan([d["temperature"], d["mode"]], d["sim_x"], -1, 1, 5)


@plan
def scan_two_axes_of_both_kinds(d: Devices) -> Any:
    return bp.scan([d["det"]], d["motor"], -1, 1, d["sim_x"], 0, 2, 4)


@plan
def rel_scan(d: Devices) -> Any:
    yield from bps.mv(d["motor"], 3, d["sim_x"], 2)
    yield from bp.rel_scan([d["det"]], d["motor"], -1, 1, 3)
    yield from bp.rel_scan([d["temperature"]], d["sim_x"], -1, 1, 3)
    return (yield from bps.rd(d["motor"])), (yield from bps.rd(d["sim_x"]))


@plan
def list_scan(d: Devices) -> Any:
    return bp.list_scan([d["det"]], d["motor"], [0, 1, 5, 2])


@plan
def grid_scan_snaked(d: Devices) -> Any:
    return bp.grid_scan([d["det"], d["det2"]], d["motor"], -1, 1, 3, d["motor2"], 0, 2, 4, snake_axes=True)


@plan
def spiral(d: Devices) -> Any:
    return bp.spiral([d["det"]], d["motor"], d["motor2"], 0.0, 0.0, 2.0, 2.0, 0.8, 4)


@plan
def spiral_fermat(d: Devices) -> Any:
    return bp.spiral_fermat([d["det"]], d["sim_x"], d["sim_y"], 0.0, 0.0, 2.0, 2.0, 0.8, 1.0)


@plan
def adaptive_scan(d: Devices) -> Any:
    return bp.adaptive_scan([d["det"]], "det", d["motor"], -2, 2, 0.1, 1.0, 1.0, True)


@plan
def inner_product_scan(d: Devices) -> Any:
    return bp.inner_product_scan([d["det"]], 3, d["motor"], -1, 1, d["motor2"], 0, 5)


@plan
def tune_centroid(d: Devices) -> Any:
    yield from bp.tune_centroid([d["det"]], "det", d["motor"], -3, 3, 0.3, 9, 3.0, False)
    return (yield from bps.rd(d["motor"]))


@plan
def monitor_during(d: Devices) -> Any:
    @bpp.monitor_during_decorator([d["sig"]])
    @bpp.run_decorator()
    def inner() -> Any:
        for value in (2.0, 3.0, 5.0):
            yield from bps.mv(d["sig"], value)
            yield from bps.trigger_and_read([d["det"]])

    return inner()


@plan
def monitor_ophyd_async(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.monitor(d["temperature"], name="temperature")
        for value in (4.0, 4.5):
            yield from bps.mv(d["temperature"], value)
        yield from bps.unmonitor(d["temperature"])
        yield from bps.mv(d["temperature"], 1.5)

    return inner()


@plan
def baseline(d: Devices) -> Any:
    supplement = bpp.SupplementalData(baseline=[d["sim_x"], d["motor2"], d["mode"]], monitors=[d["temperature"]])
    return supplement(bp.scan([d["det"]], d["motor"], 0, 1, 3))


@plan
def configure(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.trigger_and_read([d["det"]])
        old_and_new = yield from bps.configure(d["det"], {"center": 0.5})
        yield from bps.trigger_and_read([d["det"]])
        yield from bps.configure(d["det"], {"center": 0.0})
        return old_and_new

    return inner()


@plan
def fly_a_file_writing_detector(d: Devices) -> Any:
    blob = d["blob"]

    @bpp.stage_decorator([blob])
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.prepare(blob, TriggerInfo(number_of_events=4, livetime=0.01), wait=True)
        yield from bps.declare_stream(blob, name="main", collect=True)
        yield from bps.kickoff(blob, wait=True)
        yield from bps.complete(blob, wait=True)
        yield from bps.collect(blob, name="main", return_payload=False)

    return inner()


@plan
def fly_two_detectors_into_one_stream(d: Devices) -> Any:
    blobs = [d["blob"], d["blob2"]]

    @bpp.stage_decorator(blobs)
    @bpp.run_decorator()
    def inner() -> Any:
        for blob in blobs:
            yield from bps.prepare(blob, TriggerInfo(number_of_events=3, livetime=0.01), wait=True)
        yield from bps.declare_stream(*blobs, name="both", collect=True)
        yield from bps.kickoff_all(*blobs, wait=True)
        yield from bps.complete_all(*blobs, wait=True)
        yield from bps.collect(*blobs, name="both", return_payload=False)

    return inner()


@plan
def step_scan_a_file_writing_detector(d: Devices) -> Any:
    return bp.scan([d["blob"]], d["sim_x"], 0, 2, 3)


@plan
def fly_with_events(d: Devices) -> Any:
    return bp.fly([d["flyer"]])


@plan
def moves_inside_of_events(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        for value in (1.0, 2.0, 3.0, 4.0):
            yield from bps.mv(d["motor"], value)
            yield from bps.trigger(d["det"], wait=True)
            yield from bps.create("primary")
            yield from bps.read(d["det"])
            yield from bps.mv(d["motor"], -value, d["temperature"], value)
            yield from bps.read(d["temperature"])
            yield from bps.read(d["motor"])
            yield from bps.save()

    return inner()


@plan
def events_of_which_some_are_dropped(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        for value in (1.0, 2.0, 3.0, 4.0):
            yield from bps.mv(d["motor"], value, d["sim_x"], value)
            yield from bps.create("primary")
            yield from bps.read(d["motor"])
            yield from bps.read(d["sim_x"])
            yield from bps.drop() if value == 3.0 else bps.save()

    return inner()


@plan
def a_reading_outside_of_an_event(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        values = []
        for value in (1.0, 2.0, 3.0):
            yield from bps.mv(d["motor"], value)
            yield from bps.trigger_and_read([d["det"], d["motor"]])
            yield from bps.mv(d["motor"], value + 0.5)
            values.append((yield from bps.rd(d["motor"])))
        return values

    return inner()


@plan
def two_streams_in_one_run(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        for value in (1.0, 2.0, 3.0):
            yield from bps.mv(d["motor"], value)
            yield from bps.trigger_and_read([d["det"], d["motor"]], name="one")
            yield from bps.trigger_and_read([d["det"], d["sim_x"]], name="two")

    return inner()


@plan
def numbered_parts(d: Devices) -> Any:
    yield from bps.mv(d["bank"].parts[2], 7.0)
    yield from bp.scan([d["bank"]], d["bank"].parts[1], 0, 1, 3)
    return (yield from bps.rd(d["bank"].parts[2]))


@plan
def a_pseudo_axis(d: Devices) -> Any:
    yield from bps.mv(d["turned"].along, 0, d["turned"].across, 0)
    yield from bp.scan([d["det"]], d["turned"].along, -1, 1, 3)
    yield from bp.rel_scan([d["det"]], d["turned"].across, -1, 1, 3)
    return (yield from bps.rd(d["turned"].left))


@plan
def two_runs(d: Devices) -> Any:
    yield from bp.count([d["det"]], 1)
    return (yield from bp.count([d["sim_x"]], 2))


@plan
def moves_and_reads(d: Devices) -> Any:
    motor, x, limited = d["motor"], d["sim_x"], d["limited"]
    yield from bps.mv(motor, 1, x, 2, limited, 0.5)
    yield from bps.mvr(motor, 0.5, x, -0.5, limited, 0.25)
    values = []
    for device in (motor, x, limited, d["mode"], d["det"]):
        values.append((yield from bps.rd(device)))
    positions = [motor.position, limited.position, limited.limits]
    yield from bps.mv(d["mode"], "fast")
    values.append((yield from bps.rd(d["mode"])))
    yield from bps.mv(d["mode"], "slow", x.velocity, 0.0)
    return values, positions


@plan
def beyond_limits(d: Devices) -> Any:
    return bp.scan([d["det"]], d["limited"], 0, 4, 5)


@plan
def beyond_limits_is_seen_in_set(d: Devices) -> Any:
    try:
        yield from bps.abs_set(d["limited"], 99, wait=True)
    except Exception as error:  # noqa: BLE001  # what the plan sees is compared
        return type(error).__name__, str(error)


@plan
def a_failing_detector(d: Devices) -> Any:
    return bp.count([d["det"], d["broken"]], 2)


@plan
def a_failing_detector_is_survived(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        try:
            yield from bps.trigger_and_read([d["broken"]])
        except Exception as error:  # noqa: BLE001  # what the plan sees is compared
            yield from bps.trigger_and_read([d["det"]])
            return type(error).__name__, type(error.__cause__).__name__
        return None

    return inner()


@plan
def a_detector_that_raises_in_its_method(d: Devices) -> Any:
    return bp.count([d["refusing"]], 2)


@plan
def a_detector_that_raises_is_survived(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        try:
            yield from bps.trigger_and_read([d["refusing"]])
        except LookupError:
            yield from bps.trigger_and_read([d["det"]])

    return inner()


@plan
def a_read_only_signal(d: Devices) -> Any:
    return bps.mv(d["motor"].readback, 3.0)


@plan
def a_wrong_value(d: Devices) -> Any:
    return bps.mv(d["temperature"], "hot")


@plan
def a_plan_that_fails_by_itself(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.mv(d["motor"], 1)
        raise ZeroDivisionError("in the plan")

    return inner()


@plan
def stop_in_the_plan(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.mv(d["slow"].velocity, 1.0)
        yield from bps.abs_set(d["slow"], 10.0, group="move")
        yield from bps.sleep(0.1)
        try:
            yield from bps.stop(d["slow"])
            yield from bps.wait("move")
        except Exception as error:  # noqa: BLE001  # what the plan sees is compared
            return type(error).__name__
        return "no error"

    return inner()


@plan
def a_suspender_on_a_remote_signal(d: Devices) -> Any:
    suspender = SuspendBoolHigh(d["sig"], sleep=0)

    def inner() -> Any:
        yield from bps.mv(d["sig"], 0)
        yield from bps.install_suspender(suspender)
        yield from bp.count([d["det"]], 2)
        yield from bps.remove_suspender(suspender)
        yield from bps.mv(d["sig"], 1.0)

    return inner()


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
def test_a_paused_plan_goes_on_or_ends_in_the_same_way(action: str, local: Bench, remote: Bench) -> None:
    at_home = local.run(a_pausing_plan(local.devices), when_paused=action)
    far_away = remote.run(a_pausing_plan(remote.devices), when_paused=action)
    assert far_away == at_home
    assert at_home.documents[-1][0] == "stop"


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_gives_the_same_with_remote_devices(name: str, local: Bench, remote: Bench) -> None:
    at_home = local.run(PLANS[name](local.devices))
    far_away = remote.run(PLANS[name](remote.devices))
    assert far_away.documents == at_home.documents
    assert far_away.value == at_home.value
    assert far_away.errors == at_home.errors
    assert far_away.exit_status == at_home.exit_status


def test_the_suite_saw_documents(local: Bench) -> None:
    outcome = local.run(PLANS["scan_ophyd"](local.devices))
    assert [document[0] for document in outcome.documents] == ["start", "descriptor", *["event"] * 5, "stop"]
    assert outcome.errors == []
