"""Which plans there are: as the last worker said, kept on Redis for clients and for the time before one is up."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import PLANS
from bec_bluesky.messages import encode
from bec_bluesky.messages.queue import PlanInfo

__all__ = ["PlanBook"]


class PlanBook(Mapping[str, PlanInfo]):
    """Plans by name."""

    def __init__(self) -> None:
        self._plans: dict[str, PlanInfo] = {}
        self._are_known = asyncio.Event()

    def __getitem__(self, name: str) -> PlanInfo:
        return self._plans[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)

    def take(self, plans: list[PlanInfo]) -> bool:
        """Replace all by what a worker offers; give whether anything is different."""
        offered = {plan.name: plan for plan in plans}
        is_changed = offered != self._plans
        self._plans = offered
        self._are_known.set()
        return is_changed

    async def known(self, timeout: float) -> bool:
        """Wait until plans are known, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await self._are_known.wait()
        except TimeoutError:
            return False
        return True

    async def load(self, bus: Bus) -> None:
        """Read what was known when the last scan server ended."""
        plans = await bus.fields(PLANS)
        if plans:
            self.take(list(plans.values()))

    async def save(self, bus: Bus) -> None:
        """Replace the table on Redis, in one transaction."""
        key = bus.key(PLANS)
        mapping: Any = {name: encode(plan) for name, plan in self._plans.items()}
        async with bus.translated():
            pipeline: Any = bus.redis.pipeline(transaction=True)
            pipeline.delete(key)
            if mapping:
                pipeline.hset(key, mapping=mapping)
            await pipeline.execute()
