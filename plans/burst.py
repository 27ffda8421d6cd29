"""Step scans that the device server does by itself, point by point, with a device that is made for it."""

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from annotated_types import Ge, Unit
from bluesky.protocols import Flyable, NamedMovable, Readable
from bluesky.utils import Msg, MsgGenerator, short_uid

__all__ = ["burst_scan"]

Seconds = Annotated[float, Ge(0), Unit("s")]


def burst_scan(
    burst: Flyable,
    detectors: Sequence[Readable],
    motor: NamedMovable,
    start: float,
    stop: float,
    num: Annotated[int, Ge(1)],
    *,
    settle: Seconds = 0.0,
    period: Annotated[float, Ge(0.01), Unit("s")] = 0.25,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step a motor from start to stop and read the detectors at each point, without asking anybody in between.

    The events are those of a step scan, but come in pages, while it goes on. After a pause it goes on with the point
    that was under way; points that are taken are not taken again.

    Parameters
    ----------
    burst :
        Device of the device server that has motor and detectors, and takes the points (`devices.burst:Burst`).
    detectors :
        What is triggered and read; they must be among those of the burst.
    motor :
        What is moved; it must be among those of the burst.
    start :
        First position, in the motor's units.
    stop :
        Last position, in the motor's units.
    num :
        Number of points, both ends included.
    settle :
        Time to wait at each point before the detectors are triggered, in seconds.
    period :
        Time between two pages of events, in seconds.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    name = motor.name
    metadata = {
        "plan_name": "burst_scan",
        "detectors": [detector.name for detector in detectors],
        "motors": (name,),
        "num_points": num,
        "num_intervals": num - 1,
        "plan_args": {
            "burst": repr(burst),
            "detectors": list(map(repr, detectors)),
            "motor": repr(motor),
            "start": start,
            "stop": stop,
            "num": num,
            "settle": settle,
        },
        "plan_pattern": "inner_product",
        "plan_pattern_module": "bluesky.plan_patterns",
        "plan_pattern_args": {"num": num, "args": [repr(motor), start, stop]},
        **(md or {}),
    }
    fields = getattr(motor, "hints", {}).get("fields", [])
    metadata["hints"] = {"dimensions": [(fields, "primary")] if fields else [], **metadata.get("hints", {})}
    points = {
        "positions": {name: np.linspace(start, stop, num).tolist()},
        "detectors": [str(detector.name) for detector in detectors],
        "settle": settle,
    }

    @bpp.stage_decorator([*detectors, motor, burst])
    @bpp.run_decorator(md=metadata)
    def flight() -> MsgGenerator[Any]:
        yield from bps.prepare(burst, points, wait=True)  # pyright: ignore[reportArgumentType]  # Preparable too
        yield from bps.declare_stream(burst, name="primary", collect=True)  # pyright: ignore[reportArgumentType]  # Collectable too
        yield from bpp.rewindable_wrapper(_fly(burst, period), rewindable=False)

    return (yield from flight())


def _fly(burst: Any, period: float) -> MsgGenerator[None]:
    """Start, and collect until it is done; a message that a pause cuts short gives None."""
    yield Msg("checkpoint")  # nothing that came before is done again after a pause
    is_collected = True

    def collect() -> MsgGenerator[None]:
        nonlocal is_collected
        while True:
            if not is_collected:
                yield Msg("kickoff", burst)  # what was under way did not arrive: let it come again
            is_collected = False
            if (yield Msg("collect", burst, name="primary")) is not None:
                is_collected = True
                return

    def points() -> MsgGenerator[None]:
        group = short_uid("burst")
        yield Msg("kickoff", burst, group=group)
        yield Msg("complete", burst, group=group)
        is_done = False
        while not is_done:
            is_done = yield Msg("wait", None, group=group, timeout=period, error_on_timeout=False)
            if is_done is None:
                group = short_uid("burst")  # the RunEngine forgets a group whose wait was cut short
                yield Msg("complete", burst, group=group)
            yield from collect()
            yield Msg("checkpoint")  # here a deferred pause takes place

    def rescue(_: Exception) -> MsgGenerator[None]:
        """Fetch what was taken before it failed or was ended."""
        with contextlib.suppress(Exception):  # the first error is what the plan fails with
            if not is_collected:
                yield from collect()
            yield from bps.unstage(burst, wait=True)
            yield from collect()

    yield from bpp.contingency_wrapper(points(), except_plan=rescue)
