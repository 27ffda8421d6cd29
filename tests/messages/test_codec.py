"""What crosses Redis arrives as it was, and nothing that could do harm arrives at all."""

import enum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
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
    value = {"f": np.float64(1.5), "i": np.int32(2), "e": Colour.RED, "p": Path("/a"), "s": {1}, "nan": float("nan")}
    back = unpack(pack(value))
    assert str(back.pop("nan")) == "nan"
    assert back == {"f": 1.5, "i": 2, "e": "red", "p": "/a", "s": [1]}


def test_an_object_array_is_never_decoded() -> None:
    evil = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, msgspec.msgpack.encode(("|O", (1,), b"12345678"))))
    with pytest.raises(ValueError, match="not accepted"):
        unpack(evil)


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown msgpack extension 7"):
        unpack(msgspec.msgpack.encode(msgspec.msgpack.Ext(7, b"x")))


def test_what_cannot_cross_is_named() -> None:
    with pytest.raises(TypeError, match=r"a builtins\.object cannot cross the bus"):
        pack({"x": object()})


def test_a_request_survives_and_an_unknown_field_is_ignored() -> None:
    request = Request(request_id="r", reply_to="c", deadline=1.0, user="u", body=AddItem(plan="scan", args=["det"]))
    assert decoder(Request).decode(encode(request)) == request
    newer = unpack(encode(request)) | {"new_field": 1}
    assert decoder(Request).decode(pack(newer)) == request
