"""Devices that behave in ways a server must bear."""

import asyncio
import threading
from typing import Any

from ophyd import Component, Device, Signal, SoftPositioner
from ophyd_async.core import AsyncStatus, StandardReadable, soft_signal_rw
from ophyd_async.core import Device as AsyncDevice

attempts: dict[str, int] = {}
"""{device: how often it was built}"""
let_go = threading.Event()


class Napper(Device):
    """Blocks in `trigger`, as drivers of ophyd should not but do; stopping it wakes it."""

    value = Component(Signal, value=1.0, kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, pace: float = 0.3, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._pace = pace
        self._wake = threading.Event()

    def nap(self, seconds: float) -> str:
        """Sleep that long, or until it is stopped."""
        self._wake.clear()
        return "woken" if self._wake.wait(seconds) else "slept"

    def trigger(self) -> Any:
        self.nap(self._pace)
        return super().trigger()

    def stop(self, *, success: bool = False) -> None:
        self._wake.set()

    USER_ACCESS = ("nap",)


class Confined(SoftPositioner):
    """Its limits are changed where it lives, as an operator does in the control system."""

    def confine(self, low: float, high: float) -> None:
        self._limits = (low, high)

    USER_ACCESS = ("confine",)


class Unstoppable(Device):
    """Its `stop` does not return until it is let go."""

    value = Component(Signal, value=1.0, kind="hinted")

    def stop(self, *, success: bool = False) -> None:
        let_go.wait(30.0)


class Stalling(Device):
    """Its `trigger` and its reading hang while it is told to, as those of a driver that waits for a dead controller."""

    value = Component(Signal, value=1.0, kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._goes_on = threading.Event()
        self._goes_on.set()

    def stall(self) -> None:
        self._goes_on.clear()

    def stop(self, *, success: bool = False) -> None:
        self._goes_on.set()

    def trigger(self) -> Any:
        self._goes_on.wait(60.0)
        return super().trigger()

    def read(self) -> Any:
        self._goes_on.wait(60.0)
        return super().read()

    USER_ACCESS = ("stall",)


class StallingAsync(StandardReadable):
    """Its reading hangs while it is told to; a `set` of it is never done."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.value = soft_signal_rw(float, 0.0)
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        super().__init__(name=name)

    def stall(self) -> None:
        self._goes_on.clear()

    async def stop(self, success: bool = False) -> None:
        self._goes_on.set()

    async def read(self) -> Any:
        await self._goes_on.wait()
        return await super().read()

    @AsyncStatus.wrap
    async def set(self, value: float) -> None:
        await asyncio.sleep(60.0)

    USER_ACCESS = ("stall",)


class Lingering(StandardReadable):
    """Takes its time to unstage; tells in which order things were done."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.value = soft_signal_rw(float, 0.0)
        self.done: list[str] = []
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        await asyncio.sleep(0.2)
        self.done.append("unstaged")

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        self.done.append("triggered")

    def history(self) -> list[str]:
        return self.done

    USER_ACCESS = ("history",)


class Telling(StandardReadable):
    """Tells whether its signal is monitored, so that `read()` answers from a cache, as it also does when staged."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.value = soft_signal_rw(float, 0.0)
        super().__init__(name=name)

    def is_monitored(self) -> bool:
        return self.value._cache is not None

    USER_ACCESS = ("is_monitored",)


class Unreachable(AsyncDevice):
    """Never connects."""

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(60.0)


class Hanging(Device):
    """Its constructor does not return until it is let go."""

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        attempts[name] = attempts.get(name, 0) + 1
        let_go.wait(30.0)
        super().__init__(prefix, name=name, **kwargs)


class Failing(Device):
    """Fails one of its readings."""

    value = Component(Signal, value=1.0, kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._readings_left = 10**9

    def fail_after(self, number: int) -> None:
        """Give the next `number` readings, fail once, then give readings again."""
        self._readings_left = number

    def read(self) -> Any:
        self._readings_left -= 1
        if self._readings_left == -1:
            raise OSError("the electrometer is saturated")
        if self._readings_left < -1:
            self._readings_left = 10**9
        return super().read()

    USER_ACCESS = ("fail_after",)


class ThirdTime(Device):
    """Can be built at the third try."""

    value = Component(Signal, value=1.0, kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        attempts[name] = attempts.get(name, 0) + 1
        if attempts[name] < 3:
            raise ConnectionError(f"controller busy, try {attempts[name]}")
        super().__init__(prefix, name=name, **kwargs)


class Counting(StandardReadable):
    """Counts how often it was connected."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.value = soft_signal_rw(float, 7.0)
        super().__init__(name=name)

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        attempts[self.name] = attempts.get(self.name, 0) + 1
        await super().connect(*args, **kwargs)


async def made_later(name: str) -> Any:
    """An asynchronous factory."""
    await asyncio.sleep(0)
    return soft_signal_rw(float, 3.0, name=name)


def not_a_device(name: str) -> int:
    """A factory that gives no device."""
    return len(name)


class Grumbling(Device):
    """Raises TimeoutError at once when it is read, until told not to: its controller says so, and it answers."""

    value = Component(Signal, value=1.0, kind="hinted")
    is_cross = False

    def be(self, cross: bool) -> None:
        self.is_cross = cross

    def read(self) -> Any:
        if self.is_cross:
            raise TimeoutError("the amplifier has not settled")
        return super().read()

    USER_ACCESS = ("be",)
