"""Step scans: the devices move to a point, rest, and are read."""

import time
from collections.abc import Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from bluesky.protocols import Movable, Readable
from bluesky.utils import MsgGenerator

from plans._steps import Number, Seconds, step

__all__ = ["grid", "line_scan", "time_scan"]


def line_scan(
    detectors: Sequence[Readable],
    motor: Movable,
    start: float,
    stop: float,
    num: Number,
    *,
    settle: Seconds = 0.0,
    one_instruction: bool = False,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step a motor from start to stop and read the detectors at each point.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    motor :
        What is moved; its limits are checked before the scan begins.
    start :
        First position, in the motor's units.
    stop :
        Last position, in the motor's units.
    num :
        Number of points, both ends included.
    settle :
        Time to wait at each point before the detectors are triggered, in seconds.
    one_instruction :
        Whether each point is one instruction to the device server, which is faster; not with settle.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    metadata = {"plan_name": "line_scan", **(md or {})}
    per_step = step(settle, one_instruction=one_instruction)
    return (yield from bp.scan(list(detectors), motor, start, stop, num=num, per_step=per_step, md=metadata))


def grid(
    detectors: Sequence[Readable],
    *axes: Any,
    snake: bool = True,
    settle: Seconds = 0.0,
    one_instruction: bool = False,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan a rectangular mesh of two or more motors, back and forth.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    *axes :
        Groups of ``motor, start, stop, num``, the slowest first.
    snake :
        Whether every second line is taken backwards, which saves the way back.
    settle :
        Time to wait at each point before the detectors are triggered, in seconds.
    one_instruction :
        Whether each point is one instruction to the device server, which is faster; not with settle.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    if len(axes) < 8 or len(axes) % 4:
        raise ValueError(f"axes are groups of motor, start, stop, num, for two motors or more; {len(axes)} were given")
    metadata = {"plan_name": "grid", **(md or {})}
    per_step = step(settle, one_instruction=one_instruction)
    return (yield from bp.grid_scan(list(detectors), *axes, snake_axes=snake, per_step=per_step, md=metadata))


def time_scan(
    detectors: Sequence[Readable],
    duration: Seconds,
    period: Seconds = 0.0,
    *,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Read the detectors again and again, for a given time.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    duration :
        Time after which no further reading begins, in seconds; there is always one.
    period :
        Time from the begin of one reading to that of the next, in seconds; less than a reading takes means: at once.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    num = None if not period else max(1, int(duration / period) + 1)
    metadata = {
        "plan_name": "time_scan",
        "detectors": [detector.name for detector in detectors],
        "plan_args": {"detectors": list(map(repr, detectors)), "duration": duration, "period": period},
        "hints": {"dimensions": [(("time",), "primary")]},
        **({} if num is None else {"num_points": num}),
        **(md or {}),
    }

    @bpp.stage_decorator(list(detectors))
    @bpp.run_decorator(md=metadata)
    def readings() -> MsgGenerator[Any]:
        began = time.monotonic()
        count = 0
        while num is None or count < num:
            yield from bps.checkpoint()
            yield from bps.trigger_and_read(list(detectors))
            count += 1
            elapsed = time.monotonic() - began
            if num is None and elapsed >= duration:
                return
            if num is not None and count < num:
                yield from bps.sleep(max(0.0, count * period - elapsed))

    return (yield from readings())
