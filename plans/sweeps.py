"""Scans in which detectors are read while a motor moves."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from annotated_types import Ge, Gt, Unit
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator

from plans._steps import Number, Seconds

__all__ = ["continuous_line_scan", "line_sweep"]


def line_sweep(
    detectors: Sequence[Readable],
    motor: NamedMovable[Any],
    start: float,
    stop: float,
    *,
    min_interval: Seconds = 0.0,
    relative: bool = False,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Read the detectors at every update of a motor's readback while it moves from start to stop at its own speed.

    Where points lie is decided by the motor: updates that come while the detectors are read are passed over, and the
    position in an event is read with the detectors. The last event is taken at rest. After a pause the line is begun
    again, with as many readings as there were, as fast as they can be taken.

    Parameters
    ----------
    detectors :
        What is triggered and read; it should be quick, compared with the motor's updates.
    motor :
        What moves, and tells of its readback.
    start :
        Where the motor goes first, in its units.
    stop :
        Where it moves to while the detectors are read.
    min_interval :
        Shortest time from one reading to the next, in seconds; updates that come earlier are passed over.
    relative :
        Whether start and stop are distances from where the motor is; it returns there at the end.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    updates = _Updates(getattr(motor, "user_readback", motor))
    read: list[Any] = [*detectors, motor]
    arguments = {"start": start, "stop": stop, "min_interval": min_interval}

    def sweep() -> MsgGenerator[Any]:
        moving = yield from bps.abs_set(motor, stop, group="sweep")
        while not moving.done:
            asked = time.monotonic()
            yield from bps.wait_for([lambda: updates.next(moving)])
            yield from bps.sleep(max(0.0, min_interval - (time.monotonic() - asked)))
            yield from bps.trigger_and_read(read)
        yield from bps.wait(group="sweep")
        yield from bps.trigger_and_read(read)

    run = _run_along("line_sweep", detectors, motor, start, sweep, arguments, relative, {}, md)
    return (yield from bpp.finalize_wrapper(run, lambda: bps.wait_for([updates.close])))


def continuous_line_scan(
    detectors: Sequence[Readable],
    motor: NamedMovable[Any],
    start: float,
    stop: float,
    num: Number,
    period: Annotated[float, Gt(0), Unit("s")],
    *,
    run_up: Annotated[float, Ge(0)] = 0.0,
    relative: bool = False,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Read the detectors at a fixed period while a motor moves from start to stop without a rest.

    A motor that has a `velocity` is made as fast as the points need, and has its own speed again at the end. The
    position in an event is read with the detectors, in the middle of the motion: it lies evenly only as far as motor
    and detectors keep time. After a pause the line is begun again. For detectors that count their own frames `fly_scan`
    is the better one.

    Parameters
    ----------
    detectors :
        What is triggered and read; one reading must take less than the period.
    motor :
        What moves.
    start :
        Position of the first point, in the motor's units.
    stop :
        Position of the last point.
    num :
        Number of points, both ends included.
    period :
        Time from one point to the next, in seconds.
    run_up :
        How far before start the motor sets out, and behind stop it ends, to be at speed between them.
    relative :
        Whether start and stop are distances from where the motor is; it returns there at the end.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    if num < 2 or start == stop:
        raise ValueError(f"{num} points from {start:g} to {stop:g}: a motion needs 2 points or more and two places")
    speed = abs(stop - start) / ((num - 1) * period)
    run_up = run_up if stop > start else -run_up
    arguments = {"start": start, "stop": stop, "num": num, "period": period, "run_up": abs(run_up)}
    velocity: Any = getattr(motor, "velocity", None)
    read: list[Any] = [*detectors, motor]
    to_end = stop + run_up

    def points() -> MsgGenerator[Any]:
        if hasattr(velocity, "set"):
            yield from bps.mv(velocity, speed)
        moving = yield from bps.abs_set(motor, to_end, group="motion")
        yield from bps.sleep(abs(run_up) / speed)
        began = time.monotonic()
        for number in range(num):
            yield from bps.sleep(max(0.0, began + number * period - time.monotonic()))
            yield from bps.trigger_and_read(read)
            if moving.done and number + 2 < num:
                break  # it was faster than it promised: more points would all be taken at its end
        yield from bps.wait(group="motion")

    def motion() -> MsgGenerator[Any]:
        if not hasattr(velocity, "set"):
            yield from points()
            return
        before = yield from bps.rd(velocity)
        yield from bpp.finalize_wrapper(points(), lambda: bps.mv(velocity, before))

    metadata = {"num_points": num, "num_intervals": num - 1}
    begin = start - run_up
    return (
        yield from _run_along(
            "continuous_line_scan", detectors, motor, begin, motion, arguments, relative, metadata, md
        )
    )


def _run_along(
    name: str,
    detectors: Sequence[Readable],
    motor: NamedMovable[Any],
    begin: float,
    motion: Any,
    arguments: dict[str, Any],
    relative: bool,
    more: dict[str, Any],
    md: dict[str, Any] | None,
) -> MsgGenerator[str]:
    """Open a run, go to where the motion begins, move."""
    start, stop = arguments["start"], arguments["stop"]
    metadata = {
        "plan_name": name,
        "detectors": [str(getattr(detector, "name", detector)) for detector in detectors],
        "motors": [motor.name],
        "plan_args": {
            "detectors": list(map(repr, detectors)),
            "motor": repr(motor),
            **arguments,
            "relative": relative,
        },
        "hints": {"dimensions": [(getattr(motor, "hints", {}).get("fields") or [motor.name], "primary")]},
        "extents": [[min(start, stop), max(start, stop)]],
        **more,
        **(md or {}),
    }

    @bpp.stage_decorator([*detectors, motor])
    @bpp.run_decorator(md=metadata)
    def run() -> MsgGenerator[Any]:
        yield from bps.checkpoint()  # the only one: half a line is none
        yield from bps.mv(motor, begin)
        yield from motion()

    if not relative:
        return (yield from run())
    return (yield from bpp.reset_positions_wrapper(bpp.relative_set_wrapper(run(), [motor]), [motor]))


class _Updates:
    """Waits in the RunEngine's loop for news of a signal of ophyd, of ophyd-async, or of a remote one."""

    def __init__(self, signal: Any) -> None:
        self._signal = signal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._happened = asyncio.Event()

    async def next(self, status: Any) -> None:
        """Return at the first update since the last call, or when the status is done."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._signal.subscribe(self._note)
        status.add_callback(self._note)
        await self._happened.wait()
        self._happened.clear()

    def _note(self, *_: Any, **__: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._happened.set)

    async def close(self) -> None:
        """Hear no more."""
        if self._loop is not None:
            self._loop = None
            self._signal.clear_sub(self._note)
