"""A dataset that grows by batches of values, and changes its type if later values need another."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from writers._nexus_text import decode, encode, set_attributes
from writers._tiled_column import Column

__all__ = ["GrowingDataset"]

_CHUNK_BYTES = 65_536
_MOST_CHUNK_ROWS = 4_096
_BLOCK_BYTES = 2**20
"""Rows in memory at once while they are written again."""
_TEXT = h5py.string_dtype()


class GrowingDataset:
    """One column of a stream: a row for each event, along the first axis."""

    def __init__(self, group: h5py.Group, name: str, column: Column, attributes: Mapping[str, Any]) -> None:
        self._group = group
        self._name = name
        self.attributes = attributes
        self.column = column
        self.rows = 0
        """Rows in the file."""
        self.notes: dict[str, None] = {}
        """How what is stored differs from what came."""
        self._dataset: h5py.Dataset | None = None

    @property
    def dataset(self) -> h5py.Dataset | None:
        """The dataset; None before the first row, and after a change of type another one."""
        return self._dataset

    @property
    def is_numeric(self) -> bool:
        """Whether it can be plotted."""
        return self._dataset is not None and self._dataset.dtype.kind in "iuf"

    def append(self, values: Sequence[Any], *, is_last: bool = False) -> None:
        """Add rows. If the first ones are also the last, the dataset is of fixed size."""
        if not values:
            return
        if self._are_frames(values):
            self._append_frames(values)
            return
        array = self._fit(values)
        if self._dataset is None:
            self._dataset = self._create(array, is_fixed=is_last)
        else:
            self._dataset.resize(self.rows + len(values), axis=0)
            self._dataset[self.rows :] = array
        self.rows += len(values)

    def write_frame(self, value: Any) -> bool:
        """Add a row at once, without a copy, if it is an array as those before, as large as a chunk; tell whether."""
        if self._dataset is None and isinstance(value, np.ndarray) and value.nbytes >= _CHUNK_BYTES:
            self.column = self._holding([value])
        if not self._are_frames([value]):
            return False
        self._append_frames([value])
        return True

    def _are_frames(self, values: Sequence[Any]) -> bool:
        """Tell whether all are arrays of the column's very type, each as large as a chunk."""
        first = values[0]
        if self.column.kind != "array" or not isinstance(first, np.ndarray) or first.nbytes < _CHUNK_BYTES:
            return False
        dtype, dataset = np.dtype(self.column.dtype), self._dataset
        if first.shape != self.column.shape:
            return False
        if dataset is not None and (dataset.chunks != (1, *first.shape) or dataset.dtype != dtype):
            return False
        return all(type(each) is np.ndarray and each.shape == first.shape and each.dtype == dtype for each in values)

    def _append_frames(self, frames: Sequence[np.ndarray]) -> None:
        """Add rows, a chunk each, without a copy on their way to the disk."""
        dataset = self._dataset
        if dataset is None:
            dataset = self._dataset = self._create(np.empty((0, *frames[0].shape), frames[0].dtype), is_fixed=False)
        dataset.resize(self.rows + len(frames), axis=0)
        origin = [0] * frames[0].ndim
        for row, frame in enumerate(frames, self.rows):
            dataset.id.write_direct_chunk((row, *origin), np.ascontiguousarray(frame))
        self.rows += len(frames)

    def _fit(self, values: Sequence[Any]) -> np.ndarray:
        """Give values as an array of the column's type, which is widened if need be."""
        quick = self._quick(values)
        if quick is not None:
            return quick
        values = [_python(value) for value in values]
        before, after = self.column, self._holding(values)
        if after != before:
            self.column = after
            if self.rows:
                self._retype()
        return self._array(values)

    def _quick(self, values: Sequence[Any]) -> np.ndarray | None:
        """Convert a batch of one type that the column has already; None for the long way."""
        types = set(map(type, values))
        try:
            if types == {float} and self.column.kind == "number":
                return np.array(values, dtype=np.float64)
            if types == {int} and self.column.kind == "integer":
                return np.array(values, dtype=np.int64)
        except OverflowError:
            return None
        if types == {str} and self.column.kind == "string" and _is_storable(values):
            return np.array(values, dtype=object)
        if types == {np.ndarray} and self.rows and self.column.kind == "array":
            dtype = np.dtype(self.column.dtype)
            if all(value.shape == self.column.shape and value.dtype == dtype for value in values):
                return np.stack(values)
        return None

    def _holding(self, values: list[Any]) -> Column:
        present = [value for value in values if value is not None]
        column = self.column
        if present and all(isinstance(value, str) for value in present):
            is_text = column.kind == "text" or len(present) < len(values) or not _is_storable(present)
            if not is_text and (not self.rows or column.kind == "string"):
                return Column("string")
            self._say("text as JSON, since some of it is missing or mixed with other types")
            return replace(column, kind="text")
        column = self._with_gaps(column, present) if len(present) < len(values) else column.holding(values)
        if column.kind == "array" and present:
            column = self._exact(column, present, has_gaps=len(present) < len(values))
        if column.kind == "text":
            self._say("JSON, since its values have no common type and shape")
        elif column.kind == "number" and any(type(value) is int and int(float(value)) != value for value in present):
            self._say("rounded to 53 bits, since integers are mixed with other numbers")
        return column

    def _with_gaps(self, column: Column, present: list[Any]) -> Column:
        """Make room for None: NaN in numbers, rows of NaN in arrays, null in JSON."""
        column = column.holding(present)
        if column.kind == "array" and column.shape is not None:
            self._say("NaN where a value is missing")
            return replace(column, dtype=np.promote_types(column.dtype, np.float64).str)
        if column.kind in ("boolean", "integer", "number"):
            self._say("NaN where a value is missing")
            return replace(column, kind="number")
        return replace(column, kind="text")

    def _exact(self, column: Column, values: list[Any], *, has_gaps: bool) -> Column:
        """Take a type that changes none of the values; JSON if there is none."""
        arrays = [np.asarray(value) for value in values]
        types = {array.dtype for array in arrays}
        dtype = np.dtype(column.dtype if has_gaps else self.column.dtype)
        if not self.rows and not has_gaps and all(isinstance(value, np.ndarray) for value in values):
            dtype = np.result_type(*types)  # they know their type; a descriptor may be wrong, or say nothing
        if not all(_is_held(array, dtype) for array in arrays):
            dtype = np.result_type(*types, *([dtype] if self.rows or has_gaps else []))
        if not all(_is_held(array, dtype) for array in arrays):
            return replace(column, kind="text")
        return replace(column, dtype=dtype.str)

    def _array(self, values: Sequence[Any]) -> np.ndarray:
        match self.column.kind:
            case "text":
                return np.array([encode(value) for value in values], dtype=object)
            case "string":
                return np.array(values, dtype=object)
            case "array":
                shape = self.column.shape or ()
                gap = math.nan if np.dtype(self.column.dtype).kind == "f" else 0
                rows = [np.full(shape, gap) if value is None else np.asarray(value).reshape(shape) for value in values]
                return np.array(rows, dtype=self.column.dtype).reshape(len(values), *shape)
            case "boolean":
                return np.array(values, dtype=bool)
            case "integer":
                return np.array(values, dtype=np.int64)
            case "number":
                return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    def _retype(self) -> None:
        """Write the rows that are there again, as the column is now; a block after the other, in two goes."""
        before = self._dataset
        assert before is not None
        dtype = np.dtype(self.column.dtype if self.column.kind == "array" else np.float64)
        if self.column.kind in ("array", "number") and not all(_is_held(block, dtype) for block in _blocks(before)):
            if self.column.kind == "array":
                self.column = replace(self.column, kind="text")
                self._say("JSON, since its values have no common type and shape")
            else:
                self._say("rounded to 53 bits, since integers are mixed with other numbers")
        del self._group[self._name]  # it stays readable until it is let go of
        self._dataset, row = None, 0
        for block in _blocks(before):
            array = self._array([decode(text) for text in block] if "encoding" in before.attrs else list(block))
            if self._dataset is None:
                self._dataset = self._create(array, is_fixed=False)
            else:
                self._dataset.resize(row + len(array), axis=0)
                self._dataset[row:] = array
            row += len(array)

    def _create(self, array: np.ndarray, *, is_fixed: bool) -> h5py.Dataset:
        dtype = _TEXT if self.column.kind in ("string", "text") else array.dtype
        options: dict[str, Any] = {}
        if not is_fixed:
            row_bytes = max(1, dtype.itemsize * int(np.prod(array.shape[1:])))
            rows = 2 ** math.ceil(math.log2(max(16, len(array))))
            rows = max(1, min(rows, _MOST_CHUNK_ROWS, _CHUNK_BYTES // row_bytes))
            options = {"maxshape": (None, *array.shape[1:]), "chunks": (rows, *array.shape[1:])}
        dataset = self._group.create_dataset(self._name, data=array, dtype=dtype, **options)
        if self.column.kind == "text":
            dataset.attrs["encoding"] = "json"
        set_attributes(dataset, self.attributes)
        return dataset

    def _say(self, how: str) -> None:
        self.notes[how] = None


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Give the rows in blocks that fit into memory several times."""
    source: Any = dataset.asstr() if dataset.dtype == _TEXT else dataset
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for first in range(0, len(dataset), rows):
        yield source[first : first + rows]


def _python(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _is_held(array: np.ndarray, dtype: np.dtype) -> bool:
    """Tell whether every value is the same in another type, there and back."""
    if array.dtype == dtype:
        return True
    with np.errstate(all="ignore"):
        there = array.astype(dtype)
        back = there.astype(array.dtype)
    has_nan = array.dtype.kind == dtype.kind == "f"
    return np.array_equal(there, array, equal_nan=has_nan) and np.array_equal(back, array, equal_nan=has_nan)


def _is_storable(texts: Sequence[str]) -> bool:
    """Tell whether HDF5 holds these strings as they are: no NUL, no half of a surrogate pair."""
    joined = "".join(texts)
    try:
        return "\0" not in joined and bool(joined.encode() or True)
    except UnicodeEncodeError:
        return False
