"""Draw the points of our patterns, in the order in which they are visited: `python docs/reference/plot_patterns.py`."""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from plans._points import growing, hexagonal, in_order, rings, shells_in_rectangle  # noqa: E402

_SIZE = 240.0
_MARGIN = 12.0


def patterns() -> dict[str, np.ndarray]:
    steps = growing(0.0, 10.0, 14, 10.0)
    scattered = np.random.default_rng(3).uniform(-5, 5, (60, 2))
    lattice = hexagonal(-5, 5, -4, 4, 1.2)
    regions = ((-5, 5, 11, -3, 3, 4), (-1, 1, 9, -1, 1, 9))
    return {
        "growing_step_scan": np.column_stack([steps, np.zeros_like(steps)]),
        "hexagonal_scan": in_order(lattice, "corridor"),
        "round_scan": rings(0.0, 5.0, 5, 6),
        "round_roi_scan": shells_in_rectangle(10.0, 6.0, 0.9, 5),
        "multi_region_grid": np.concatenate([mesh(*region) for region in regions]),
        "order_as_made": scattered,
        "order_nearest": in_order(scattered, "nearest"),
        "order_corridor": in_order(scattered, "corridor"),
        "order_shell": in_order(scattered, "shell"),
    }


def mesh(x_start: float, x_stop: float, x_num: int, y_start: float, y_stop: float, y_num: int) -> np.ndarray:
    """Give a region of `multi_region_grid`, back and forth."""
    line = np.linspace(x_start, x_stop, x_num)
    rows = enumerate(np.linspace(y_start, y_stop, y_num))
    return np.concatenate([np.column_stack([line[:: -1 if row % 2 else 1], np.full(x_num, y)]) for row, y in rows])


def svg(points: np.ndarray) -> str:
    """Draw points and the way through them; the first is filled."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scale = (_SIZE - 2 * _MARGIN) / span.max()
    height = span[1] * scale + 2 * _MARGIN
    places = [(_MARGIN + (x - low[0]) * scale, height - _MARGIN - (y - low[1]) * scale) for x, y in points]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{"#000" if number == 0 else "#2b7bba"}"/>'
        for number, (x, y) in enumerate(places)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE:.0f}" height="{height:.0f}" style="background:#fff">'
        f'<polyline points="{way}" fill="none" stroke="#bbb" stroke-width="0.8"/>{dots}</svg>\n'
    )


if __name__ == "__main__":
    for name, points in patterns().items():
        (Path(__file__).parent / "plans" / f"{name}.svg").write_text(svg(points))
