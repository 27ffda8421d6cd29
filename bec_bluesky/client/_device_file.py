"""The device file as a session sees it: `bl.device_file`."""

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.client._device_notes import DeviceNotes
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.errors import UnknownDeviceError
from bec_bluesky.proxy import DeviceEdits, EditReport

__all__ = ["DeviceFile"]


class DeviceFile:
    """Which devices there are, and changing that while everything runs.

    The device servers check an edit, write it into the file that has the device, comments kept, and apply it: what is
    only said of a device (labels, limits, readout …) takes effect at once, other arguments build it and what needs it
    anew. What they refuse (SettingsError, DeviceHeld, other RefusedErrors) has changed nothing.
    """

    def __init__(self, loop: LoopThread, bus: Bus, notes: DeviceNotes) -> None:
        self._loop = loop
        self._edits = DeviceEdits(bus.address, bus.beamline)
        self._notes = notes

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.call(work)

    def _edit(self, verb: str, names: Iterable[str], work: Coroutine[Any, Any, Any], **what: Any) -> EditReport:
        with self._notes.sending(", ".join(names), verb, kwargs=what):
            return self._call(work)

    def describe(self) -> dict[str, Any]:
        """Give the `path`, the `files`, and of all `devices` the file, place, server, entry and all values."""
        return self._call(self._edits.describe())

    def show(self, name: str) -> dict[str, Any]:
        """Give file, place, server, entry (what stands there) and all (defaults included) of a device."""
        devices = self.describe()["devices"]
        if name not in devices:
            raise UnknownDeviceError(name, devices, where="the device file")
        return devices[name]

    def add(self, name: str, class_: str, *, file: str = "", **keys: Any) -> EditReport:
        """Add a device: `add("samx", "ophyd:EpicsMotor", args=["X12SA:M1"], labels=["motors"])`."""
        entry = {"class": class_, **keys}
        return self._edit("add", [name], self._edits.add(name, entry, file), entry=entry)

    def set(
        self, name: str, values: Mapping[str, Any] | None = None, *, unset: Iterable[str] = (), **keys: Any
    ) -> EditReport:
        """Set keys of a device, `set("samx", {"limits.low": -5}, labels=["motors"])`; take those of `unset` away."""
        changed, gone = {**(values or {}), **keys}, list(unset)
        return self._edit("change", [name], self._edits.change({name: changed}, {name: gone}), set=changed, unset=gone)

    def enable(self, *names: str) -> EditReport:
        """Build and connect devices that were disabled."""
        return self._edit("enable", names, self._edits.change({name: {"enabled": True} for name in names}))

    def disable(self, *names: str) -> EditReport:
        """Let go of devices; they stay in the file."""
        return self._edit("disable", names, self._edits.change({name: {"enabled": False} for name in names}))

    def remove(self, name: str) -> EditReport:
        """Let go of a device and take it out of the file."""
        return self._edit("remove", [name], self._edits.remove(name))

    def reload(self, *names: str, with_dependants: bool = False) -> EditReport:
        """Apply what was changed in the files by hand; or build devices anew, with their edited classes.

        Everything else keeps its connections. A module may make several devices: the others are refused to be left
        with an old class, unless `with_dependants` reloads them too.
        """
        return self._edit("reload", names, self._edits.reload(names, with_dependants=with_dependants))

    def __repr__(self) -> str:
        described = self.describe()
        return f"<device file {described['path']}: {len(described['devices'])} devices>"
