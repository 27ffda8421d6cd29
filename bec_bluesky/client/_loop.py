"""An event loop in a thread of its own, so that people need not write `await`."""

import asyncio
import concurrent.futures
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from bec_bluesky.errors import BusError

__all__ = ["Elements", "LoopThread"]

Result = TypeVar("Result")
Element = TypeVar("Element")


class _End:
    """Ends an iteration; carries what it ended with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Elements(Iterator[Element]):
    """The elements of an asynchronous generator, for another thread. Ctrl-C in `next()` loses none of them."""

    def __init__(
        self,
        generator: AsyncGenerator[Element, None],
        loop: asyncio.AbstractEventLoop,
        pumps: "weakref.WeakSet[asyncio.Task[Any]]",
    ) -> None:
        """Begin; the task that asks the generator is put into `pumps`."""
        self._elements: queue.SimpleQueue[Element | _End] = queue.SimpleQueue()
        self._generator = generator
        self._is_ended = False
        self._future: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(self._pump(pumps), loop)

    async def _pump(self, pumps: "weakref.WeakSet[asyncio.Task[Any]]") -> None:
        if (task := asyncio.current_task()) is not None:
            pumps.add(task)
        end = _End()
        try:
            async for element in self._generator:
                self._elements.put(element)
        except Exception as error:  # noqa: BLE001  # handed over to the thread that iterates
            end = _End(error)
        finally:
            await self._generator.aclose()
            self._elements.put(end)

    def __next__(self) -> Element:
        if self._is_ended:
            raise StopIteration
        element = self._elements.get()  # as long as the generator waits; Ctrl-C ends it
        if not isinstance(element, _End):
            return element
        self._is_ended = True
        if element.error is not None:
            raise element.error
        raise StopIteration

    def close(self) -> None:
        """Stop the generator; harmless when repeated."""
        self._is_ended = True
        self._future.cancel()

    def __del__(self) -> None:
        self._future.cancel()


class LoopThread:
    """Runs coroutines for another thread; Ctrl-C in that thread cancels what it waits for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._running: asyncio.AbstractEventLoop | None = None
        self._pumps: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def start(self) -> None:
        """Start the thread."""
        self._running = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._running.run_forever, name="bec-bluesky client", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._running is not None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._running is None:
            raise BusError("this client is closed: connect() again")
        return self._running

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and give what it returns."""
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except BusError:
            coroutine.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, generator: AsyncGenerator[Element, None]) -> "Elements[Element]":
        """Give the elements of an asynchronous generator as they come."""
        return Elements(generator, self._loop, self._pumps)

    async def end_pumps(self) -> None:
        """End every iteration, before what they read from is closed: one that reads on would connect again."""
        await _cancel(self._pumps)

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        if self._thread is None or self._running is None:
            return
        self.call(self._cancel_all())
        self._running.call_soon_threadsafe(self._running.stop)
        self._thread.join(timeout=5.0)
        self._running.close()
        self._thread = self._running = None

    async def _cancel_all(self) -> None:
        await _cancel(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


async def _cancel(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
