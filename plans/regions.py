"""Scans over several regions in one run: dense where it matters, wide elsewhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator

from plans._points import Order, in_order
from plans._steps import Number, Seconds, scan_points

__all__ = ["multi_region_grid", "multi_region_scan"]


def multi_region_scan(
    detectors: Sequence[Readable],
    motor: NamedMovable[Any],
    regions: Sequence[Sequence[float]],
    *,
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step a motor through several regions, each with its own number of points, as one run.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    motor :
        What is moved.
    regions :
        For each region start, stop and number of points, both ends included: ``[[0, 1, 5], [1, 1.2, 41]]``. A region
        that begins where the one before ended does not take that point twice.
    relative :
        Whether starts and stops are distances from where the motor is; it returns there at the end.
    settle :
        Time to wait at each point before the detectors are triggered, in seconds.
    repeats :
        Number of readings at each point.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    positions: list[float] = []
    for number, region in enumerate(regions, start=1):
        start, stop, num = _region(number, region, "start, stop, number of points", 3)
        line = np.linspace(start, stop, _count(number, num)).tolist()
        positions += line[1:] if positions and len(line) > 1 and line[0] == positions[-1] else line
    if not positions:
        raise ValueError("regions is empty: give at least one [start, stop, number of points]")
    arguments = {"regions": [list(region) for region in regions]}
    axes = {motor: positions}
    return (
        yield from scan_points(
            "multi_region_scan",
            detectors,
            axes,
            arguments,
            relative=relative,
            settle=settle,
            repeats=repeats,
            md=md,
        )
    )


def multi_region_grid(
    detectors: Sequence[Readable],
    x_motor: NamedMovable[Any],
    y_motor: NamedMovable[Any],
    regions: Sequence[Sequence[float]],
    *,
    snake: bool = True,
    order: Order = "as_made",
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan several rectangular meshes one after the other, as one run.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    x_motor :
        The fast motor.
    y_motor :
        The slow motor.
    regions :
        For each region x start, x stop, number in x, y start, y stop, number in y: ``[[0, 1, 11, 0, 2, 5], …]``.
    snake :
        Whether every second line of a region is taken backwards.
    order :
        The way through all points; other than as_made, it replaces `snake`.
    relative :
        Whether starts and stops are distances from where the motors are; they return there at the end.
    settle :
        Time to wait at each point before the detectors are triggered, in seconds.
    repeats :
        Number of readings at each point.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    if not regions:
        raise ValueError("regions is empty: give at least one [x start, x stop, x number, y start, y stop, y number]")
    meshes = [_mesh(number, region, snake=snake) for number, region in enumerate(regions, start=1)]
    points = in_order(np.concatenate(meshes), order)
    arguments = {"regions": [list(region) for region in regions], "snake": snake, "order": order}
    axes = {x_motor: points[:, 0], y_motor: points[:, 1]}
    return (
        yield from scan_points(
            "multi_region_grid",
            detectors,
            axes,
            arguments,
            relative=relative,
            settle=settle,
            repeats=repeats,
            md=md,
        )
    )


def _mesh(number: int, region: Sequence[float], *, snake: bool) -> Any:
    asked = "x start, x stop, x number, y start, y stop, y number"
    x_start, x_stop, x_num, y_start, y_stop, y_num = _region(number, region, asked, 6)
    line = np.linspace(x_start, x_stop, _count(number, x_num))
    lines = [
        np.column_stack([line[::-1] if snake and row % 2 else line, np.full(len(line), y)])
        for row, y in enumerate(np.linspace(y_start, y_stop, _count(number, y_num)))
    ]
    return np.concatenate(lines)


def _region(number: int, region: Sequence[float], asked: str, length: int) -> Sequence[float]:
    if len(region) != length:
        raise ValueError(f"region {number} is {list(region)}: it must be [{asked}]")
    return region


def _count(number: int, count: float) -> int:
    if count != int(count) or count < 1:
        raise ValueError(f"region {number}: {count:g} is no number of points: a whole number, 1 or more, is needed")
    return int(count)
