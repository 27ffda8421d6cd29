"""Devices that have every verb of bluesky's protocols, any of which fails on demand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.sim import SynSignalWithRegistry
from ophyd.status import DeviceStatus
from ophyd.utils import LimitError, UnknownStatusFailure
from ophyd_async.core import Array1D, AsyncStatus, NotConnectedError, StandardReadable, soft_signal_rw
from ophyd_async.core import StandardReadableFormat as Format

__all__ = ["CALLS", "ERRORS", "STATUSES", "Faulty", "FaultyAsync", "image", "wave"]

ERRORS: dict[str, Callable[[], Exception]] = {
    "RuntimeError": lambda: RuntimeError("the shutter is stuck"),
    "KeyError": lambda: KeyError("no such filter"),
    "LookupError": lambda: LookupError(),
    "ValueError": lambda: ValueError("not", "this", 1),
    "LimitError": lambda: LimitError("7 is beyond 5"),
    "TimeoutError": lambda: TimeoutError("no answer within 1 s"),
    "FileNotFoundError": lambda: FileNotFoundError(2, "No such file or directory", "frames.h5"),
    "OSError": lambda: OSError("the disk is full"),
    "ConnectionResetError": lambda: ConnectionResetError(104, "Connection reset by peer"),
    "NotConnectedError": lambda: NotConnectedError("X:Y"),
    "UnknownStatusFailure": lambda: UnknownStatusFailure("something went wrong"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
    "StopAsyncIteration": lambda: StopAsyncIteration("no more frames"),
    "NotImplementedError": lambda: NotImplementedError(),
}
"""What may go wrong, by the name of its class."""
STATUSES = ("set", "trigger", "stage", "unstage", "prepare", "kickoff", "complete")
"""Verbs that give a status."""
CALLS = ("read", "describe", "read_configuration", "describe_configuration", "configure", "describe_collect", "collect")
"""Verbs that give something else."""


class Faulty(Device):
    """Of ophyd. Its part `fault` says what fails next: 'trigger status KeyError', 'read call OSError'."""

    value = Component(Signal, value=1.0, kind="hinted")
    gain = Component(Signal, value=2, kind="config")
    fault = Component(Signal, value="", kind="omitted")

    def _error(self, verb: str, how: str) -> Exception | None:
        wanted = self.fault.get().split()
        return ERRORS[wanted[2]]() if wanted[:2] == [verb, how] else None

    def _check(self, verb: str) -> None:
        error = self._error(verb, "call")
        if error is not None:
            raise error

    def _status(self, verb: str) -> DeviceStatus:
        self._check(verb)
        status = DeviceStatus(self)
        error = self._error(verb, "status")
        if error is None:
            status.set_finished()
        else:
            status.set_exception(error)
        return status

    def set(self, value: float) -> DeviceStatus:
        status = self._status("set")
        self.value.put(value)
        return status

    def trigger(self) -> DeviceStatus:
        return self._status("trigger")

    def stage(self) -> Any:
        return self._status("stage")

    def unstage(self) -> Any:
        return self._status("unstage")

    def prepare(self, value: Any) -> DeviceStatus:
        return self._status("prepare")

    def kickoff(self) -> DeviceStatus:
        return self._status("kickoff")

    def complete(self) -> DeviceStatus:
        return self._status("complete")

    def read(self) -> Any:
        self._check("read")
        return super().read()

    def describe(self) -> Any:
        self._check("describe")
        return super().describe()

    def read_configuration(self) -> Any:
        self._check("read_configuration")
        return super().read_configuration()

    def describe_configuration(self) -> Any:
        self._check("describe_configuration")
        return super().describe_configuration()

    def configure(self, changes: Any) -> Any:
        self._check("configure")
        return super().configure(changes)

    def describe_collect(self) -> Any:
        self._check("describe_collect")
        return {"flown": super().describe()}

    def collect(self) -> Iterator[Any]:
        for number in range(3):
            if number == 1:
                self._check("collect")
            reading = {key: {**entry, "value": float(number)} for key, entry in super().read().items()}
            yield {
                "data": {key: entry["value"] for key, entry in reading.items()},
                "timestamps": {key: entry["timestamp"] for key, entry in reading.items()},
                "time": 0.0,
            }

    def locate(self) -> Any:
        self._check("locate")
        return {"setpoint": self.value.get(), "readback": self.value.get()}

    def check_value(self, value: float) -> None:
        self._check("check_value")
        if value > 5:
            raise LimitError(f"{value} is beyond 5")

    def subscribe(self, *args: Any, **kwargs: Any) -> Any:
        if self.connected and "fault" in self._signals:
            self._check("subscribe")
        return super().subscribe(*args, **kwargs)

    def pause(self) -> None:
        self._check("pause")
        self.gain.put(self.gain.get() + 10)

    def resume(self) -> None:
        self._check("resume")
        self.gain.put(self.gain.get() + 100)


class FaultyAsync(StandardReadable):
    """The same of ophyd-async."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables(Format.HINTED_SIGNAL):
            self.value = soft_signal_rw(float, 1.0)
        with self.add_children_as_readables(Format.CONFIG_SIGNAL):
            self.gain = soft_signal_rw(int, 2)
        self.fault = soft_signal_rw(str, "")
        super().__init__(name=name)
        self._wanted: list[str] = []

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        await super().connect(*args, **kwargs)
        self.fault.subscribe(self._want)

    def _want(self, reading: Any) -> None:
        ((_, entry),) = reading.items()
        self._wanted = entry["value"].split()

    def _check(self, verb: str, how: str = "call") -> None:
        if self._wanted[:2] == [verb, how]:
            raise ERRORS[self._wanted[2]]()

    def _status(self, verb: str, value: float | None = None) -> AsyncStatus:
        self._check(verb)

        async def proceed() -> None:
            await asyncio.sleep(0)
            self._check(verb, "status")
            if value is not None:
                await self.value.set(value)

        return AsyncStatus(proceed())

    def set(self, value: float) -> AsyncStatus:
        return self._status("set", value)

    def trigger(self) -> AsyncStatus:
        return self._status("trigger")

    def stage(self) -> AsyncStatus:
        return self._status("stage")

    def unstage(self) -> AsyncStatus:
        return self._status("unstage")

    def prepare(self, value: Any) -> AsyncStatus:
        return self._status("prepare")

    def kickoff(self) -> AsyncStatus:
        return self._status("kickoff")

    def complete(self) -> AsyncStatus:
        return self._status("complete")

    async def read(self) -> Any:
        self._check("read")
        return await super().read()

    async def describe(self) -> Any:
        self._check("describe")
        return await super().describe()

    async def read_configuration(self) -> Any:
        self._check("read_configuration")
        return await super().read_configuration()

    async def describe_configuration(self) -> Any:
        self._check("describe_configuration")
        return await super().describe_configuration()

    async def describe_collect(self) -> Any:
        self._check("describe_collect")
        return {"flown": await super().describe()}

    async def collect(self) -> AsyncIterator[Any]:
        for number in range(3):
            if number == 1:
                self._check("collect")
            reading = {key: {**entry, "value": float(number)} for key, entry in (await super().read()).items()}
            yield {
                "data": {key: entry["value"] for key, entry in reading.items()},
                "timestamps": {key: entry["timestamp"] for key, entry in reading.items()},
                "time": 0.0,
            }

    async def locate(self) -> Any:
        self._check("locate")
        value = await self.value.get_value()
        return {"setpoint": value, "readback": value}

    async def check_value(self, value: float) -> None:
        self._check("check_value")
        if value > 5:
            raise ValueError(f"{value} is beyond 5")

    def subscribe(self, function: Any) -> None:
        self._check("subscribe")

    def clear_sub(self, function: Any) -> None:
        pass

    async def pause(self) -> None:
        self._check("pause")
        await self.gain.set(await self.gain.get_value() + 10)

    async def resume(self) -> None:
        self._check("resume")
        await self.gain.set(await self.gain.get_value() + 100)


def image(name: str, directory: str) -> SynSignalWithRegistry:
    """A detector of ophyd that writes a file for each frame: resource and datum documents."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    return SynSignalWithRegistry(func=lambda: np.arange(6.0).reshape(2, 3), name=name, save_path=directory)


def wave(name: str) -> Any:
    """An array."""
    return soft_signal_rw(Array1D[np.float64], np.array([1.0, np.nan, 3.0]), name=name)
