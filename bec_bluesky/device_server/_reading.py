"""Reading devices, with what the device file says of failures."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor as Threads
from functools import partial
from typing import Any

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._calls import Call, Calls, Outcome
from bec_bluesky.device_server._entry import Entry, Found

__all__ = ["Reader"]

_OUTDATED = -1
"""`alarm_severity` of a reading that is not of now."""


class Reader:
    """Reads; keeps the last good reading of devices that may fail (`on_failure: buffer`)."""

    def __init__(self, threads: Threads, calls: Calls) -> None:
        self._threads = threads
        self._calls = calls
        self._good: dict[int, Any] = {}
        self.taken: dict[str, Any] = {}
        """{path: last reading} of devices that block: nobody reads those just to show them."""

    async def read(self, found: Found) -> Any:
        """Read a device of ophyd-async."""
        entry, device = found.entry, found.device
        try:
            reading = await _layers.reading_now(device, self._threads, fresh=entry.spec.fresh)
        except Exception as error:  # noqa: BLE001  # the device file says what it means
            if entry.spec.on_failure != "retry":
                return self._instead(entry, device, error)
            return await _layers.reading_now(device, self._threads, fresh=entry.spec.fresh)
        return self._kept(entry, device, reading)

    def read_sync(self, found: Found) -> Any:
        """Read a device of ophyd, in a thread."""
        entry, device = found.entry, found.device
        try:
            reading = device.read()
        except Exception as error:  # noqa: BLE001  # the device file says what it means
            if entry.spec.on_failure != "retry":
                return self._instead(entry, device, error)
            reading = device.read()
        if entry.spec.blocking:
            self.taken[found.path] = reading
        return self._kept(entry, device, reading)

    async def described(self, found: Found) -> dict[str, Any]:
        """Give what a device's `describe` gives."""
        if found.layer == "ophyd-async":
            return await found.device.describe()
        return await asyncio.get_running_loop().run_in_executor(self._threads, found.device.describe)

    async def read_many(self, wanted: Sequence[Found], *, timeout: float | None = None) -> list[Any]:
        """Read at the same time: those of ophyd-async together, those of ophyd in one thread; errors are in the list.

        One of ophyd-async may take `timeout` seconds; None: as long as it takes.
        """
        sync = [number for number, found in enumerate(wanted) if found.layer != "ophyd-async"]
        others = [number for number, found in enumerate(wanted) if found.layer == "ophyd-async"]
        result: dict[int, Any] = {}

        def take(outcomes: list[Outcome]) -> None:
            result.update({sync[each.number]: each.error or each.result for each in outcomes})

        calls = [Call(wanted[number], "read", partial(self.read_sync, wanted[number])) for number in sync]
        readings = await asyncio.gather(
            *(self._read_in(wanted[number], timeout) for number in others),
            *([self._calls.in_thread(self._threads, calls, take)] if calls else []),
            return_exceptions=True,
        )
        result |= dict(zip(others, readings, strict=False))
        return [result[number] for number in range(len(wanted))]

    async def _read_in(self, found: Found, timeout: float | None) -> Any:
        async with asyncio.timeout(timeout):
            return await self._calls.within(found, "read", self.read(found))

    def _kept(self, entry: Entry, device: Any, reading: Any) -> Any:
        if entry.spec.on_failure == "buffer":
            self._good[id(device)] = reading
        return reading

    def _instead(self, entry: Entry, device: Any, error: Exception) -> Any:
        if entry.spec.on_failure == "ignore":
            return {}
        good = self._good.get(id(device)) if entry.spec.on_failure == "buffer" else None
        if good is None:
            raise error
        return {key: {**value, "alarm_severity": _OUTDATED} for key, value in good.items()}
