"""Fly scans: detectors take frames by themselves while a motor moves."""

from collections.abc import Sequence
from typing import Annotated, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from annotated_types import Ge, Gt, Unit
from bluesky.protocols import Flyable, Movable
from bluesky.utils import MsgGenerator

__all__ = ["fly_scan"]

_FLUSH_PERIOD = 0.25
"""Seconds between two looks at what the detectors have written."""


def fly_scan(
    detectors: Sequence[Flyable],
    num: Annotated[int, Ge(1)],
    exposure: Annotated[float, Gt(0), Unit("s")],
    motor: Movable | None = None,
    start: float | None = None,
    stop: float | None = None,
    *,
    deadtime: Annotated[float, Ge(0), Unit("s")] = 0.0,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take frames one after the other, with a motor moving meanwhile if one is given.

    The frames stay in the detectors' files; the primary stream has their indices. What the motor tells of its position
    is a stream of its own, `<motor>_monitor`.

    Parameters
    ----------
    detectors :
        Detectors of ophyd-async that count their own frames (`StandardDetector`).
    num :
        Number of frames of each.
    exposure :
        Time of each frame, in seconds.
    motor :
        What moves from start to stop at constant speed in the time that the frames take; none: nothing moves.
    start :
        Position at the first frame, in the motor's units.
    stop :
        Position after the last frame, in the motor's units.
    deadtime :
        Time between two frames, in seconds; 0 is the least that the detector can.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    if motor is not None and (start is None or stop is None):
        raise ValueError("a motor needs start and stop")
    metadata = {
        "plan_name": "fly_scan",
        "detectors": [detector.name for detector in detectors],
        "num_points": num,
        "plan_args": {
            "detectors": list(map(repr, detectors)),
            "num": num,
            "exposure": exposure,
            "motor": None if motor is None else repr(motor),
            "start": start,
            "stop": stop,
            "deadtime": deadtime,
        },
        **({} if motor is None else {"motors": [_name(motor)]}),
        **(md or {}),
    }

    @bpp.stage_decorator([*detectors, *([] if motor is None else [motor])])
    @bpp.run_decorator(md=metadata)
    def flight() -> MsgGenerator[Any]:
        yield from _prepare(detectors, num, exposure, deadtime)
        if motor is None or start is None or stop is None:
            yield from _fly(detectors, [])
        else:
            yield from _fly_along(detectors, motor, start, stop, num * (exposure + deadtime))

    return (yield from flight())


def _prepare(detectors: Sequence[Flyable], num: int, exposure: float, deadtime: float) -> MsgGenerator[None]:
    from ophyd_async.core import TriggerInfo

    info = TriggerInfo(number_of_events=num, livetime=exposure, deadtime=deadtime)
    for detector in detectors:
        yield from bps.prepare(detector, info, group="prepare")  # pyright: ignore[reportArgumentType]  # Preparable too
    yield from bps.wait(group="prepare")
    yield from bps.declare_stream(*detectors, name="primary", collect=True)  # pyright: ignore[reportArgumentType]  # Collectable too


def _fly(detectors: Sequence[Flyable], along: Sequence[Flyable]) -> MsgGenerator[None]:
    """Start everything, then collect until all are done."""
    yield from bps.kickoff_all(*along, *detectors, wait=True)
    yield from bps.collect_while_completing(
        [*detectors, *along], detectors, flush_period=_FLUSH_PERIOD, stream_name="primary"
    )


def _fly_along(
    detectors: Sequence[Flyable], motor: Any, start: float, stop: float, duration: float
) -> MsgGenerator[None]:
    """Fly with a motor that moves from start to stop in `duration` seconds."""
    readback = getattr(motor, "user_readback", motor)
    if not (hasattr(motor, "prepare") and hasattr(motor, "kickoff")):
        raise TypeError(f"{_name(motor)} cannot fly: a motor of ophyd-async that has prepare and kickoff is needed")
    from ophyd_async.core import FlyMotorInfo

    speed = yield from bps.rd(motor.velocity)

    def along() -> MsgGenerator[None]:
        info = FlyMotorInfo(start_position=start, end_position=stop, time_for_move=duration)
        yield from bps.prepare(motor, info, wait=True)
        yield from bps.monitor(readback, name=f"{_name(motor)}_monitor")
        yield from _fly(detectors, [motor])
        yield from bps.unmonitor(readback)

    yield from bpp.finalize_wrapper(along(), bps.mv(motor.velocity, speed))


def _name(device: Any) -> str:
    return str(device.name)
