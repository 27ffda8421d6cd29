"""Plans imported anew while everything runs: first by one worker, and by the others if that one survives it."""

from collections.abc import Awaitable, Callable

from bec_bluesky.messages.around_queue import PlansReloaded, ReloadPlans
from bec_bluesky.messages.queue import PlanInfo, Request
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._plans import PlanBook
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._requests import CheckFailed, time_left

__all__ = ["PlanReload"]


class PlanReload:
    """Carries out ReloadPlans."""

    def __init__(
        self,
        pool: WorkerPool,
        plans: PlanBook,
        keeper: QueueKeeper,
        offer: Callable[[list[PlanInfo]], Awaitable[None]],
        reloaded: Callable[[], None],
    ) -> None:
        """`reloaded` is told when all that is there should be imported anew by others than workers, too."""
        self._pool = pool
        self._plans = plans
        self._keeper = keeper
        self._offer = offer
        self._reloaded = reloaded

    async def reload(self, asked: ReloadPlans, request: Request) -> PlansReloaded:
        """Have all workers import plans anew; what runs goes on with what it began with."""
        before = dict(self._plans)
        found = await self._pool.reload(asked.module, longest=time_left(request.deadline))
        if found.failure is not None:
            raise CheckFailed(found.failure)
        await self._offer(found.plans)
        self._reloaded()
        after = {plan.name: plan for plan in found.plans}
        described = {name for name, plan in after.items() if name in before and before[name] != plan}
        return PlansReloaded(
            added=sorted(after.keys() - before.keys()),
            changed=sorted(described.union(found.changed) - (after.keys() - before.keys())),
            removed=sorted(before.keys() - after.keys()),
            problems=[*found.problems, *self._orphans()],
        )

    def _orphans(self) -> list[str]:
        """Tell of items that wait for a plan that is gone."""
        return [
            f"item {item.item_id} waits for {item.plan}, which is offered no more: remove it, or bring the plan back"
            for state in self._keeper.states.values()
            for item in state.waiting
            if item.kind == "plan" and item.plan not in self._plans
        ]
