"""Defaults of parameters as plain data, from which a form can be filled."""

import enum
import json
from typing import Any

import msgspec

__all__ = ["as_data"]

_LONGEST = 10_000
"""Letters."""


def as_data(value: Any) -> Any:
    """Give what JSON can say of a default (of an enumeration its value), or None: devices, functions, infinity."""
    if isinstance(value, enum.Enum):
        return as_data(value.value)
    try:
        written = json.dumps(msgspec.to_builtins(value, builtin_types=()), allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return json.loads(written) if len(written) <= _LONGEST else None
