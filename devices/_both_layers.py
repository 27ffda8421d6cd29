"""Several devices at once, whether they are of ophyd (called in a thread) or of ophyd-async (called in the loop)."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from ophyd_async.core import AsyncStatus, WatchableAsyncStatus
from ophyd_async.core import Device as AsyncDevice

__all__ = ["BothLayers"]

Call = tuple[Any, str, tuple[Any, ...]]
"""A device, a method of it, and its arguments."""


class BothLayers:
    """Calls methods of devices; those of ophyd one after the other in a thread, the others together."""

    def __init__(self) -> None:
        self._under_way: list[asyncio.Future[None]] = []
        self._in_threads: set[asyncio.Future[None]] = set()
        """Calls in threads that are under way."""

    async def start_and_wait(self, calls: Iterable[Call]) -> None:
        """Call methods that give a status, and wait for the ends of all; raises the first error."""
        ends = self._under_way = [_end_of(status) for status in await self._call(calls)]
        running = [end for end in ends if not end.done()]
        if running:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for end in ends:
            if end.done():
                end.result()

    async def let_end(self) -> None:
        """Wait for what `start_and_wait` began before it was cancelled, whatever comes of it."""
        left = {*self._under_way, *self._in_threads}
        if left:
            await asyncio.wait(left)

    async def ask(self, devices: Iterable[Any], method: str) -> list[Any]:
        """Give what a method without arguments gives, for each device; an empty dict where there is no such method."""
        devices = list(devices)
        able = [device for device in devices if hasattr(device, method)]
        results = await self._call([(device, method, ()) for device in able])
        values = await asyncio.gather(*(_value(result) for result in results))
        found = {id(device): value for device, value in zip(able, values, strict=True)}
        return [found.get(id(device), {}) for device in devices]

    async def stop(self, devices: Iterable[Any]) -> None:
        """Stop devices, also while a thread is blocked by one; the ends of their moves count as success."""
        able = [device for device in devices if hasattr(device, "stop")]
        results = await self._call([(device, "stop", ()) for device in able], success=True)
        await asyncio.gather(*(_value(result) for result in results))

    async def _call(self, calls: Iterable[Call], **kwargs: Any) -> Sequence[Any]:
        calls = list(calls)
        blocking = [number for number, (device, _, _) in enumerate(calls) if not isinstance(device, AsyncDevice)]
        results: list[Any] = [None] * len(calls)

        def call(numbers: Iterable[int]) -> None:
            for number in numbers:
                device, method, args = calls[number]
                results[number] = getattr(device, method)(*args, **kwargs)

        call(number for number in range(len(calls)) if number not in blocking)
        if blocking:
            job = asyncio.get_running_loop().run_in_executor(None, call, blocking)
            self._in_threads.add(job)
            job.add_done_callback(self._in_threads.discard)
            await asyncio.shield(job)  # what is cancelled here still goes on in the thread
        return results


async def _value(result: Any) -> Any:
    return await result if isinstance(result, Awaitable) else result


def _end_of(status: Any) -> "asyncio.Future[None]":
    """Give a future that ends with a status of either layer."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda ended: ended.exception())  # of several errors only the first is raised

    def end() -> None:
        error = status.exception(0.0)
        if error is None:
            future.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            future.set_exception(RuntimeError(f"{status!r} was cancelled"))
        else:
            future.set_exception(error)

    if status.done:
        end()
    elif isinstance(status, AsyncStatus | WatchableAsyncStatus):  # of ophyd-async: it ends in the loop
        status.add_callback(lambda _: end())
    else:
        status.add_callback(lambda _: loop.call_soon_threadsafe(end))
    return future
