"""msgpack with numpy arrays (dtype, shape and raw bytes; never object arrays, never pickle) and long integers."""

import enum
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date
from pathlib import PurePath
from typing import Any, cast

import msgspec
import numpy as np

__all__ = ["decoder", "encode", "pack", "unpack"]

_ARRAY, _INTEGER = 1, 2
"""Our msgpack extension codes."""
_KINDS = frozenset("biufcSUMm")
_LONGEST_INTEGER = 1_000
"""Digits; Python itself refuses to read very many."""
_MOST_BYTES = 64 * 2**20


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: Any
    """A text such as `<f8`; of a structured array, a list of (name, dtype) or (name, dtype, shape)."""
    shape: tuple[int, ...]
    buffer: bytes


_array_encoder = msgspec.msgpack.Encoder()
_array_decoder = msgspec.msgpack.Decoder(_Array)


def _encode_array(value: Any) -> Any:
    dtype = value.dtype
    if dtype.hasobject or dtype.kind == "T":  # ragged or mixed: the elements travel one by one
        return value.tolist()
    if not _is_accepted(dtype):
        raise TypeError(f"an array of dtype {dtype} cannot cross the bus")
    told = dtype.str
    if dtype.names is not None:
        from numpy.lib.recfunctions import repack_fields  # 70 ms, for what is rare

        value = repack_fields(value, recurse=True)  # without padding between the fields
        told = np.lib.format.dtype_to_descr(value.dtype)
    buffer = np.ascontiguousarray(value).tobytes()
    return msgspec.msgpack.Ext(_ARRAY, _array_encoder.encode(_Array(told, value.shape, buffer)))


def _is_accepted(dtype: "np.dtype[Any]") -> bool:
    """Tell whether an array of this type is plain memory, down to the fields of its fields."""
    if dtype.subdtype is not None:
        return _is_accepted(dtype.subdtype[0])
    if dtype.names is not None:
        if any(len(field) > 2 for field in (dtype.fields or {}).values()):
            return False  # titles, which are names by the side
        return all(_is_accepted(dtype[name]) for name in dtype.names)
    return dtype.kind in _KINDS and not dtype.hasobject


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (np.ndarray, _encode_array),
    (np.void, lambda value: np.asarray(value)),
    (np.longdouble, float),  # its own item() is a longdouble
    (np.clongdouble, complex),
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
    if code == _INTEGER:
        return _integer(bytes(buffer))
    if code != _ARRAY:
        raise ValueError(f"unknown msgpack extension {code}")
    array = _array_decoder.decode(buffer)
    dtype = np.dtype(_fields(array.dtype))
    if not _is_accepted(dtype):
        raise ValueError(f"an array of dtype {array.dtype} is not accepted")
    if len(array.buffer) > _MOST_BYTES:
        raise ValueError(f"an array of {len(array.buffer)} bytes is not accepted; the limit is {_MOST_BYTES}")
    # `copy`, since a buffer's view is read-only and would surprise who gets it
    return np.frombuffer(array.buffer, dtype).reshape(array.shape).copy()


def _fields(told: Any) -> Any:
    """Give a dtype as numpy takes it: fields and their shapes are tuples, which msgpack does not know."""
    if not isinstance(told, list):
        return told
    fields = cast("list[list[Any]]", told)
    return [(str(name), _fields(kind), *map(tuple, shape)) for name, kind, *shape in fields]


def _integer(text: bytes) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text)} digits is not accepted; the limit is {_LONGEST_INTEGER}")
    return int(text)


def _with_long_integers(value: Any) -> Any:
    """Copy a value, with what msgpack has no integers for as its decimal digits."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        if value.bit_length() > 3 * _LONGEST_INTEGER:
            raise OverflowError(f"an integer of {value.bit_length()} bits cannot cross the bus")
        return msgspec.msgpack.Ext(_INTEGER, str(value).encode())
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_with_long_integers(key): _with_long_integers(each) for key, each in items}
    if isinstance(value, list | tuple | Set):
        return [_with_long_integers(each) for each in cast("Iterable[Any]", value)]
    if isinstance(value, msgspec.Struct):
        changed = {name: _with_long_integers(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **changed)
    array: Any = value
    if isinstance(value, np.ndarray) and array.dtype.kind == "O":
        return _with_long_integers(array.tolist())
    return array


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_any_decoder = msgspec.msgpack.Decoder(ext_hook=_ext_hook, strict=False)


def encode(value: Any) -> bytes:
    """Encode one of our messages or a plain value; raises OverflowError for an integer of more than 64 bits."""
    return _encoder.encode(value)


def decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    """Make a decoder that accepts `kind` only."""
    return msgspec.msgpack.Decoder(kind, ext_hook=_ext_hook)


def pack(value: Any) -> bytes:
    """Encode what devices and documents say: also integers of more than 64 bits, which not every door could tell."""
    try:
        return _encoder.encode(value)
    except OverflowError:  # rare, so nothing is looked through before
        return _encoder.encode(_with_long_integers(value))


def unpack(data: bytes | memoryview) -> Any:
    """Decode a plain value (documents, readings)."""
    return _any_decoder.decode(data)
