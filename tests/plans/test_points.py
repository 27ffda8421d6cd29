"""Patterns of points against independent computations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans._points import Order, growing, hexagonal, in_order, rings, shells_in_rectangle

ORDERS: tuple[Order, ...] = ("as_made", "nearest", "corridor", "shell")
sizes = st.floats(0.5, 20.0)
places = st.floats(-50.0, 50.0)


def length(points: np.ndarray) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


@given(places, st.floats(0.1, 100.0), st.integers(3, 60), st.floats(0.05, 50.0))
def test_growing_steps_have_one_ratio_and_reach_both_ends(start: float, span: float, num: int, ratio: float) -> None:
    steps = np.diff(growing(start, start + span, num, ratio))
    assert math.isclose(steps.sum(), span, rel_tol=1e-9)
    assert steps[-1] / steps[0] == pytest.approx(ratio, rel=1e-5)
    assert np.allclose(steps[1:] / steps[:-1], steps[1] / steps[0], rtol=1e-4)


def test_growing_of_one_point_or_a_negative_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 points"):
        growing(0, 1, 1, 2)
    with pytest.raises(ValueError, match="positive number"):
        growing(0, 1, 5, -2)


@settings(deadline=None, max_examples=40)
@given(places, sizes, places, sizes, st.floats(0.3, 5.0))
def test_a_hexagonal_lattice_lies_inside_and_has_its_spacing(
    x: float, width: float, y: float, height: float, spacing: float
) -> None:
    points = hexagonal(x + width, x, y, y + height, spacing)
    assert (points[:, 0] >= x - 1e-6).all()
    assert (points[:, 0] <= x + width + 1e-6).all()
    assert (points[:, 1] >= y - 1e-6).all()
    assert (points[:, 1] <= y + height + 1e-6).all()
    distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    if len(points) > 1:
        assert distances.min() >= spacing * (1 - 1e-6)
    # a point well inside has six neighbours
    inside = (np.abs(points - (x + width / 2, y + height / 2)) < (width / 2 - spacing, height / 2 - spacing)).all(
        axis=1
    )
    assert ((distances[inside] < spacing * 1.001).sum(axis=1) == 6).all()


def test_rings_have_as_many_points_as_they_should() -> None:
    points = rings(0.0, 3.0, 3, 6)
    radii = np.round(np.hypot(points[:, 0], points[:, 1]), 9)
    assert dict(zip(*np.unique(radii, return_counts=True), strict=True)) == {0.0: 1, 1.0: 6, 2.0: 12, 3.0: 18}
    hollow = rings(2.0, 4.0, 3, 5)
    radii = np.round(np.hypot(hollow[:, 0], hollow[:, 1]), 9)
    assert dict(zip(*np.unique(radii, return_counts=True), strict=True)) == {2.0: 5, 3.0: 10, 4.0: 15}
    assert rings(1.0, 2.0, 1, 4).shape == (4, 2)


@pytest.mark.parametrize(("inner", "outer"), [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, math.nan)])
def test_rings_without_width_are_refused(inner: float, outer: float) -> None:
    with pytest.raises(ValueError, match="inner < outer"):
        rings(inner, outer, 3, 5)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, st.floats(0.2, 3.0), st.integers(3, 8))
def test_shells_fill_the_rectangle_and_nothing_else(width: float, height: float, spacing: float, first: int) -> None:
    points = shells_in_rectangle(width, height, spacing, first)
    assert (np.abs(points) <= (width / 2 + 1e-6, height / 2 + 1e-6)).all()
    expected = 1
    for number in range(1, math.ceil(math.hypot(width, height) / 2 / spacing) + 1):
        for each in range(number * first):
            angle = 2 * math.pi * each / (number * first)
            x, y = number * spacing * math.cos(angle), number * spacing * math.sin(angle)
            expected += abs(x) <= width / 2 + 1e-9 and abs(y) <= height / 2 + 1e-9
    assert len(points) == expected


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(places, places), min_size=1, max_size=60), st.sampled_from(ORDERS))
def test_an_order_loses_no_point(listed: list[tuple[float, float]], order: Order) -> None:
    points = np.array(listed)
    assert sorted(map(tuple, in_order(points, order).tolist())) == sorted(map(tuple, points.tolist()))


@pytest.mark.parametrize("order", ["nearest", "corridor", "shell"])
def test_an_order_saves_way_through_scattered_points(order: Order) -> None:
    points = np.random.default_rng(7).uniform(-5, 5, (300, 2))
    assert length(in_order(points, order)) < 0.5 * length(points)


def test_what_there_is_no_order_for_and_too_many_points_are_refused() -> None:
    with pytest.raises(ValueError, match="as_made, nearest, corridor and shell"):
        in_order(np.zeros((2, 2)), "backwards")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="larger steps"):
        hexagonal(0, 100, 0, 100, 1e-3)
    with pytest.raises(ValueError, match="take 'corridor'"):
        in_order(np.zeros((10_001, 2)), "nearest")
