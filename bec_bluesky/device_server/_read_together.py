"""Readings of several devices in one answer: what `read_all` asks for, and what comes with the end of a batch."""

from functools import partial
from typing import Any

from bec_bluesky.device_server._calls import Call
from bec_bluesky.device_server._entry import Found
from bec_bluesky.device_server._reading import Reader
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.errors import DeviceError
from bec_bluesky.messages.failures import tell

__all__ = ["ReadTogether"]


class ReadTogether:
    """Reads devices by path, at the same time; what cannot be read is a Failure among the readings."""

    def __init__(self, registry: Registry, reader: Reader, where: str) -> None:
        self._registry = registry
        self._reader = reader
        self._where = where

    async def read(self, paths: list[str]) -> dict[str, Any]:
        """Give {path: reading, or Failure}."""
        readings: dict[str, Any] = {}
        wanted: list[Found] = []
        for path in paths:
            try:
                wanted.append(self._registry.find(path))
            except (LookupError, DeviceError) as error:
                readings[path] = error
        readings |= zip((found.path for found in wanted), await self._reader.read_many(wanted), strict=True)
        return self.told(readings)

    def calls(self, paths: list[str]) -> list[Call]:
        """Give the calls that read these devices in a thread; none if they are not all of ophyd."""
        try:
            wanted = [self._registry.find(path) for path in paths]
        except (LookupError, DeviceError):
            return []
        if any(found.layer == "ophyd-async" for found in wanted):
            return []
        return [Call(found, "read", partial(self._reader.read_sync, found)) for found in wanted]

    def told(self, readings: dict[str, Any]) -> dict[str, Any]:
        """Put Failures in the place of errors."""
        return {
            path: tell(reading, device=path, where=self._where) if isinstance(reading, BaseException) else reading
            for path, reading in readings.items()
        }
