"""Which devices an item uses, as far as that is known before its plan begins."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

from bec_bluesky.messages.queue import QueueItem

__all__ = ["all_devices", "texts"]


def all_devices(item: QueueItem, found: Iterable[str], known: Container[str]) -> tuple[str, ...]:
    """Give the paths of the devices that an item names, and those that its check found, as far as they are `known`."""
    asked = [list(found), item.args, list(item.kwargs.values())]
    return tuple(dict.fromkeys(text for text in texts(asked) if text in known))


def texts(value: Any) -> Iterator[str]:
    """Give the texts in a value: a worker takes those that are names of devices for the devices."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:  # pyright: ignore[reportUnknownVariableType]  # whatever crosses
            yield from texts(each)
    elif isinstance(value, dict):
        for each in value.values():  # pyright: ignore[reportUnknownVariableType]  # whatever crosses
            yield from texts(each)
