"""Which consumers have a run, and how long it stays on Redis when all have it that must."""

from collections.abc import Collection

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DOCUMENTS, POINTS, RESULTS, STORED

__all__ = ["let_go", "mark_stored"]

_KEEP_STORED = 3_600
"""Seconds for which the documents of a run stay on Redis after every required consumer has stored them."""
_KEEP_PRODUCTS = 86_400
"""Seconds for which points and results stay on Redis after their run."""


async def mark_stored(bus: Bus, run: str, *consumers: str) -> None:
    """Note that these consumers want no documents of a run any more."""
    await bus.put_fields(STORED, dict.fromkeys(consumers, True), run=run)


async def let_go(bus: Bus, run: str, required: Collection[str]) -> None:
    """Let a run's documents go an hour after every required consumer has it."""
    if set(required) <= (await bus.fields(STORED, run=run)).keys():
        for channel, seconds in (
            (DOCUMENTS, _KEEP_STORED),
            (STORED, _KEEP_PRODUCTS),
            (POINTS, _KEEP_PRODUCTS),
            (RESULTS, _KEEP_PRODUCTS),
        ):
            await bus.expire(channel, seconds, only_if_lasting=True, run=run)
