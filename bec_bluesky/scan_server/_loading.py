"""Plans and scripts that all workers load while they live."""

import asyncio
from collections.abc import Awaitable, Callable

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.worker import ModulesReloaded, ReloadModules, TakeScript
from bec_bluesky.scan_server._worker import Worker

__all__ = ["Loading"]


class Loading:
    """Has one worker try first; what they say comes to `worker.reloads`."""

    def __init__(self, workers: Callable[[], list[Worker]], is_one_free: asyncio.Event) -> None:
        """The pool sets the event when a worker becomes free."""
        self._workers, self._is_one_free = workers, is_one_free

    async def load(
        self,
        message: ReloadModules | TakeScript,
        what: str,
        longest: float,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> ModulesReloaded:
        """Have a free worker load something, `then` do this, then, since it survived, all others.

        Raises RefusedError if none is free, or that one does not answer within `longest` seconds: it is ended then, and
        the others keep what they have. Those that run an item follow when that has ended.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + longest
        first = await self._free_until(deadline, what)
        found = self._ask_to_load(first, message)
        await asyncio.wait([found], timeout=deadline - loop.time())
        if not found.done():
            first.process.kill(f"it did not finish {what[0].lower()}{what[1:]}")
        if not found.done() or found.cancelled():
            raise RefusedError(f"{what} took too long or ended a worker; the others keep what they have", "import")
        answer = found.result()
        if answer.failure is None:
            if then is not None:
                await then()
            others = [each for each in self._workers() if each is not first and each.process.is_connected]
            are_free = [each.is_free for each in others]
            asked = [self._ask_to_load(each, message) for each in others]
            free = [future for future, is_free in zip(asked, are_free, strict=True) if is_free]
            if free:
                await asyncio.wait(free, timeout=max(0.0, deadline - loop.time()))
        return answer

    async def _free_until(self, deadline: float, what: str) -> Worker:
        try:
            async with asyncio.timeout_at(deadline):
                while (free := next((each for each in reversed(self._workers()) if each.is_free), None)) is None:
                    self._is_one_free.clear()
                    await self._is_one_free.wait()
        except TimeoutError:
            raise RefusedError(
                f"{what} needs a free worker, and there is none: ask again when an item has ended", "no_worker"
            ) from None
        return free

    def _ask_to_load(self, worker: Worker, message: ReloadModules | TakeScript) -> asyncio.Future[ModulesReloaded]:
        future: asyncio.Future[ModulesReloaded] = asyncio.get_running_loop().create_future()
        worker.reloads.append(future)
        worker.process.send(message)
        return future
