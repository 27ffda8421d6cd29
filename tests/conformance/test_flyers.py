"""Devices that proceed by themselves: kickoff, complete, collect; events, pages, resources and stream resources."""

from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from ophyd_async.core import FlyMotorInfo, TriggerInfo

from devices.burst import BurstPoints
from tests.conformance.comparison import Devices, Pair


def a_file_writing_detector(d: Devices) -> Any:
    return _fly([d["blob"]], number=4)


def two_detectors_into_one_stream(d: Devices) -> Any:
    return _fly([d["blob"], d["blob2"]], number=3)


def _fly(detectors: list[Any], *, number: int) -> Any:
    @bpp.stage_decorator(detectors)
    @bpp.run_decorator()
    def inner() -> Any:
        for detector in detectors:
            yield from bps.prepare(detector, TriggerInfo(number_of_events=number, livetime=0.001), wait=True)
        yield from bps.declare_stream(*detectors, name="main", collect=True)
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.complete_all(*detectors, wait=True)
        return (yield from bps.collect(*detectors, name="main", return_payload=False))

    return inner()


def two_detectors_that_are_collected_while_they_go(d: Devices) -> Any:
    detectors = [d["blob"], d["blob2"]]

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.prepare(detectors[0], TriggerInfo(number_of_events=3, livetime=0.001), group="prepared")
        yield from bps.prepare(detectors[1], TriggerInfo(number_of_events=3, livetime=0.001), group="prepared")
        yield from bps.wait("prepared")
        yield from bps.declare_stream(*detectors, name="main", collect=True)
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.collect_while_completing(detectors, detectors, flush_period=0.5, stream_name="main")

    return inner()


def a_detector_that_is_described_when_it_is_collected(d: Devices) -> Any:
    blob = d["blob"]

    @bpp.stage_decorator([blob])
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.prepare(blob, TriggerInfo(number_of_events=2, livetime=0.001), wait=True)
        yield from bps.kickoff(blob, wait=True)
        yield from bps.complete(blob, wait=True)
        yield from bps.collect(blob, name="main", return_payload=False)

    return inner()


def a_flying_motor(d: Devices) -> Any:
    motor = d["sim_x"]

    def inner() -> Any:
        yield from bps.prepare(motor, FlyMotorInfo(start_position=0, end_position=0.1, time_for_move=0.1), wait=True)
        yield from bps.kickoff(motor, wait=True)
        yield from bps.complete(motor, wait=True)
        location = yield from bps.locate(motor)
        yield from bps.mv(motor.velocity, 0.0)
        return location["setpoint"]

    return inner()


def events(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.kickoff(d["flyer"], wait=True)
        yield from bps.complete(d["flyer"], wait=True)
        return (yield from bps.collect(d["flyer"]))

    return inner()


def events_during_another_plan(d: Devices) -> Any:
    @bpp.fly_during_decorator([d["faulty"]])
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.mv(d["motor2"], 1)
        yield from bps.trigger_and_read([d["det2"]])

    return inner()


def pages(d: Devices) -> Any:
    burst, motor = d["burst"], d["motor"]

    @bpp.run_decorator()
    def inner() -> Any:
        points = BurstPoints(positions={"motor": [0.0, 1.0, 2.0]}, detectors=["det"])
        yield from bps.prepare(burst, points, wait=True)
        yield from bps.declare_stream(burst, name="primary", collect=True)
        yield from bps.kickoff(burst, wait=True)
        yield from bps.complete(burst, wait=True)
        yield from bps.collect(burst, name="primary")
        return (yield from bps.rd(motor))

    return inner()


def a_resource_and_its_data(d: Devices) -> Any:
    @bpp.stage_decorator([d["image"]])
    @bpp.run_decorator()
    def inner() -> Any:
        for _ in range(3):
            yield from bps.trigger_and_read([d["image"], d["det"]])

    return inner()


def a_flyer_that_nobody_collects(d: Devices) -> Any:
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.kickoff(d["faulty"], wait=True)
        yield from bps.complete(d["faulty"], wait=True)

    return inner()


@pytest.mark.parametrize(
    "plan",
    [
        a_file_writing_detector,
        two_detectors_into_one_stream,
        two_detectors_that_are_collected_while_they_go,
        a_detector_that_is_described_when_it_is_collected,
        a_flying_motor,
        events,
        events_during_another_plan,
        pages,
        a_resource_and_its_data,
        a_flyer_that_nobody_collects,
    ],
    ids=lambda plan: plan.__name__,
)
def test_flying_is_the_same(plan: Callable[[Devices], Any], pair: Pair) -> None:
    pair.compare(plan)
