"""What a plan or a function returned, on its way to whoever asked for it."""

from typing import Any

from bec_bluesky.messages import encode

__all__ = ["crossing"]

_LARGEST = 2**20
"""Bytes; more does not cross."""


def crossing(value: Any) -> tuple[Any, str]:
    """Give the value if it can cross, else None, and one sentence why it can't."""
    if value is None:
        return None, ""
    try:
        size = len(encode(value))
    except Exception as error:  # noqa: BLE001  # here a process meets what a plug-in made
        what = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        return None, f"the value it returned, a {what}, cannot cross to another process: {error}"
    if size > _LARGEST:
        return None, f"the value it returned is left out: it has {size} bytes, and {_LARGEST} may cross"
    return value, ""
