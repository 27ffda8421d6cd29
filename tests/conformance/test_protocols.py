"""Every protocol of `bluesky.protocols` has a case here: what it promises, used at home and remotely."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import bluesky.protocols
import pytest
from bluesky.protocols import Status
from bluesky.simulators import check_limits_async
from ophyd_async.core import TriggerInfo

from devices.burst import BurstPoints
from tests.conformance.comparison import Devices, Pair, seen

PROTOCOLS = {
    name: protocol
    for name, protocol in vars(bluesky.protocols).items()
    if getattr(protocol, "_is_protocol", False) and protocol.__module__ == bluesky.protocols.__name__
}


@dataclass
class Case:
    """Devices that keep a protocol, at home and remotely, and a plan that uses each of them by it."""

    names: tuple[str, ...]
    use: Callable[[Any], Any]


def in_a_run(use: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give what a plan gives, which `run_decorator` does not."""

    @functools.wraps(use)
    def wrapped(device: Any) -> Any:
        yield from bps.open_run()
        value = yield from use(device)
        yield from bps.close_run()
        return value

    return wrapped


def ended(stub: Callable[..., Any], *args: Any) -> Callable[[Any], Any]:
    """Do it and wait; the status it gives is another one remotely."""

    def use(device: Any) -> Any:
        yield from stub(device, *args, wait=True)

    return use


def _status(device: Any) -> Any:
    status = yield from bps.abs_set(device, 2.0, group="move")
    yield from bps.wait("move")
    told: list[bool] = []
    status.add_callback(lambda done: told.append(done is status))
    return isinstance(status, Status), status.done, status.success, status.exception(), told


@in_a_run
def _external_assets(device: Any) -> Any:
    yield from bps.stage(device, wait=True)
    yield from bps.trigger_and_read([device])
    yield from bps.unstage(device, wait=True)


@in_a_run
def _stream_assets(device: Any) -> Any:
    yield from bps.stage(device, wait=True)
    yield from bps.prepare(device, TriggerInfo(number_of_events=2, livetime=0.001), wait=True)
    yield from bps.declare_stream(device, name="main", collect=True)
    yield from _flying(device)
    yield from bps.collect(device, name="main")
    yield from bps.unstage(device, wait=True)


@in_a_run
def _configured(device: Any) -> Any:
    yield from bps.trigger_and_read([device])


@in_a_run
def _collected(device: Any) -> Any:
    yield from bps.declare_stream(device, name="flown", collect=True)
    yield from _flying(device)
    yield from bps.collect(device, name="flown")


@in_a_run
def _events(device: Any) -> Any:
    yield from _flying(device)
    return (yield from bps.collect(device))


@in_a_run
def _pages(device: Any) -> Any:
    points = BurstPoints(positions={"motor": [0.0, 1.0]}, detectors=["det"])
    yield from bps.prepare(device, points, wait=True)
    yield from bps.declare_stream(device, name="primary", collect=True)
    yield from _flying(device)
    yield from bps.collect(device, name="primary")


def _flying(device: Any) -> Any:
    yield from ended(bps.kickoff)(device)
    yield from ended(bps.complete)(device)


@in_a_run
def _read(device: Any) -> Any:
    yield from bps.trigger_and_read([device])
    return (yield from bps.read(device))


def _moved(device: Any) -> Any:
    yield from bps.mv(device, 1.25)
    return (yield from bps.rd(device))


def _located(device: Any) -> Any:
    yield from bps.mv(device, 0.5)
    yield from bps.mvr(device, 0.25)
    return (yield from bps.locate(device))


@in_a_run
def _paused(device: Any) -> Any:
    yield from bps.checkpoint()
    yield from bps.mv(device.gain, 2)
    yield from bps.rd(device)
    yield from bps.pause()
    return (yield from bps.rd(device.gain))


@in_a_run
def _stopped(device: Any) -> Any:
    if hasattr(device, "velocity"):
        yield from bps.mv(device.velocity, 0.001)
    yield from bps.abs_set(device, 10.0, group="move")
    try:  # the plan sees the error at one of these two messages
        yield from bps.stop(device)
        yield from bps.wait("move")
    except Exception as error:  # noqa: BLE001  # what the plan sees is compared
        return seen(error)
    return "it arrived"


@in_a_run
def _monitored(device: Any) -> Any:
    yield from bps.mv(device, 1.0)
    yield from bps.monitor(device, name="monitored")
    yield from bps.mv(device, 2.0)
    yield from bps.unmonitor(device)
    yield from bps.mv(device, 3.0)


def _checked(device: Any) -> Any:
    results: list[Any] = []

    async def check() -> None:
        for value in (1.0, 99.0):
            try:
                await check_limits_async([bps.Msg("set", device, value)])
                results.append("within")
            except Exception as error:  # noqa: BLE001  # what is seen is compared
                results.append(seen(error))

    yield from bps.wait_for([check])
    return results


def _told(attribute: str) -> Callable[[Any], Any]:
    def tell(device: Any) -> Any:
        yield from bps.null()
        value = getattr(device, attribute)
        return value if attribute != "parent" else (value.name, value.parent, value.velocity.parent is value)

    return tell


BOTH = ("faulty", "faulty_async")
CASES = {
    "Status": Case(("motor", "sim_x", "sig", "temperature"), _status),
    "HasName": Case(("motor", "sim_x", "motor.velocity", "sim_x.velocity", "bank.parts"), _told("name")),
    "HasParent": Case(("motor.velocity", "sim_x.velocity"), _told("parent")),
    "WritesExternalAssets": Case(("image",), _external_assets),
    "WritesStreamAssets": Case(("blob",), _stream_assets),
    "Configurable": Case(BOTH, _configured),
    "Triggerable": Case(("det", "counter", "faulty_async"), ended(bps.trigger)),
    "Preparable": Case(BOTH, ended(bps.prepare, 1.0)),
    "Readable": Case(("det", "temperature", "turned", "bank", *BOTH), _read),
    "Collectable": Case(("burst",), _pages),
    "EventCollectable": Case((*BOTH, "flyer"), _events),
    "EventPageCollectable": Case(("burst",), _pages),
    "Movable": Case(("motor", "sim_x", "sig", "temperature", "limited", "turned.along"), _moved),
    "Locatable": Case(("sim_x", "temperature", *BOTH), _located),
    "Flyable": Case(BOTH, in_a_run(_flying)),
    "Stageable": Case(("det", "blob", *BOTH), lambda device: bpp.stage_wrapper(bps.null(), [device])),
    "Pausable": Case(BOTH, _paused),
    "Stoppable": Case(("slow", "creeping"), _stopped),
    "Subscribable": Case(("sig", "temperature"), _monitored),
    "Checkable": Case(("limited", "creeping", "turned.along", *BOTH), _checked),
    "HasHints": Case(("motor", "sim_x", "det", "faulty_async", "bank"), _told("hints")),
    "NamedMovable": Case(("motor", "sim_x"), _moved),
}


def test_every_protocol_of_bluesky_has_a_case() -> None:
    assert CASES.keys() == PROTOCOLS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_protocol_is_kept_remotely(name: str, pair: Pair) -> None:
    case = CASES[name]
    for path in case.names:
        if name != "Status":  # no device is one
            for bench in (pair.local, pair.remote):
                assert isinstance(_part(bench.devices, path), PROTOCOLS[name]), path
        outcome = pair.compare(lambda d, path=path: case.use(_part(d, path)))
        assert outcome.errors == []


def _part(devices: Devices, path: str) -> Any:
    device: Any = devices
    for number, name in enumerate(path.split(".")):
        device = getattr(device, name) if number else device[name]
    return device
