"""Plans that bluesky-queueserver's built-in profile has by name, beside those of bluesky."""

from collections.abc import Sequence
from typing import Annotated, Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from annotated_types import Ge, Interval, Unit
from bluesky.protocols import Movable, Readable

if "devices" not in globals():  # in a session without bec-bluesky: the devices of ophyd.sim
    from ophyd.sim import hw

    devices = vars(hw())


def marked_up_count(detectors: list[Any], num: int = 1, delay: float | None = None, md: dict[str, Any] | None = None):
    """Count, with annotations that say what each argument is.

    Parameters
    ----------
    detectors
        What is read.
    num
        How many readings.
    delay
        Seconds between them.
    md
        Metadata of the run.
    """
    return (yield from bp.count(detectors, num=num, delay=delay, md=md))


def move_then_count(
    motors: Annotated[Sequence[Movable], {"labels": ["motors"]}],
    detectors: Annotated[Sequence[Readable] | None, {"labels": ["detectors"]}] = None,
    positions: Annotated[Sequence[float] | None, Interval(ge=-10, le=10), {"step": 0.01}] = None,
):
    """Move motors into positions; then count detectors.

    Parameters
    ----------
    motors
        What is moved before the measurement.
    detectors
        What is read; det1 and det2 unless others are given.
    positions
        Where to, a number for each motor.
    """
    positions = positions or []
    if len(motors) != len(positions):
        raise ValueError(f"{len(motors)} motors need as many positions, not {len(positions)}")
    if motors:
        yield from bps.mv(*(each for pair in zip(motors, positions, strict=True) for each in pair))
    yield from bp.count(detectors or [devices["det1"], devices["det2"]])


def sim_multirun_plan_nested(npts: Annotated[int, Ge(0)], delay: Annotated[float, Unit("s"), Ge(0)] = 1.0):
    """Take two runs, the second within the first.

    Parameters
    ----------
    npts
        How many readings of the outer run; the inner one has one more.
    delay
        Seconds after each reading.
    """
    motor, motor1, motor2 = devices["motor"], devices["motor1"], devices["motor2"]

    def outer(points):
        for point in points:
            yield from bps.mv(motor, point * 0.2)
            yield from bps.trigger_and_read([motor, devices["det"]])
            yield from bps.sleep(delay)

    @bpp.set_run_key_decorator("run_2")
    @bpp.run_decorator(md={})
    def inner():
        for point in range(npts + 1):
            yield from bps.mv(motor1, point * 0.1 + 1, motor2, point * 0.2 - 2)
            yield from bps.trigger_and_read([motor1, motor2, devices["det2"]])
            yield from bps.sleep(delay)

    @bpp.set_run_key_decorator("run_1")
    @bpp.run_decorator(md={})
    def both():
        yield from outer(range(npts // 2))
        yield from inner()
        yield from outer(range(npts // 2, npts))

    yield from both()


def count_bundle_test(detectors, num=1, delay=None, *, per_shot=None, md=None):
    """Count detectors, also parts of a bundle such as sim_bundle_A.dets.det_A."""
    yield from bp.count(detectors, num=num, delay=delay, per_shot=per_shot, md=md)


def plan_test_progress_bars(n_progress_bars: Annotated[int, Ge(1)] = 1):
    """Print how far ten steps of half a second are, in as many bars as asked for.

    Parameters
    ----------
    n_progress_bars
        How many bars.
    """
    print(f"TESTING {n_progress_bars} PROGRESS BARS ...\n")
    for step in range(1, 11):
        yield from bps.sleep(0.5)
        bar = "#" * step + "." * (10 - step)
        for number in range(1, n_progress_bars + 1):
            print(f"TEST{number} |{bar}| {10 * step} %")
    print("TEST COMPLETED ...")
