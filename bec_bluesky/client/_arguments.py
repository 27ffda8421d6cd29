"""Arguments on their way to a server: devices go by their paths."""

from collections.abc import Mapping
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Replace devices in arguments by their paths, or names: ours, and any object that can be read or set."""
    if isinstance(value, Mapping):
        items: Mapping[Any, Any] = value
        return {str(key): plain(each) for key, each in items.items()}
    if isinstance(value, list | tuple | set):
        elements: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]  # any kind
        return [plain(each) for each in elements]
    if any(callable(getattr(value, verb, None)) for verb in ("read", "set", "trigger")):
        for name in (getattr(value, "path", None), getattr(value, "name", None)):
            if isinstance(name, str):
                return name
    return value
