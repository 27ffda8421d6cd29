"""Scans over points that lie in a pattern: hexagons, rings, steps that grow; and in the order that saves the way."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator

from plans._points import Order, growing, hexagonal, in_order, rings, shells_in_rectangle
from plans._steps import Number, Seconds, scan_points

__all__ = ["growing_step_scan", "hexagonal_scan", "round_roi_scan", "round_scan"]

Size = Annotated[float, Gt(0)]


def growing_step_scan(
    detectors: Sequence[Readable],
    motor: NamedMovable[Any],
    start: float,
    stop: float,
    num: Number,
    ratio: Size = 10.0,
    *,
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step a motor from start to stop with steps that grow: dense at the start, wide at the end.

    bluesky's `log_scan` spaces the positions themselves by powers of ten; here the steps grow, wherever they start.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    motor :
        What is moved.
    start :
        First position, in the motor's units.
    stop :
        Last position, in the motor's units.
    num :
        Number of points, both ends included; 2 or more.
    ratio :
        Last step divided by the first one; below 1 the steps shrink.
    relative :
        Whether start and stop are distances from where the motor is; it returns there at the end.
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
    positions = growing(start, stop, num, ratio)
    arguments = {"start": start, "stop": stop, "num": num, "ratio": ratio}
    axes = {motor: positions}
    return (
        yield from scan_points(
            "growing_step_scan", detectors, axes, arguments, relative=relative, settle=settle, repeats=repeats, md=md
        )
    )


def hexagonal_scan(
    detectors: Sequence[Readable],
    x_motor: NamedMovable[Any],
    x_start: float,
    x_stop: float,
    y_motor: NamedMovable[Any],
    y_start: float,
    y_stop: float,
    spacing: Size,
    *,
    order: Order = "corridor",
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan a rectangle on a hexagonal lattice: no place is further than 0.58 of the spacing from a point.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    x_motor :
        What moves along the rows.
    x_start :
        One end of the rows, in the motor's units.
    x_stop :
        The other end of the rows.
    y_motor :
        What moves from row to row.
    y_start :
        One end of the columns, in the motor's units.
    y_stop :
        The other end of the columns.
    spacing :
        Distance of each point from its six neighbours; both motors must have the same units.
    order :
        The way through the points.
    relative :
        Whether positions are distances from where the motors are; they return there at the end.
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
    points = in_order(hexagonal(x_start, x_stop, y_start, y_stop, spacing), order)
    arguments = {
        "x_start": x_start,
        "x_stop": x_stop,
        "y_start": y_start,
        "y_stop": y_stop,
        "spacing": spacing,
        "order": order,
    }
    axes = {x_motor: points[:, 0], y_motor: points[:, 1]}
    return (
        yield from scan_points(
            "hexagonal_scan", detectors, axes, arguments, relative=relative, settle=settle, repeats=repeats, md=md
        )
    )


def round_scan(
    detectors: Sequence[Readable],
    x_motor: NamedMovable[Any],
    y_motor: NamedMovable[Any],
    outer: Size,
    num_rings: Number,
    points_in_first: Number = 6,
    *,
    inner: float = 0.0,
    x_center: float = 0.0,
    y_center: float = 0.0,
    order: Order = "as_made",
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan rings round a centre; the n-th ring has n times as many points as the first, so that they lie evenly.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    x_motor :
        What moves along x.
    y_motor :
        What moves along y, in the same units.
    outer :
        Radius of the last ring, in the motors' units.
    num_rings :
        Number of rings; the centre, if the inner radius is 0, comes on top.
    points_in_first :
        Number of points in the first ring.
    inner :
        Radius of the first ring; 0: the centre is a point, and the rings lie evenly between it and the outer one.
    x_center :
        Where the centre is, in x.
    y_center :
        Where the centre is, in y.
    order :
        The way through the points.
    relative :
        Whether the centre is a distance from where the motors are; they return there at the end.
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
    points = in_order(rings(inner, outer, num_rings, points_in_first), order) + np.array([x_center, y_center])
    arguments = {
        "outer": outer,
        "num_rings": num_rings,
        "points_in_first": points_in_first,
        "inner": inner,
        "x_center": x_center,
        "y_center": y_center,
        "order": order,
    }
    axes = {x_motor: points[:, 0], y_motor: points[:, 1]}
    return (
        yield from scan_points(
            "round_scan", detectors, axes, arguments, relative=relative, settle=settle, repeats=repeats, md=md
        )
    )


def round_roi_scan(
    detectors: Sequence[Readable],
    x_motor: NamedMovable[Any],
    y_motor: NamedMovable[Any],
    width: Size,
    height: Size,
    spacing: Size,
    points_in_first: Number = 5,
    *,
    x_center: float = 0.0,
    y_center: float = 0.0,
    order: Order = "as_made",
    relative: bool = False,
    settle: Seconds = 0.0,
    repeats: Number = 1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Fill a rectangle with the points of rings round its centre: no direction is sampled regularly.

    Parameters
    ----------
    detectors :
        What is triggered and read.
    x_motor :
        What moves along x.
    y_motor :
        What moves along y, in the same units.
    width :
        Size of the rectangle along x, in the motors' units.
    height :
        Size of the rectangle along y.
    spacing :
        Distance of the rings.
    points_in_first :
        Number of points in the first ring.
    x_center :
        Where the middle of the rectangle is, in x.
    y_center :
        Where the middle of the rectangle is, in y.
    order :
        The way through the points.
    relative :
        Whether the middle is a distance from where the motors are; they return there at the end.
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
    points = in_order(shells_in_rectangle(width, height, spacing, points_in_first), order) + np.array(
        [x_center, y_center]
    )
    arguments = {
        "width": width,
        "height": height,
        "spacing": spacing,
        "points_in_first": points_in_first,
        "x_center": x_center,
        "y_center": y_center,
        "order": order,
    }
    axes = {x_motor: points[:, 0], y_motor: points[:, 1]}
    return (
        yield from scan_points(
            "round_roi_scan", detectors, axes, arguments, relative=relative, settle=settle, repeats=repeats, md=md
        )
    )
