"""Rows of a grid scan put in their places: snaked ones turned round, missing ones NaN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bec_bluesky.documents import Document

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """The grid that a start document describes."""

    shape: tuple[int, ...]
    """Slowest axis first."""
    snaking: tuple[bool, ...]
    """Whether an axis turns round with each step of the slower ones."""
    extents: tuple[tuple[float, float], ...] | None
    """First and last position of each axis, of equal steps; None if they are not known."""

    @classmethod
    def of(cls, start: Document, dimensions: int) -> Self | None:
        """Read the grid; None if the start document has none that fits the number of dimensions."""
        try:
            shape = tuple(int(size) for size in start.get("shape") or ())
            snaking = start.get("snaking") or ()
            turns = tuple(bool(turn) for turn in snaking) if isinstance(snaking, list | tuple) else ()
        except (TypeError, ValueError):
            return None
        if dimensions < 2 or len(shape) != dimensions or min(shape) < 1:
            return None
        turns = turns if len(turns) == dimensions else (False,) * dimensions
        return cls(shape, turns, _extents(start.get("extents"), dimensions))

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return int(np.prod(self.shape))

    def places(self, order: np.ndarray) -> tuple[np.ndarray, ...]:
        """Give the indices, along each axis, of the points with these places (from 0) in the order of the scan."""
        indices = []
        slower = 1
        for size, turns in zip(self.shape, self.snaking, strict=True):
            slower *= size
            faster = self.size // slower
            index = (order // faster) % size
            if turns:
                is_backward = (order // (faster * size)) % 2 == 1
                index = np.where(is_backward, size - 1 - index, index)
            indices.append(index)
        return tuple(indices)

    def fill(self, values: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Put a value for each point of `order` in its place; NaN elsewhere (the type changes only if it must)."""
        places = self.places(order)
        shape = (*self.shape, *values.shape[1:])
        if len(np.unique(order)) == self.size:
            filled = np.empty(shape, values.dtype)
        else:
            filled = np.full(shape, np.nan, np.promote_types(values.dtype, np.float64))
        filled[places] = values
        return filled

    def positions(self, values: np.ndarray, order: np.ndarray, axis: int) -> np.ndarray:
        """Give the positions along an axis: the median of those read at each index; expected ones where none was."""
        index = self.places(order)[axis]
        found = np.full(self.shape[axis], np.nan)
        for place in np.unique(index):
            found[place] = np.median(values[index == place])
        unknown = np.isnan(found)
        if unknown.any() and not unknown.all() and self.extents is not None:
            expected = np.linspace(*self.extents[axis], self.shape[axis])
            found[unknown] = expected[unknown] + np.median(
                (found - expected)[~unknown]
            )  # relative scans have an offset
        return found


def _extents(value: Any, dimensions: int) -> tuple[tuple[float, float], ...] | None:
    if not isinstance(value, Sequence) or len(value) != dimensions:
        return None
    try:
        return tuple((float(first), float(last)) for first, last in value)
    except (TypeError, ValueError):
        return None
