"""Publishes what a callback makes: points, results, files; in order, and once also when a run is fed again."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import groupby
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import FILES, LATEST_POINT, POINTS, RESULTS
from bec_bluesky.errors import BusError, StreamGapError
from bec_bluesky.log import logger
from bec_bluesky.messages.products import AnalysisResult, FileGrowing, FileReady, Point, Product, RunProblem

__all__ = ["Alarm", "Publisher"]

_log = logger(__name__)
_BATCH = 200
"""Products that are taken together, at most."""
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
        """Publish for ever; points that follow each other go together."""
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(0)  # the thread that emits goes on meanwhile
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                for points, products in groupby(batch, _run_of_point):
                    if points is not None:
                        await self._until_done(points, partial(self._publish_points, points, list(products)))
                        continue
                    for product in products:
                        await self._until_done(product.run_uid, partial(self._publish, product))
            finally:
                for _ in batch:
                    self._waiting.task_done()

    async def drained(self) -> None:
        """Wait until everything emitted so far is on Redis."""
        await asyncio.sleep(0)  # what was handed over by `call_soon_threadsafe` comes first
        await self._waiting.join()

    def forget(self, run: str) -> None:
        """Drop what was kept for a run that ended."""
        self._numbers.pop(run, None)

    async def _until_done(self, run: str, publish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                return await publish()
            except BusError as error:
                _log.warning("%s; publishing again", error, extra={"run": run})
                await asyncio.sleep(0.2)

    async def _publish(self, product: Product) -> None:
        match product:
            case AnalysisResult():
                await self._bus.append(RESULTS, product, run=product.run_uid)
            case FileReady() | FileGrowing():
                await self._bus.append(FILES, product)
            case RunProblem():
                text = f"{product.source}: {product.text}"
                await self._alarm(text, level=product.level, run=product.run_uid)
            case Point():
                pass  # goes with its neighbours

    async def _publish_points(self, run: str, points: list[Product]) -> None:
        if run not in self._numbers:
            last = await self._bus.last_id(POINTS, run=run)
            self._numbers[run] = (0, int(last.partition("-")[0]))
        emitted, present = self._numbers[run]
        # a run that is fed again repeats its points in the same order: those are there
        there = max(0, present - emitted)
        try:
            if new := points[there:]:
                await self._bus.append_at(POINTS, emitted + there + 1, *new, latest=LATEST_POINT, run=run)
            elif len(points) == there:  # the newest that is there may have been written just before a kill
                await self._bus.put(LATEST_POINT, points[-1])
        except StreamGapError as error:
            _log.error("a point is left out: %s", error, extra={"run": run})
        self._numbers[run] = (emitted + len(points), present)


def _run_of_point(product: Product) -> str | None:
    return product.run_uid if isinstance(product, Point) else None
