"""Lanes: operations on one device never overtake each other."""

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["Lanes"]


class Lanes:
    """A lane for each device, held by what blocks: calls in threads, stage and unstage until they are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lanes: dict[str, asyncio.Future[None]] = {}
        """{device: done when what must come before the next operation has ended}"""
        self._queued: dict[str, int] = {}
        """{device: operations that wait for its lane}"""
        self._to_call: dict[int, str] = {}
        """{number of an operation that moves or stops a device, and whose call has not returned: the device}"""

    def is_busy(self, device: str) -> bool:
        """Whether an operation on a device must wait: for what holds its lane, or behind others that wait."""
        return bool(self.held([device])) or bool(self._queued.get(device))

    def held(self, devices: Iterable[str]) -> "list[asyncio.Future[None]]":
        """Give the lanes of these devices that are held."""
        found = (self._lanes.get(device) for device in devices)
        return [lane for lane in found if lane is not None and not lane.done()]

    def hold(self, devices: Iterable[str]) -> "asyncio.Future[None]":
        """Hold the lanes of these devices, from now on, until what is given is let go."""
        mine: asyncio.Future[None] = self._loop.create_future()
        self._lanes |= dict.fromkeys(devices, mine)
        return mine

    def hold_until_done(self, device: str, status: Any) -> "asyncio.Future[None]":
        """Hold a lane until a status is done, in whatever thread that is."""
        lane = self.hold([device])

        def release(_: Any) -> None:
            self._loop.call_soon_threadsafe(self.let_go, lane)

        status.add_callback(release)
        return lane

    @staticmethod
    def let_go(lane: "asyncio.Future[None]") -> None:
        """Let what waits for a lane go on; harmless when repeated."""
        if not lane.done():
            lane.set_result(None)

    def free(self, device: str) -> None:
        """Let what waits for a device go on: what it waits for has failed."""
        lane = self._lanes.pop(device, None)
        if lane is not None:
            self.let_go(lane)

    async def abandon(self, device: str, timeout: float) -> None:
        """Wait for what holds a lane, `timeout` seconds at most, and forget it."""
        lanes = self.held([device])
        if lanes:
            await asyncio.wait(lanes, timeout=timeout)
        self._lanes.pop(device, None)

    def queue(self, device: str) -> None:
        """Note that an operation waits for its turn."""
        self._queued[device] = self._queued.get(device, 0) + 1

    def unqueue(self, device: str) -> None:
        """Note that its turn has come."""
        self._queued[device] -= 1

    def note_call(self, number: int, device: str) -> None:
        """Note that an operation was accepted that moves or stops a device, and that its call is to come."""
        self._to_call[number] = device

    def note_return(self, number: int) -> None:
        """Note that its call has returned, or will not be made; harmless for others."""
        self._to_call.pop(number, None)

    def is_noted(self, number: int) -> bool:
        """Whether the call of such an operation has not returned."""
        return number in self._to_call

    def is_to_be_called(self, device: str) -> bool:
        """Whether there is such an operation for a device."""
        return device in self._to_call.values()
