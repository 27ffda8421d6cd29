"""Names, times, JSON and attributes as NeXus files hold them."""

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import h5py
import numpy as np

__all__ = [
    "Names",
    "decode",
    "encode",
    "iso_time",
    "plain_text",
    "scan_number",
    "seconds",
    "set_attributes",
    "write_value",
]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST_NAME = 63
"""Characters of a NeXus name, by the convention of its definitions."""
_LONGEST_ATTRIBUTE = 16_000
"""Characters; HDF5 ends an object's header at 64 KiB."""


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return dict(value) if isinstance(value, Mapping) else str(value)


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def encode(value: Any) -> str:
    """Give JSON in ASCII; NaN and the infinities are written as Python's json reads them: NaN, Infinity, -Infinity."""
    try:
        return _ENCODER.encode(value)
    except TypeError:  # a key that is no string, or not even a number
        return _ENCODER.encode(_with_text_keys(value))


def decode(text: str | bytes) -> Any:
    """Read what `encode` wrote."""
    return json.loads(text)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(item) for item in value]
    return value


def plain_text(value: Any) -> str:
    """Give text that HDF5 can hold: no NUL, no half of a surrogate pair; what is no string becomes JSON."""
    text = value if isinstance(value, str) else encode(value)
    return text.replace("\0", "�").encode("utf-8", "replace").decode()


def seconds(value: Any) -> float:
    """Give a document's time, seconds since 1970; 0 for what is none."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else 0.0


def scan_number(start: Mapping[str, Any]) -> int:
    """Give the scan number of a start document; 0 if it has none."""
    number = start.get("scan_id")
    return number if isinstance(number, int) else 0


def iso_time(moment: float) -> str:
    """Give local time with its zone, in ISO 8601; `moment` in seconds since 1970."""
    return datetime.fromtimestamp(moment).astimezone().isoformat()


class Names:
    """Names of members of one HDF5 group for any keys: valid in NeXus, each key its own, none of `taken`."""

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)
        self._names: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        """Give the name for a key, always the same."""
        if (known := self._names.get(key)) is not None:
            return known
        self._names[key] = name = self.another(key)
        return name

    def another(self, key: str) -> str:
        """Give a name that no call gave before, also if the key is known."""
        base = _NOT_IN_NAMES.sub("_", key)[:_LONGEST_NAME].strip(".") or "_"
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def set_attributes(target: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    """Set attributes; None is left out, and what HDF5 has no attribute for becomes JSON."""
    for name, value in attributes.items():
        if value is None:
            continue
        if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
            items = [plain_text(item) for item in value]
            if sum(map(len, items)) <= _LONGEST_ATTRIBUTE:
                target.attrs.create(name, items, dtype=h5py.string_dtype())
                continue
        if isinstance(value, bool | int | float | np.generic) and not isinstance(value, np.void):
            try:
                target.attrs[name] = value
                continue
            except (OverflowError, TypeError):  # an integer of more than 64 bits
                pass
        array = _numbers(value)
        if array is not None and array.nbytes <= _LONGEST_ATTRIBUTE:
            target.attrs[name] = array
        else:
            target.attrs[name] = plain_text(value)[:_LONGEST_ATTRIBUTE]


def _numbers(value: Any) -> np.ndarray | None:
    """Give numbers as an array; None if they are none."""
    if not isinstance(value, bool | int | float | list | tuple | np.ndarray | np.generic):
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" and array.size else None


def write_value(group: h5py.Group, name: str, value: Any, attributes: Mapping[str, Any] | None = None) -> h5py.Dataset:
    """Write one value: numbers and arrays of them as such, text as text, all else as JSON (attribute `encoding`)."""
    array = _numbers(value)
    if array is not None:
        dataset = group.create_dataset(name, data=array)
    elif isinstance(value, str):
        dataset = group.create_dataset(name, data=plain_text(value), dtype=h5py.string_dtype())
    else:
        dataset = group.create_dataset(name, data=encode(value), dtype=h5py.string_dtype())
        dataset.attrs["encoding"] = "json"
    set_attributes(dataset, attributes or {})
    return dataset
