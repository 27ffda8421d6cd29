"""The type of a stored column, from what is declared and what comes."""

import math
from typing import Any

import numpy as np
import pytest

from writers._tiled_column import Column


def stored(data_key: dict[str, Any], values: list[Any]) -> tuple[str, list[Any]]:
    column = Column.declared(data_key).holding(values)
    return column.kind, [column.converted(value) for value in values]


@pytest.mark.parametrize(
    ("dtype", "values", "kind", "expected"),
    [
        ("number", [1, 2.5], "number", [1.0, 2.5]),
        ("integer", [1, 2], "integer", [1, 2]),
        ("integer", [1, 2.5], "number", [1.0, 2.5]),
        ("integer", [1, 2**63], "number", [1.0, 2.0**63]),
        ("boolean", [True, 2], "integer", [1, 2]),
        ("string", ["a", None], "string", ["a", None]),
        ("string", ["open", 3], "text", ["open", "3"]),
        ("number", ["off", 1.5], "text", ["off", "1.5"]),
        ("number", [{"a": 1}], "text", ['{"a": 1}']),
        ("array", [[1.0], []], "text", ["[1.0]", "[]"]),
        ("array", [[1.0, 2.0], [1.0]], "text", ["[1.0, 2.0]", "[1.0]"]),
        ("array", [["a", "b"]], "text", ['["a", "b"]']),
    ],
)
def test_a_column_is_as_narrow_as_its_values_allow(
    dtype: str, values: list[Any], kind: str, expected: list[Any]
) -> None:
    assert stored({"dtype": dtype}, values) == (kind, expected)


def test_a_missing_number_is_nan() -> None:
    kind, (value,) = stored({"dtype": "integer"}, [None])
    assert kind == "number"
    assert math.isnan(value)


def test_an_array_declared_as_integers_keeps_its_fractions() -> None:
    _, (array,) = stored({"dtype": "array", "dtype_numpy": "<i4", "shape": [2]}, [np.array([0.5, 1.5])])
    assert array.tolist() == [0.5, 1.5]


def test_an_array_keeps_its_declared_type_and_shape() -> None:
    _, (array,) = stored({"dtype": "array", "dtype_numpy": "<u2", "shape": [2, 2]}, [np.ones((2, 2), "u2")])
    assert (array.dtype.str, array.shape) == ("<u2", (2, 2))
