"""What devices give one after the other: a failure comes last, for what came before it becomes documents."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from bec_bluesky.messages.common import Failure

__all__ = ["collected", "collected_async"]


def collected(items: Iterable[Any], tell: Callable[[Exception], Failure]) -> list[Any]:
    """Give all items, and last what was raised instead of more."""
    found: list[Any] = []
    try:
        found.extend(items)
    except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
        found.append(tell(error))
    return found


async def collected_async(items: AsyncIterator[Any], tell: Callable[[Exception], Failure]) -> list[Any]:
    """Do the same with an asynchronous generator."""
    found: list[Any] = []
    try:
        async for item in items:
            found.append(item)
    except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
        found.append(tell(error))
    return found
