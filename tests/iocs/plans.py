"""Plans for hardware; the queue and a bare RunEngine run the very same."""

from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from bluesky.protocols import Movable, Readable, Triggerable
from bluesky.suspenders import SuspendFloor


def set_and_read(signals: list[Readable], values: list[Any]) -> Generator[Any, Any, None]:
    """Set every signal, one after the other, and read each after it was set; then all of them in one event."""

    @bpp.run_decorator()
    def inner() -> Generator[Any, Any, None]:
        for number, (signal, value) in enumerate(zip(signals, values, strict=True)):
            yield from bps.abs_set(signal, value, wait=True)
            yield from bps.trigger_and_read([signal], name=f"number {number}")
        yield from bps.trigger_and_read(signals, name="all")

    return (yield from inner())


def watch(signal: Readable, times: int) -> Generator[Any, Any, None]:
    """Monitor a signal, for so many tenths of a second."""

    @bpp.monitor_during_decorator([signal])
    @bpp.run_decorator()
    def inner() -> Generator[Any, Any, None]:
        yield from bps.sleep(times * 0.1)

    return (yield from inner())


def move_to_reading(motor: Movable[Any], signal: Readable) -> Generator[Any, Any, None]:
    """Move to what a signal reads once it was triggered: no preflight can know where that is."""
    yield from bps.trigger(signal, wait=True)
    reading = yield from bps.read(signal)

    @bpp.run_decorator()
    def inner() -> Generator[Any, Any, None]:
        yield from bps.mv(motor, reading[signal.name]["value"])

    return (yield from inner())


def trigger_one(command: Triggerable) -> Generator[Any, Any, None]:
    """Trigger one thing, outside of a run."""
    yield from bps.trigger(command, wait=True)


def guarded(signal: Readable, num: int) -> Generator[Any, Any, None]:
    """Count a signal ten times a second, suspended while it is below 0.5."""
    yield from bpp.suspend_wrapper(bp.count([signal], num, delay=0.1), SuspendFloor(signal, 0.5))


def stop_on_the_way(motor: Movable[Any], far: float) -> Generator[Any, Any, None]:
    """Send a motor away, and stop it a second later."""

    @bpp.run_decorator()
    def inner() -> Generator[Any, Any, None]:
        yield from bps.abs_set(motor, far, group="move")
        yield from bps.sleep(1.0)
        yield from bps.stop(motor)
        yield from bps.wait("move")

    return (yield from inner())
