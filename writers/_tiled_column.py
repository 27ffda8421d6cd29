"""How the values of one data key are stored in the catalogue: decided by all of them, not by the first."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

__all__ = ["Column"]

Kind = Literal["boolean", "integer", "number", "string", "array", "text"]
"""`array` becomes Zarr, all others columns of an SQL table. `text` is JSON, for what fits nothing else: values of mixed
types, strings in an array, arrays whose shape changes from event to event."""
_NUMERIC: tuple[Kind, ...] = ("boolean", "integer", "number")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Column:
    """A column's type; it only ever widens."""

    kind: Kind
    shape: tuple[int, ...] | None = None
    """Of an array, from its first value on: what descriptors declare is not always so."""
    dtype: str = "<f8"
    """Of an array; as declared, unless values came that it cannot hold."""

    @classmethod
    def declared(cls, data_key: dict[str, Any]) -> Self:
        """Make the column that a descriptor's data key promises."""
        dtype = data_key.get("dtype")
        if dtype != "array":
            return cls(dtype if dtype in ("boolean", "integer", "number", "string") else "boolean")
        try:
            declared = np.dtype(data_key.get("dtype_numpy") or "<f8")
        except TypeError:  # a structured dtype, which only detectors' own files have
            declared = np.dtype("<f8")
        return cls("array", dtype=declared.str if declared.kind in "biuf" else "<f8")

    def holding(self, values: Iterable[Any]) -> Self:
        """Give the narrowest column that holds what this one held, and these values."""
        column = self
        for value in values:
            column = column._with(value)
            if column.kind == "text":
                break
        return column

    def converted(self, value: Any) -> Any:
        """Give a value, which `holding` has seen, as it is stored."""
        match self.kind:
            case "number":
                return math.nan if value is None else float(value)
            case "integer":
                return int(value)
            case "boolean":
                return bool(value)
            case "array":
                return np.asarray(value, dtype=self.dtype).reshape(self.shape or ())
            case "string":
                return value
            case "text":
                return value if isinstance(value, str) else json.dumps(value, default=_plain)

    def _with(self, value: Any) -> Self:
        if isinstance(value, list | tuple | np.ndarray):
            return self._with_array(value)
        if self.kind == "array":
            return self._with_array([value])
        if value is None:
            return self if self.kind == "string" else self._as("number" if self.kind in _NUMERIC else "text")
        if isinstance(value, str):
            return self._as("string" if self.kind == "string" else "text")
        if self.kind not in _NUMERIC or not isinstance(value, bool | int | float):
            return self._as("text")
        own: Kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "number"
        if own == "integer" and value not in _INT64:
            own = "number"
        return self if _NUMERIC.index(own) <= _NUMERIC.index(self.kind) else self._as(own)

    def _with_array(self, value: Any) -> Self:
        try:
            array = np.asarray(value)
        except ValueError:  # rows of unequal length
            return self._as("text")
        if self.kind != "array" or array.dtype.kind not in "biuf" or not array.size:
            return self._as("text")
        if self.shape is not None and array.shape != self.shape:
            return self._as("text")
        dtype = np.dtype(self.dtype)
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            dtype = np.promote_types(array.dtype, dtype)
        return replace(self, shape=array.shape, dtype=dtype.str)

    def _as(self, kind: Kind) -> Self:
        return self if kind == self.kind else replace(self, kind=kind)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
