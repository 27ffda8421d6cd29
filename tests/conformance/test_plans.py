"""Every plan gives the same documents, value and error with remote devices as with devices in process."""

from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.suspenders import SuspendBoolHigh

from tests.conformance.comparison import Devices, Pair, seen

PLANS: dict[str, Callable[[Devices], Any]] = {}


def plan(function: Callable[[Devices], Any]) -> Callable[[Devices], Any]:
    """Make a plan part of the suite."""
    PLANS[function.__name__] = function
    return function


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

    def inner() -> Any:
        yield from bps.mv(d["motor2"], 0.5)  # an interrupted plan may have left it at different places, even kinds,
        yield from bps.read(d["motor2"])  # and its setpoint is described by what was last read of it, by whomever
        return (yield from bp.scan([d["det"]], d["motor"], 0, 1, 3))

    return supplement(inner())


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
        return seen(error)


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
            return seen(error)
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
            return seen(error)
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


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_gives_the_same_with_remote_devices(name: str, pair: Pair) -> None:
    pair.compare(PLANS[name])
