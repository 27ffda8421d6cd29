"""msgpack with numpy arrays: dtype, shape and raw bytes; never object arrays, never pickle."""

import enum
from collections.abc import Callable, Mapping, Set
from datetime import date
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np

__all__ = ["decoder", "encode", "pack", "unpack"]

_ARRAY = 1
"""Our msgpack extension code."""
_KINDS = frozenset("biufcSUMm")
_MOST_BYTES = 64 * 2**20


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    buffer: bytes


_array_encoder = msgspec.msgpack.Encoder()
_array_decoder = msgspec.msgpack.Decoder(_Array)


def _encode_array(value: Any) -> Any:
    if value.dtype.kind not in _KINDS:
        if value.dtype.kind in "OT":  # ragged or mixed: the elements travel one by one
            return value.tolist()
        raise TypeError(f"an array of dtype {value.dtype} cannot cross the bus")
    buffer = np.ascontiguousarray(value).tobytes()
    return msgspec.msgpack.Ext(_ARRAY, _array_encoder.encode(_Array(value.dtype.str, value.shape, buffer)))


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (np.ndarray, _encode_array),
    (np.generic, lambda value: value.item()),
    (enum.Enum, lambda value: value.value),
    (PurePath, str),
    (date, lambda value: value.isoformat()),
    (Set, list),
    (Mapping, dict),
    (complex, lambda value: [value.real, value.imag]),
)
"""How what msgspec does not know becomes what it knows; the first that fits."""


def _enc_hook(value: Any) -> Any:
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    dump = getattr(value, "model_dump", None)  # pydantic: TriggerInfo, Table
    if dump is not None:
        # arrays stay arrays (ophyd-async's Table); without computed fields, which a model refuses as input
        return dump(mode="python", round_trip=True)
    raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot cross the bus")


def _ext_hook(code: int, buffer: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown msgpack extension {code}")
    array = _array_decoder.decode(buffer)
    dtype = np.dtype(array.dtype)
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"an array of dtype {array.dtype} is not accepted")
    if len(array.buffer) > _MOST_BYTES:
        raise ValueError(f"an array of {len(array.buffer)} bytes is not accepted; the limit is {_MOST_BYTES}")
    # `copy`, since a buffer's view is read-only and would surprise who gets it
    return np.frombuffer(array.buffer, dtype).reshape(array.shape).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_any_decoder = msgspec.msgpack.Decoder(ext_hook=_ext_hook, strict=False)


def encode(value: Any) -> bytes:
    """Encode one of our messages or a plain value."""
    return _encoder.encode(value)


def decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    """Make a decoder that accepts `kind` only."""
    return msgspec.msgpack.Decoder(kind, ext_hook=_ext_hook)


pack = encode


def unpack(data: bytes | memoryview) -> Any:
    """Decode a plain value (documents, readings)."""
    return _any_decoder.decode(data)
