"""Publishes what a callback makes: points, results, files; in order, and once also when a run is fed again."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import FILES, LATEST_POINT, POINTS, RESULTS
from bec_bluesky.errors import BusError, StreamGapError
from bec_bluesky.log import logger
from bec_bluesky.messages.products import AnalysisResult, FileGrowing, FileReady, Point, Product, RunProblem

__all__ = ["Alarm", "Publisher"]

_log = logger(__name__)
Alarm = Callable[..., Coroutine[Any, Any, None]]


class Publisher:
    """One callback's way to Redis; `emit` may be called from any thread."""

    def __init__(self, bus: Bus, loop: asyncio.AbstractEventLoop, alarm: Alarm) -> None:
        self._bus = bus
        self._loop = loop
        self._alarm = alarm
        self._waiting: asyncio.Queue[Product] = asyncio.Queue()
        self._numbers: dict[str, tuple[int, int]] = {}
        """{run: (points emitted by this process, points that were there before it)}"""

    def emit(self, product: Product) -> None:
        """Take a product; never blocks."""
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, product)

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            product = await self._waiting.get()
            try:
                await self._publish_until_done(product)
            finally:
                self._waiting.task_done()

    async def drained(self) -> None:
        """Wait until everything emitted so far is on Redis."""
        await asyncio.sleep(0)  # what was handed over by `call_soon_threadsafe` comes first
        await self._waiting.join()

    def forget(self, run: str) -> None:
        """Drop what was kept for a run that ended."""
        self._numbers.pop(run, None)

    async def _publish_until_done(self, product: Product) -> None:
        while True:
            try:
                return await self._publish(product)
            except StreamGapError as error:
                _log.error("a point is left out: %s", error, extra={"run": product.run_uid})
                return None
            except BusError as error:
                _log.warning("%s; publishing again", error, extra={"run": product.run_uid})
                await asyncio.sleep(0.2)

    async def _publish(self, product: Product) -> None:
        match product:
            case Point():
                await self._publish_point(product)
            case AnalysisResult():
                await self._bus.append(RESULTS, product, run=product.run_uid)
            case FileReady() | FileGrowing():
                await self._bus.append(FILES, product)
            case RunProblem():
                text = f"{product.source}: {product.text}"
                await self._alarm(text, level=product.level, run=product.run_uid)

    async def _publish_point(self, point: Point) -> None:
        if point.run_uid not in self._numbers:
            last = await self._bus.last_id(POINTS, run=point.run_uid)
            self._numbers[point.run_uid] = (0, int(last.partition("-")[0]))
        emitted, present = self._numbers[point.run_uid]
        if emitted >= present:  # a run that is fed again repeats its points in the same order: those are there
            await self._bus.append_at(POINTS, emitted + 1, point, run=point.run_uid)
        if emitted + 1 >= present:  # the newest that is there may have been written just before a kill
            await self._bus.put(LATEST_POINT, point)
        self._numbers[point.run_uid] = (emitted + 1, present)
