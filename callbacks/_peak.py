"""What can be said of a peak or an edge: numbers without a model, and a fitted model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FWHM_PER_SIGMA", "Fit", "describe", "fit"]

Array = np.ndarray[Any, np.dtype[np.float64]]

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
_FEWEST = 5
"""Points that a fit of four parameters needs."""
_MOST = 1_000
"""Points that a fit is given; more are averaged in groups of neighbours."""


@dataclass(frozen=True)
class Fit:
    """Parameters of a model in the units of x and y, and which model it is."""

    model: str
    """`gaussian` or `edge`."""
    parameters: dict[str, float]


@np.errstate(all="ignore")
def describe(x: Array, y: Array, *, is_profile: bool = True) -> dict[str, float]:
    """Give what finite `x` and `y` say without a model; only what exists and is finite is there.

    max, max_position, min, min_position, center_of_mass; and if y is a profile along x (not a projection of a grid):
    center (middle of the half-height crossings beside the peak or dip; of an edge, its crossing) and fwhm. Definitions
    are those of `bluesky.callbacks.fitting.PeakStats` where the peak is single, except that the points need not be in
    order or evenly spaced.
    """
    if not x.size:
        return {}
    highest, lowest = int(np.argmax(y)), int(np.argmin(y))
    values = {"max": y[highest], "max_position": x[highest], "min": y[lowest], "min_position": x[lowest]}
    mass = np.sum(y)
    center = np.sum(x * y) / mass if mass else math.nan
    if np.min(x) <= center <= np.max(x):  # readings of both signs have no centre of mass
        values["center_of_mass"] = center
    if is_profile:
        values.update(_half_height(x, y))
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _half_height(x: Array, y: Array) -> dict[str, float]:
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    half = _middle(y)
    _, left, right = _flanks(y)
    if left is not None and right is not None:
        begin, end = _crossing(x, y, half, left), _crossing(x, y, half, right)
        return {"center": (begin + end) / 2, "fwhm": end - begin}
    edge = left if left is not None else right
    return {} if edge is None else {"center": _crossing(x, y, half, edge)}


def _middle(y: Array) -> float:
    bottom = float(np.min(y))
    return bottom + (float(np.max(y)) - bottom) / 2


def _flanks(y: Array) -> tuple[int, int | None, int | None]:
    """Find the top of the peak (or the bottom of the dip), and the steps beside it where y passes half height."""
    above = y > _middle(y)
    steps = np.flatnonzero(above[1:] != above[:-1])
    found: list[tuple[int, int | None, int | None]] = []
    for extreme in (int(np.argmax(y)), int(np.argmin(y))):
        before, behind = steps[steps < extreme], steps[steps >= extreme]
        left, right = int(before[-1]) if before.size else None, int(behind[0]) if behind.size else None
        if left is not None and right is not None:
            return extreme, left, right
        found.append((extreme, left, right))
    return found[0]


def _crossing(x: Array, y: Array, level: float, step: int) -> float:
    """Interpolate where y passes the level between two neighbours, one of which is above it."""
    share = (level - y[step]) / (y[step + 1] - y[step])
    return float(x[step] + share * (x[step + 1] - x[step]))


@np.errstate(all="ignore")
def fit(x: Array, y: Array) -> Fit | None:
    """Fit a Gaussian and an edge (error function) to finite `x` and `y` and give the better; None if neither holds.

    Parameters: amplitude (negative for a dip; of an edge, its step upwards in x), center, sigma, fwhm (of an edge, of
    its derivative), background (of an edge, the level before it). A fit holds if it converges inside the scan, its
    amplitude exceeds three standard errors, and its width is known to better than itself. Costs milliseconds.
    """
    order = np.argsort(x, kind="stable")
    x, y = _averaged(x[order]), _averaged(y[order])
    if x.size < _FEWEST:
        return None
    span, height = float(x[-1] - x[0]), float(np.max(y) - np.min(y))
    if not (math.isfinite(span) and math.isfinite(height) and span > 0 and height > 0):
        return None
    u, v = (x - x[0]) / span, (y - np.min(y)) / height
    found = [solution for model in _MODELS if (solution := _solve(u, v, model)) is not None]
    if not found:
        return None
    best = min(found, key=lambda solution: solution.residual)
    parameters = {
        "amplitude": best.amplitude * height,
        "center": float(x[0]) + best.center * span,
        "sigma": best.sigma * span,
        "fwhm": best.sigma * span * FWHM_PER_SIGMA,
        "background": float(np.min(y)) + best.background * height,
    }
    return Fit(best.model, parameters)


def _averaged(values: Array) -> Array:
    group = -(-values.size // _MOST)
    if group <= 1:
        return values
    return np.add.reduceat(values, starts := np.arange(0, values.size, group)) / np.diff(starts, append=values.size)


@dataclass(frozen=True)
class _Model:
    name: str
    curve: Callable[[Array, Array], Array]
    jacobian: Callable[[Array, Array], Array]
    guess: Callable[[Array, Array], list[float]]


def _gaussian(p: Array, u: Array) -> Array:
    return p[0] * np.exp(-0.5 * ((u - p[1]) / p[2]) ** 2) + p[3]


def _gaussian_jacobian(p: Array, u: Array) -> Array:
    t = (u - p[1]) / p[2]
    bell = np.exp(-0.5 * t**2)
    slope = p[0] * bell * t / p[2]
    return np.stack([bell, slope, slope * t, np.ones_like(u)], axis=1)


def _gaussian_guess(u: Array, v: Array) -> list[float]:
    extreme, _, _ = _flanks(v)
    is_dip = v[extreme] < 0.5
    area = _area(u, 1 - v if is_dip else v)
    sigma = min(max(area / math.sqrt(2 * math.pi), 0.5 / u.size), 0.5)
    return [-1.0 if is_dip else 1.0, float(u[extreme]), sigma, 1.0 if is_dip else 0.0]


def _area(u: Array, v: Array) -> float:
    return float(np.sum((v[1:] + v[:-1]) * np.diff(u))) / 2


def _edge(p: Array, u: Array) -> Array:
    from scipy.special import erf  # here, since a host of callbacks should start fast

    return p[0] * 0.5 * (1 + erf((u - p[1]) / (p[2] * math.sqrt(2)))) + p[3]


def _edge_jacobian(p: Array, u: Array) -> Array:
    t = (u - p[1]) / p[2]
    slope = -p[0] * np.exp(-0.5 * t**2) / (p[2] * math.sqrt(2 * math.pi))
    unit = np.array([1.0, p[1], p[2], 0.0])
    return np.stack([_edge(unit, u), slope, slope * t, np.ones_like(u)], axis=1)


def _edge_guess(u: Array, v: Array) -> list[float]:
    quarter = max(1, u.size // 4)
    rises = float(np.mean(v[-quarter:])) >= float(np.mean(v[:quarter]))
    high = _area(u, v)
    return [1.0, 1 - high, 0.1, 0.0] if rises else [-1.0, high, 0.1, 1.0]


_MODELS = (
    _Model("gaussian", _gaussian, _gaussian_jacobian, _gaussian_guess),
    _Model("edge", _edge, _edge_jacobian, _edge_guess),
)


@dataclass(frozen=True)
class _Solution:
    model: str
    residual: float
    amplitude: float
    center: float
    sigma: float
    background: float


def _solve(u: Array, v: Array, model: _Model) -> _Solution | None:
    """Fit one model to data scaled to 0…1; None if it does not hold.

    scipy's curve_fit reports through the process's warning filters, which other threads share; this is the same
    Levenberg-Marquardt without them.
    """
    from scipy.optimize import least_squares

    start = model.guess(u, v)
    try:
        solved = least_squares(
            lambda p: model.curve(p, u) - v,
            start,
            jac=lambda p: model.jacobian(p, u),  # pyright: ignore[reportArgumentType]: its stub knows strings only
            method="lm",
            max_nfev=200,
        )
        variance = np.diag(np.linalg.inv(solved.jac.T @ solved.jac))
    except (ValueError, np.linalg.LinAlgError):  # it ran off to infinity, or the data do not fix a parameter
        return None
    residual = float(np.sum(solved.fun**2))
    errors = np.sqrt(variance * residual / (u.size - len(start)))
    amplitude, center, sigma, background = (float(value) for value in solved.x)
    if not (solved.success and np.isfinite(solved.x).all() and np.isfinite(errors).all()):
        return None
    if not (abs(amplitude) > 3 * errors[0] and 0 <= center <= 1 and errors[2] < abs(sigma) < 2):
        return None
    if sigma < 0 and model.name == "edge":  # the same curve, written the other way round
        amplitude, background = -amplitude, background + amplitude
    return _Solution(model.name, residual, amplitude, center, abs(sigma), background)
