"""The thread that talks while plans run: an event loop, and the tasks in it."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import uvloop

from bec_bluesky.log import logger

__all__ = ["ControlThread"]

_log = logger(__name__)
T = TypeVar("T")


class ControlThread:
    """An event loop in a thread of its own; its tasks end with the block."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="control", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Run a coroutine; from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it; from any other thread."""
        return self.start(coroutine).result()

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, None],
        name: str,
        *,
        on_failure: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Run a coroutine as one of this thread's tasks; from the loop. One that fails is logged, and told."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, on_failure))

    def _ended(self, task: asyncio.Task[None], on_failure: Callable[[str, BaseException], None] | None) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed: %s", task.get_name(), error, exc_info=error)
            if on_failure is not None:
                on_failure(task.get_name(), error)

    async def _cancel_all(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
