"""Which devices an item uses, as far as that is known before its plan begins."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

from bec_bluesky.messages.queue import QueueItem

__all__ = ["all_devices"]


def all_devices(item: QueueItem, found: Iterable[str], known: Container[str]) -> tuple[str, ...]:
    """Give the paths of the devices that an item names, and those that its check found, as far as they are `known`."""
    asked = [list(found), item.args, list(item.kwargs.values())]
    return tuple(dict.fromkeys(text for text in _texts(asked) if text in known))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
