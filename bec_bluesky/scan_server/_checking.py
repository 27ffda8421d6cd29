"""Checks of new items, by workers that are free."""

import asyncio
import uuid
from collections.abc import Callable

from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.messages.worker import CheckItem, CheckResult
from bec_bluesky.scan_server._patience import Patience
from bec_bluesky.scan_server._worker import Worker

__all__ = ["Checking"]


class Checking:
    """Asks a worker at a time for a check; what it says comes to `worker.checks`."""

    def __init__(self, workers: Callable[[], list[Worker]], is_one_free: asyncio.Event, patience: Patience) -> None:
        """The pool sets the event when a worker becomes free."""
        self._workers, self._is_one_free, self._patience = workers, is_one_free, patience

    async def check(self, item: QueueItem, longest: float) -> CheckResult | None:
        """Have a worker iterate an item's plan; None if none was free or found nothing within `longest` seconds."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout(min(longest, self._patience.wait_for_check)):
                while (worker := self._free_for_check()) is None:
                    await self._is_one_free.wait()
        except TimeoutError:
            return None
        return await self.check_on(worker, item, longest - (loop.time() - begin))

    def _free_for_check(self) -> Worker | None:
        """Prefer the last slot, so that the first stays free to run."""
        free = [worker for worker in reversed(self._workers()) if worker.is_free and not worker.checks]
        if not free:
            self._is_one_free.clear()
        return free[0] if free else None

    async def check_on(self, worker: Worker, item: QueueItem, longest: float) -> CheckResult | None:
        """Have this worker check it; one that takes too long is ended."""
        check_id = uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        future: asyncio.Future[CheckResult] = loop.create_future()
        worker.checks[check_id] = future
        worker.process.send(CheckItem(check_id=check_id, item=item))
        loop.call_later(self._patience.check, self._give_up, worker, check_id, item.plan)
        done, _ = await asyncio.wait([future], timeout=longest)  # who asks may be less patient than the patience here
        return future.result() if done and not future.cancelled() else None

    def _give_up(self, worker: Worker, check_id: str, plan: str) -> None:
        if check_id in worker.checks:
            worker.process.kill(f"the check of {plan} took more than {self._patience.check:g} s")
