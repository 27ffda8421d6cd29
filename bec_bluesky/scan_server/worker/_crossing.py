"""What a plan or a function returned, on its way to whoever asked for it."""

from typing import Any

from bec_bluesky.messages import encode

__all__ = ["crossing"]

_LARGEST = 2**20
"""Bytes; more does not cross."""
_LONGEST_TEXT = 1_000
"""Letters of the repr that stands for a value."""


def crossing(value: Any) -> tuple[Any, str]:
    """Give the value if it can cross, else its repr, and one sentence why it can't."""
    if value is None:
        return None, ""
    try:
        size = len(encode(value))
    except Exception as error:  # noqa: BLE001  # here a process meets what a plug-in made
        what = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        return _shown(value), f"the value it returned, of {what}, is given as text, since it cannot cross: {error}"
    if size > _LARGEST:
        return _shown(value), f"the value it returned is given as text: it has {size} bytes, and {_LARGEST} may cross"
    return value, ""


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # here a process meets what a plug-in made
        return f"<{type(value).__qualname__} without a repr: {type(error).__name__}>"
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
