"""Events, statuses and whole streams, as the client's own loop reads them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import Channel
from bec_bluesky.client._follow import Event, status_of
from bec_bluesky.messages.queue import ScanServerStatus

__all__ = ["read_all", "statuses", "until"]


async def until(deadline: float | None, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Give events, ending at the deadline."""
    try:
        while True:
            try:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                async with asyncio.timeout(remaining):
                    event = await anext(events)
            except (TimeoutError, StopAsyncIteration):
                return
            yield event
    finally:
        await events.aclose()


async def statuses(bus: Bus, queue: str) -> AsyncGenerator[ScanServerStatus, None]:
    """Give the status of a queue now and at each change, for ever."""
    before: ScanServerStatus | None = None
    while True:
        status = await status_of(bus, queue)
        if status is not None and status != before:
            yield status
            before = status
        await asyncio.sleep(0.05)


async def read_all(bus: Bus, channel: Channel, **words: str) -> list[tuple[str, Any]]:
    """Read a whole stream."""
    found: list[tuple[str, Any]] = []
    after = "0-0"
    while batch := await bus.read(channel, after, count=1_000, block=None, **words):
        found += batch
        after = batch[-1][0]
    return found
