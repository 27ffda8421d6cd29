"""What crosses Redis arrives as it was, and nothing that could do harm arrives at all."""

import enum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bec_bluesky.messages import decoder, encode, pack, unpack
from bec_bluesky.messages.queue import AddItem, Request


class Colour(enum.Enum):
    RED = "red"


@given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=3, max_side=4)))
def test_arrays_keep_dtype_shape_and_bits(array: "np.ndarray[Any, Any]") -> None:
    back = unpack(pack({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_numpy_scalars_enums_paths_and_sets_become_plain() -> None:
    value = {
        "f": np.float64(1.5),
        "i": np.int32(2),
        "e": Colour.RED,
        "p": Path("/a"),
        "s": {1},
        "nan": float("nan"),
        "l": np.longdouble(2.5),
        "z": np.clongdouble(1 + 2j),
    }
    back = unpack(pack(value))
    assert str(back.pop("nan")) == "nan"
    assert back == {"f": 1.5, "i": 2, "e": "red", "p": "/a", "s": [1], "l": 2.5, "z": [1.0, 2.0]}


@pytest.mark.parametrize("dtype", ["|O", [("a", "|O")], [("a", [("b", "|O")], [2])], "|V8"])
def test_an_object_array_is_never_decoded(dtype: Any) -> None:
    evil = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, msgspec.msgpack.encode((dtype, (1,), b"12345678" * 2))))
    with pytest.raises(ValueError, match="not accepted"):
        unpack(evil)


@pytest.mark.parametrize(
    "dtype",
    [
        [("a", "i4"), ("b", "f8")],
        [("a", "f4", (2, 3)), ("b", [("c", "<U3"), ("d", "M8[s]")])],
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
    ],
)
def test_structured_arrays_keep_their_fields(dtype: Any) -> None:
    array: Any = np.zeros((2, 1), dtype)
    array["a"] = 7
    back = unpack(pack({"a": array, "row": array[0, 0]}))
    packed: Any = np.dtype([(name, array.dtype[name]) for name in array.dtype.names])
    assert back["a"].dtype == packed
    assert str(back["a"].tolist()) == str(array.tolist())
    assert str(back["row"].tolist()) == str(array[0, 0].tolist())


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_integers_of_any_size_cross_as_they_are(number: int) -> None:
    value = {"a": [number, {"b": (number,)}], "array": np.array([number, "x"], dtype=object)}
    assert unpack(pack(value)) == {"a": [number, {"b": [number]}], "array": [number, "x"]}


def test_a_message_with_a_long_integer_is_refused_where_not_every_door_could_tell_it() -> None:
    with pytest.raises(OverflowError):
        encode({"a": 2**70})
    with pytest.raises(OverflowError, match="an integer of 33220 bits cannot cross"):
        pack({"a": 10**10_000})
    with pytest.raises(ValueError, match="an integer of 2000 digits is not accepted"):
        unpack(msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"1" * 2000)))


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown msgpack extension 7"):
        unpack(msgspec.msgpack.encode(msgspec.msgpack.Ext(7, b"x")))


def test_what_cannot_cross_is_named() -> None:
    with pytest.raises(TypeError, match=r"a builtins\.object cannot cross the bus"):
        pack({"x": object()})
    with pytest.raises(TypeError, match=r"an array of dtype .* cannot cross the bus"):
        pack({"x": np.zeros(1, [(("title", "a"), "i4")])})


def test_a_request_survives_and_an_unknown_field_is_ignored() -> None:
    request = Request(request_id="r", reply_to="c", deadline=1.0, user="u", body=AddItem(plan="scan", args=["det"]))
    assert decoder(Request).decode(encode(request)) == request
    newer = unpack(encode(request)) | {"new_field": 1}
    assert decoder(Request).decode(pack(newer)) == request
