"""Step scans that run where the devices are: nobody is asked between two points, and pages of events come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bluesky.protocols import Hints, Reading
from event_model import DataKey, PartialEventPage
from ophyd_async.core import AsyncStatus, Device, WatchableAsyncStatus, WatcherUpdate, completed_status
from pydantic import BaseModel, ConfigDict, Field

from devices._both_layers import BothLayers

__all__ = ["Burst", "BurstPoints"]

_PROGRESS_PERIOD = 0.1
"""Seconds."""
_PATIENCE = 60.0
"""Seconds after which a burst fails whose points nobody collects, once it has kept as many as it may."""
_PAGE = 1_000
"""Most points in one page."""


class BurstPoints(BaseModel):
    """Where to go and what to read there."""

    model_config = ConfigDict(extra="forbid")

    positions: dict[str, list[Any]] = Field(min_length=1)
    """{name of a mover: its position at each point, in its units}"""
    detectors: list[str] = []
    """Names of the detectors that are triggered and read at each point, before the movers are read."""
    settle: float = Field(default=0.0, ge=0.0)
    """Seconds between the end of a move and the trigger."""


class Burst(Device):
    """Moves, triggers and reads point by point, and gives the events in pages.

    `prepare` tells the points, `kickoff` starts, `complete` waits for the end. Data keys are those of a step scan with
    the same devices. It keeps `most_points` points at most that nobody has collected yet; then it waits.

    `pause` stops the movers at once; `resume` goes on, and takes the point anew that was under way, but none before it.
    `stop` is the end; `complete` then fails unless `success`. What was read can be collected all the same.

    It stages nothing else: the plan stages movers and detectors.
    """

    def __init__(
        self, movers: Sequence[Any], detectors: Sequence[Any], most_points: int = 10_000, name: str = ""
    ) -> None:
        self._movers = {str(mover.name): mover for mover in movers}
        self._detectors = {str(detector.name): detector for detector in detectors}
        for detector in detectors:
            if hasattr(detector, "collect_asset_docs"):
                raise TypeError(f"{detector.name} writes files, which a burst cannot tell of; use a fly scan for it")
        self._most_points = most_points
        self._members = BothLayers()
        self._moves: list[dict[str, Any]] = []
        """{mover: position} of each point; a mover that stays where it was is left out."""
        self._settle = 0.0
        self._read: list[Any] = []
        """Devices in the order in which they are read."""
        self._triggered: list[Any] = []
        self._next = 0
        """Number of the point that is next."""
        self._rows: list[dict[str, Reading]] = []
        """What was read and not collected."""
        self._given: list[dict[str, Reading]] = []
        """What was collected last."""
        self._has_room = asyncio.Event()
        self._is_paused = False
        self._flight: asyncio.Task[None] | None = None
        """Takes the points; ends in a pause."""
        self._end: asyncio.Future[None] | None = None
        """Ends when the last point is taken, or none will be any more."""
        super().__init__(name=name)

    # ── what there is ──

    @property
    def hints(self) -> Hints:
        """The hinted fields of what is read, once it is prepared."""
        fields = [field for device in self._read for field in getattr(device, "hints", {}).get("fields", [])]
        return {"fields": fields}

    async def describe_collect(self) -> dict[str, DataKey]:
        """Give the data keys of detectors and movers, as a step scan has them."""
        return _merged(await self._members.ask(self._read, "describe"))

    async def describe_configuration(self) -> dict[str, DataKey]:
        """Give those of detectors and movers."""
        return _merged(await self._members.ask(self._read, "describe_configuration"))

    async def read_configuration(self) -> dict[str, Reading]:
        """Give those of detectors and movers."""
        return _merged(await self._members.ask(self._read, "read_configuration"))

    # ── flying ──

    @AsyncStatus.wrap
    async def stage(self) -> None:
        """Forget what was prepared earlier."""
        await self._finish()
        self._forget()

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        """Stop if it still runs; what was read can still be collected."""
        await self._finish()

    @AsyncStatus.wrap
    async def prepare(self, value: BurstPoints) -> None:
        """Take over the points; raises LookupError, ValueError or what a device says of its limits."""
        points = BurstPoints.model_validate(value)
        movers = [_known(name, self._movers, f"{self.name} moves") for name in points.positions]
        detectors = [_known(name, self._detectors, f"{self.name} reads") for name in points.detectors]
        lengths = {name: len(positions) for name, positions in points.positions.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{self.name}: every mover needs as many positions: {lengths}")
        await self._check_limits(points.positions)
        await self._finish()
        self._forget()
        names = list(points.positions)
        everywhere = [dict(zip(names, row, strict=True)) for row in zip(*points.positions.values(), strict=True)]
        self._moves = [_changes(before, point) for before, point in zip([{}, *everywhere], everywhere, strict=False)]
        self._settle = points.settle
        self._read = list(dict.fromkeys([*detectors, *movers]))
        self._triggered = [device for device in self._read if hasattr(device, "trigger")]

    def kickoff(self) -> AsyncStatus[None]:
        """Start; if it runs already, only let what was collected last be given again: it did not arrive."""
        if not self._moves:
            raise RuntimeError(f"{self.name}: there are no points; `prepare` it first")
        self._rows[:0] = self._given
        self._given = []
        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
            self._end.add_done_callback(lambda end: end.exception())  # though nobody may call `complete`
        if not self._is_paused:
            self._go_on()
        return completed_status()

    @WatchableAsyncStatus.wrap
    async def complete(self) -> AsyncIterator[WatcherUpdate[int]]:
        """Wait for the last point; tells how many are taken. Raises what a device raised."""
        end, number = self._end, len(self._moves)
        if end is None:
            raise RuntimeError(f"{self.name}: kickoff was not called")
        while not end.done():
            await asyncio.wait([end], timeout=_PROGRESS_PERIOD)
            yield WatcherUpdate(current=self._next, initial=0, target=number, name=self.name, unit="points")
        end.result()

    async def collect_pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was read since the last time."""
        self._given, self._rows = self._rows, []
        self._has_room.set()
        for first in range(0, len(self._given), _PAGE):
            yield _page(self._given[first : first + _PAGE])

    # ── stopping ──

    async def pause(self) -> None:
        """Stop the movers at once."""
        self._is_paused = True
        await self._halt()

    async def resume(self) -> None:
        """Go on with the point that was under way."""
        self._is_paused = False
        self._go_on()

    async def stop(self, success: bool = False) -> None:
        """Stop at once, for good; `complete` fails unless `success`."""
        await self._finish(None if success else f"{self.name} was stopped at point {self._next + 1}")

    async def _finish(self, error: str | None = None) -> None:
        await self._halt()
        if self._end is not None and not self._end.done():
            if error is None:
                self._end.set_result(None)
            else:
                self._end.set_exception(RuntimeError(error))

    async def _halt(self) -> None:
        if self._flight is not None and not self._flight.done():
            self._flight.cancel()
            await self._members.stop(self._movers[name] for name in self._moves[0])
            await asyncio.wait([self._flight])

    def _forget(self) -> None:
        self._moves, self._read, self._triggered, self._rows, self._given = [], [], [], [], []
        self._next, self._is_paused, self._flight, self._end = 0, False, None, None

    # ── points ──

    async def _check_limits(self, positions: Mapping[str, Sequence[Any]]) -> None:
        for name, values in positions.items():
            mover = self._movers[name]
            for value in values if hasattr(mover, "check_value") else ():
                result = mover.check_value(value)
                if asyncio.iscoroutine(result):
                    await result

    def _go_on(self) -> None:
        if self._end is not None and not self._end.done() and (self._flight is None or self._flight.done()):
            self._flight = asyncio.create_task(self._fly(self._end))

    async def _fly(self, end: "asyncio.Future[None]") -> None:
        try:
            await self._take_points()
        except Exception as error:  # noqa: BLE001  # whatever a device raises is how it ends
            end.set_exception(error)
        else:
            end.set_result(None)

    async def _take_points(self) -> None:
        await self._members.let_end()
        is_first = True  # after a pause the movers are wherever they were stopped
        while self._next < len(self._moves):
            await self._wait_for_room()
            moves = self._all_moves() if is_first else self._moves[self._next]
            is_first = False
            await self._members.start_and_wait((self._movers[name], "set", (at,)) for name, at in moves.items())
            if self._settle:
                await asyncio.sleep(self._settle)
            await self._members.start_and_wait((device, "trigger", ()) for device in self._triggered)
            row = _merged(await self._members.ask(self._read, "read"))
            self._rows.append(row)  # not earlier: what was read may have been collected meanwhile
            self._next += 1

    def _all_moves(self) -> dict[str, Any]:
        """Give where every mover has to be at the next point."""
        return _merged(self._moves[: self._next + 1])

    async def _wait_for_room(self) -> None:
        if len(self._rows) < self._most_points:
            return
        self._has_room.clear()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._has_room.wait()
        except TimeoutError:
            raise TimeoutError(
                f"{self.name}: {len(self._rows)} points wait, and nobody collected any for {_PATIENCE:g} s: "
                f"collect while it completes"
            ) from None


def _known(name: str, among: Mapping[str, Any], what: str) -> Any:
    if name not in among:
        raise LookupError(f"{what} {', '.join(among) or 'nothing'}, not {name!r}: see its entry in the device file")
    return among[name]


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def _changes(before: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: at for name, at in point.items() if name not in before or before[name] != at}


def _page(rows: Sequence[Mapping[str, Reading]]) -> PartialEventPage:
    now = time.time()
    return {
        "time": [now] * len(rows),
        "data": {key: [row[key]["value"] for row in rows] for key in rows[0]},
        "timestamps": {key: [row[key]["timestamp"] for row in rows] for key in rows[0]},
    }
