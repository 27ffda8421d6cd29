"""Where points lie in a plane, and in which order they are best visited: arrays of shape (points, 2), x and y."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "growing", "hexagonal", "in_order", "rings", "shells_in_rectangle"]

Points = NDArray[np.float64]
Order = Literal["as_made", "nearest", "corridor", "shell"]
"""as_made: as the pattern gives them; nearest: always on to the nearest point left; corridor: along x, back and forth,
in bands of y; shell: round the centre, there and back, in rings outwards."""
_TINY = 1e-9
"""Of a step: what rounding may take from the last point."""
_MOST = 1_000_000
"""Points of one pattern: a slip of the decimal point should be told before memory is full."""
_MOST_NEAREST = 10_000
"""Points for which the nearest one is looked for, which takes their number squared."""


def growing(start: float, stop: float, num: int, ratio: float) -> NDArray[np.float64]:
    """Give `num` positions from start to stop whose steps grow geometrically: the last is `ratio` times the first.

    Position k is start + (stop - start) (q^k - 1) / (q^(num-1) - 1) with q = ratio^(1 / (num - 2)), the sum of a
    geometric series. Raises ValueError for fewer than 2 points or a ratio that is not positive.
    """
    if num < 2:
        raise ValueError(f"num is {num}: steps that grow need at least 2 points")
    if not (ratio > 0 and math.isfinite(ratio)):
        raise ValueError(f"ratio is {ratio:g}: it is last step / first step, a positive number")
    if num == 2 or math.isclose(ratio, 1.0):
        return np.linspace(start, stop, num)
    factor = ratio ** (1.0 / (num - 2))
    fractions = (factor ** np.arange(num) - 1.0) / (factor ** (num - 1) - 1.0)
    fractions[-1] = 1.0
    return start + (stop - start) * fractions


def hexagonal(x_start: float, x_stop: float, y_start: float, y_stop: float, spacing: float) -> Points:
    """Give the points of a triangular lattice in a rectangle: each has six neighbours at `spacing`.

    Rows lie spacing · √3/2 apart; every second one is shifted by half a spacing. The lattice is in the middle of the
    rectangle. Source: the densest packing of equal circles in a plane (Lagrange 1773).
    """
    _check_positive(spacing=spacing)
    rise = spacing * math.sqrt(3.0) / 2.0
    (x_low, width), (y_low, height) = _span(x_start, x_stop), _span(y_start, y_stop)
    _check_number((width / spacing + 1) * (height / rise + 1))
    per_row = math.floor(width / spacing + _TINY) + 1
    in_shifted = math.floor(width / spacing + 0.5 + _TINY)
    rows = math.floor(height / rise + _TINY) + 1
    extent = (per_row - 1) * spacing + (spacing / 2.0 if in_shifted == per_row else 0.0)
    left = x_low + (width - extent) / 2.0
    shifted = left + spacing / 2.0
    bottom = y_low + (height - (rows - 1) * rise) / 2.0
    points = [
        (shifted + column * spacing if row % 2 else left + column * spacing, bottom + row * rise)
        for row in range(rows)
        for column in range(in_shifted if row % 2 else per_row)
    ]
    return np.array(points, dtype=float).reshape(-1, 2)


def rings(inner: float, outer: float, num_rings: int, points_in_first: int) -> Points:
    """Give points on rings round the origin, from radius `inner` to `outer`; the n-th ring has n times as many points.

    Rings are evenly apart; an inner radius of 0 gives the centre, one point, and the ring after it is then the first.
    The pattern is SPEC's and PSI's "round scan".
    """
    if not 0 <= inner < outer:
        raise ValueError(f"radii are {inner:g} and {outer:g}: 0 <= inner < outer is needed")
    _check_count(num_rings=num_rings, points_in_first=points_in_first)
    _check_number(points_in_first * num_rings * (num_rings + 1) / 2)
    radii = np.linspace(inner, outer, num_rings + (inner == 0)) if num_rings > 1 or inner == 0 else np.array([outer])
    points = [(0.0, 0.0)] if inner == 0 else []
    for number, radius in enumerate(radii[1:] if inner == 0 else radii, start=1):
        angles = 2.0 * math.pi * np.arange(number * points_in_first) / (number * points_in_first)
        points += zip(radius * np.cos(angles), radius * np.sin(angles), strict=True)
    return np.array(points, dtype=float)


def shells_in_rectangle(width: float, height: float, spacing: float, points_in_first: int) -> Points:
    """Give the points of rings, `spacing` apart round the origin, that lie in a rectangle of that width and height.

    A rectangle of which a ring reaches over the sides is filled to its corners. PSI's "round ROI scan".
    """
    _check_positive(width=width, height=height, spacing=spacing)
    num_rings = math.ceil(math.hypot(width, height) / 2.0 / spacing)
    points = rings(0.0, num_rings * spacing, num_rings, points_in_first)
    inside = (np.abs(points[:, 0]) <= width / 2.0 + _TINY) & (np.abs(points[:, 1]) <= height / 2.0 + _TINY)
    return points[inside]


def in_order(points: Points, order: Order) -> Points:
    """Give the same points in the order in which they are to be visited; the first stays first with `nearest`."""
    match order:
        case "as_made":
            return points
        case "nearest":
            return _nearest(points)
        case "corridor":
            return _corridor(points)
        case "shell":
            return _shell(points)
    raise ValueError(f"order is {order!r}: there are as_made, nearest, corridor and shell")


def _nearest(points: Points) -> Points:
    if len(points) > _MOST_NEAREST:
        raise ValueError(f"{len(points)} points are too many for order='nearest' ({_MOST_NEAREST}): take 'corridor'")
    left = np.ones(len(points), dtype=bool)
    visited = np.empty(len(points), dtype=int)
    here = 0
    for number in range(len(points)):
        visited[number] = here
        left[here] = False
        if number + 1 < len(points):
            distances = np.where(left, ((points - points[here]) ** 2).sum(axis=1), np.inf)
            here = int(distances.argmin())
    return points[visited]


def _corridor(points: Points) -> Points:
    """Go along x in bands of y that are as high as points are apart, on average."""
    if len(points) < 3:
        return points
    band = _bands(points[:, 1], _typical_distance(points))
    return np.concatenate(
        [_along(points[band == each], number % 2 == 1) for number, each in enumerate(np.unique(band))]
    )


def _along(part: Points, is_backwards: bool) -> Points:
    along = part[np.lexsort((part[:, 1], part[:, 0]))]
    return along[::-1] if is_backwards else along


def _shell(points: Points) -> Points:
    """Go round the centre of all points in rings, there and back."""
    if len(points) < 3:
        return points
    center = (points.min(axis=0) + points.max(axis=0)) / 2.0
    away = points - center
    shell = _bands(np.hypot(away[:, 0], away[:, 1]), _typical_distance(points))
    angle = np.arctan2(away[:, 1], away[:, 0])
    found: list[Points] = []
    for number, each in enumerate(np.unique(shell)):
        inside = np.flatnonzero(shell == each)
        round_it = inside[np.argsort(angle[inside], kind="stable")]
        found.append(points[round_it[::-1] if number % 2 else round_it])
    return np.concatenate(found)


def _typical_distance(points: Points) -> float:
    """Give the distance of neighbours if the points filled their rectangle evenly; of a line, the mean step."""
    width, height = np.ptp(points, axis=0)
    return math.sqrt(width * height / len(points)) or max(width, height) / len(points) or 1.0


def _bands(values: NDArray[np.float64], size: float) -> NDArray[np.int64]:
    return np.floor((values - values.min()) / size + _TINY).astype(np.int64)


def _span(start: float, stop: float) -> tuple[float, float]:
    return min(start, stop), abs(stop - start)


def _check_number(number: float) -> None:
    if not number <= _MOST:
        raise ValueError(f"that makes about {number:.0f} points; {_MOST} is the most: take larger steps")


def _check_positive(**given: float) -> None:
    for name, value in given.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value:g}: it must be a positive number")


def _check_count(**given: int) -> None:
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be 1 or more")
