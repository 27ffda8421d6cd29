"""Values of devices, and messages, as JSON, which has neither arrays of numpy nor bytes nor NaN."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bec_bluesky.errors import BadArgumentError

__all__ = ["json_value"]

_MOST_ELEMENTS = 1_000_000


def json_value(value: Any) -> Any:
    """Give lists for arrays, base64 text for bytes, and "NaN", "Infinity", "-Infinity" for what is no number in JSON.

    An integer of more than 64 bits becomes the text of its digits.

    Raises BadArgumentError for an array of more than a million elements.
    """
    if isinstance(value, np.ndarray):
        if value.size > _MOST_ELEMENTS:
            raise BadArgumentError(
                f"an array of {' × '.join(map(str, value.shape))} elements is too large for JSON: read it from the "
                "run's files, or with the Python client"
            )
        return json_value(value.tolist())
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, msgspec.Struct):
        return {name: json_value(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(each) for each in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
