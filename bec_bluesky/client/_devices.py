"""Devices as the client sees them: what they are and their latest readings."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bec_bluesky.errors import UnknownDeviceError
from bec_bluesky.messages.devices import DeviceInfo, Readback

__all__ = ["Device", "Devices", "plain"]

ReadReadback = Callable[[DeviceInfo], Readback | None]


class Device:
    """A device by its name; plans take it as an argument."""

    def __init__(self, info: DeviceInfo, read: ReadReadback) -> None:
        self.info = info
        self._read = read

    @property
    def name(self) -> str:
        return self.info.path

    def read(self) -> dict[str, Any]:
        """Give the latest reading that the device server published: {key: {value, timestamp, …}}."""
        readback = self._read(self.info)
        return {} if readback is None else readback.reading

    def __repr__(self) -> str:
        limits = "" if self.info.limits is None else f", limits {self.info.limits[0]:g} to {self.info.limits[1]:g}"
        units = self.info.properties.get("egu")
        state = self.info.state + (f": {self.info.reason}" if self.info.reason else "")
        return f"<{self.name}: {self.info.device_class}{limits}{f' {units}' if units else ''}; {state}>"


class Devices(Mapping[str, Device]):
    """Devices by name, also as attributes (`bl.dev.samx`)."""

    def __init__(self, infos: Mapping[str, DeviceInfo], read: ReadReadback) -> None:
        self._infos = infos
        self._read = read

    def __getitem__(self, name: str) -> Device:
        try:
            return Device(self._infos[name], self._read)
        except KeyError:
            raise UnknownDeviceError(name, self._infos) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._infos))

    def __len__(self) -> int:
        return len(self._infos)

    def __getattr__(self, name: str) -> Device:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownDeviceError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._infos if name.isidentifier())]

    def __repr__(self) -> str:
        return "\n".join(repr(device) for device in self.values()) or "no devices"


def plain(value: Any) -> Any:
    """Replace devices in arguments by their names: ours, and any object with a `name` that can be read or set."""
    if isinstance(value, Mapping):
        items: Mapping[Any, Any] = value
        return {str(key): plain(each) for key, each in items.items()}
    if isinstance(value, list | tuple | set):
        elements: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]  # any kind
        return [plain(each) for each in elements]
    name = getattr(value, "name", None)
    if isinstance(name, str) and any(callable(getattr(value, verb, None)) for verb in ("read", "set", "trigger")):
        return name
    return value
