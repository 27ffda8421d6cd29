"""The devices of the beamline by name: `bl.dev`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from bec_bluesky.client._arguments import plain
from bec_bluesky.client._device import Device
from bec_bluesky.client._device_text import row_of, table_of
from bec_bluesky.errors import BecBlueskyError, RefusedError, UnknownDeviceError
from bec_bluesky.messages.devices import DeviceInfo

if TYPE_CHECKING:
    from bec_bluesky.client._device_door import DeviceDoor

__all__ = ["Devices", "is_chosen"]


class Devices(Mapping[str, Device]):
    """Devices by name, also as attributes (`bl.dev.samx`); parts by dotted path too (`bl.dev["samx.velocity"]`)."""

    def __init__(self, open_door: Callable[[], "DeviceDoor"]) -> None:
        self._open_door = open_door
        """Gives the session's door; the first call opens it, which connects to the device servers."""

    @property
    def _door(self) -> "DeviceDoor":
        return self._open_door()

    def __getitem__(self, path: str) -> Device:
        self._door.link.directory.info(path)
        return self._door.device(path)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._door.link.directory.names()))

    def __len__(self) -> int:
        return len(self._door.link.directory.names())

    def __contains__(self, path: object) -> bool:
        return path in self._door.link.devices

    def __getattr__(self, name: str) -> Device:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownDeviceError as error:
            raise AttributeError(str(error)) from None

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"`dev.{name} = …` moves nothing: `dev.{name}.move({value!r})` does")
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        names: list[str] = []
        with contextlib.suppress(BecBlueskyError):  # TAB must not fail because there is no connection
            names = [name for name in self if name.isidentifier()]
        return [*super().__dir__(), *names]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def select(
        self,
        *,
        label: str | None = None,
        state: str | None = None,
        readout: str | None = None,
        server: str | None = None,
    ) -> list[Device]:
        """Give the devices that have all of what is asked: a label, a state, a readout priority, a server."""
        return [
            device
            for device in self.values()
            if is_chosen(device.info, device.state, label=label, state=state, readout=readout, server=server)
        ]

    def holding(self, *devices: Device | str, why: str = "") -> contextlib.AbstractContextManager[None]:
        """Hold devices, with their parts and what they move, while a `with` block lasts: nobody else can move them.

        Plans of the queue that want them are refused, with your name and `why`; anybody can look, and stop. Raises
        DeviceHeld if somebody holds one of them already.
        """
        return self._door.holding([str(plain(device)) for device in devices], why)

    def __repr__(self) -> str:
        devices = list(self.values())
        readbacks = self._door.readbacks()
        holders = self._door.holders()
        rows = [
            row_of(info, readbacks.get(device.path), device.state, device.reason, holders.get(device.path))
            for device in devices
            if (info := _info_of(device)) is not None
        ]
        return table_of(rows) if rows else "no devices"


def _info_of(device: Device) -> DeviceInfo | None:
    try:
        return device.info
    except RefusedError:  # it went away meanwhile
        return None


def is_chosen(
    info: DeviceInfo, now: str, *, label: str | None, state: str | None, readout: str | None, server: str | None
) -> bool:
    """Whether a device in the state `now` has all of what is asked; None asks for nothing."""
    return (
        (label is None or label in info.labels)
        and state in (None, now)
        and readout in (None, info.readout)
        and server in (None, info.server)
    )
