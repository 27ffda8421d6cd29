"""Devices that answer from their descriptions and last readings: nothing that is done with them reaches a server."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bec_bluesky.proxy import RemoteDevice

__all__ = ["NotSimulatedError", "Readings", "SimulatedDevices"]

Readings = dict[str, dict[str, Any]]
"""{path: reading}"""


class NotSimulatedError(RuntimeError):
    """The plan asks a device directly, not by a message; only running it could tell."""


class _Unknown(dict[str, Any]):
    """An entry of a reading whose value is made up; it tells when somebody looks at that."""

    def __init__(self, entry: dict[str, Any], on_look: Callable[[], None]) -> None:
        super().__init__(entry)
        self._on_look = on_look

    def __getitem__(self, key: str) -> Any:
        if key == "value":
            self._on_look()
        return super().__getitem__(key)


class SimulatedDevices(Mapping[str, RemoteDevice]):
    """The same classes of remote devices as the real ones, on a link that sends nothing (it is their link, too)."""

    def __init__(self, devices: Mapping[str, RemoteDevice], readings: Readings) -> None:
        self._real = devices
        self._readings = readings
        self._made: dict[str, RemoteDevice] = {}
        self._positions: dict[str, Any] = {}
        self._triggered: set[str] = set()
        self.is_guessed = False
        """Whether the plan has looked at a value that only the real device could tell."""

    # ── the devices ──

    def __getitem__(self, path: str) -> RemoteDevice:
        return self.device(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._real)

    def __len__(self) -> int:
        return len(self._real)

    def __contains__(self, path: object) -> bool:
        return path in self._real

    # ── what their devices see as their link ──

    def device(self, path: str) -> RemoteDevice:
        """Give a device or a part of one; raises UnknownDeviceError."""
        made = self._made.get(path)
        if made is None:
            real = self._real[path]
            made = self._made[path] = type(real)(self, real.info)  # pyright: ignore[reportArgumentType]  # stands in for the link
        return made

    def ask(self, path: str, verb: str, *args: Any, timeout: float = 5.0, **kwargs: Any) -> Any:
        """Answer what plain code in plans asks for."""
        match verb:
            case "locate":
                return self.location(path)
            case "read":
                return self.reading(path, self.device(path).name)
            case "get":
                return self.position(path)
            case _:
                raise NotSimulatedError(f"{path}.{verb} is called by the plan itself")

    def request(self, path: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        raise NotSimulatedError(f"{path}.{verb} is called by the plan itself")

    def submit(self, path: str, verb: str, *args: Any) -> None:
        raise NotSimulatedError(f"{path}.{verb} is called by the plan itself")

    request_quietly = request

    # ── positions and readings ──

    def move(self, path: str, value: Any) -> None:
        """Have a device be where it was sent."""
        self._positions[path] = value

    def trigger(self, path: str) -> None:
        """Have a detector measure something that nobody knows."""
        self._triggered.add(path)

    def _look(self) -> None:
        self.is_guessed = True

    def position(self, path: str) -> Any:
        """Give where a device was sent, else where it was last seen, else 0."""
        if path in self._positions:
            return self._positions[path]
        reading = self._readings.get(path, {})
        name = self._real[path].name if path in self._real else path
        entry = reading.get(name) or next(iter(reading.values()), None)
        value = None if entry is None else entry.get("value")
        if value is None:
            self._look()
            return 0.0
        return value

    def location(self, path: str) -> dict[str, Any]:
        """Answer `locate`."""
        position = self.position(path)
        return {"setpoint": position, "readback": position}

    def reading(self, path: str, name: str) -> dict[str, Any]:
        """Answer `read`: the last readings, with the position it was sent to."""
        entries = {key: dict(entry) for key, entry in self._readings.get(path, {}).items()}
        if path in self._positions:
            entries[name] = {"value": self._positions[path], "timestamp": time.time()}
        is_known = bool(entries) and path not in self._triggered
        if not entries:
            entries = {name: {"value": 0.0, "timestamp": time.time()}}
        return entries if is_known else {key: _Unknown(entry, self._look) for key, entry in entries.items()}
