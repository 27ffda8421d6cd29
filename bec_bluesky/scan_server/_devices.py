"""What devices there are, as all device servers say; followed live, so that looking one up costs nothing."""

from collections.abc import Iterable, Iterator, Mapping

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_CHANGES, DEVICES
from bec_bluesky.messages.devices import DeviceInfo

__all__ = ["DeviceBook"]

_MOVING = frozenset({"set", "kickoff"})
"""Who can do one of these moves what it refers to; see the device server's claims."""


class DeviceBook(Mapping[str, DeviceInfo]):
    """Devices and their children by dotted path."""

    def __init__(self) -> None:
        self._by_path: dict[str, DeviceInfo] = {}
        self._after = "0-0"

    def __getitem__(self, path: str) -> DeviceInfo:
        return self._by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    @property
    def servers(self) -> set[str]:
        """Names of the device servers heard of."""
        return {info.server for info in self._by_path.values()}

    def held_with(self, paths: Iterable[str]) -> list[str]:
        """Give these paths, and the devices that are held together with them: those that they move."""
        found = list(dict.fromkeys(paths))
        for path in found:
            info = self._by_path.get(path.partition(".")[0])
            if info is not None and not _MOVING.isdisjoint(info.methods):
                found += [each for each in info.refers_to if each in self._by_path and each not in found]
        return found

    def take(self, info: DeviceInfo) -> None:
        """Note what a server says of a device."""
        if info.state != "removed":
            self._by_path[info.path] = info
        elif info.path in self._by_path and self._by_path[info.path].generation <= info.generation:
            del self._by_path[info.path]

    async def load(self, bus: Bus) -> None:
        """Read what all servers say now."""
        self._after = await bus.last_id(DEVICE_CHANGES)  # before the tables: what changes meanwhile is read again
        for table in (await bus.find_tables(DEVICES, "server")).values():
            for info in table.values():
                self.take(info)

    async def follow(self, bus: Bus) -> None:
        """Keep up with the servers, for ever."""
        async for _, info in bus.follow(DEVICE_CHANGES, self._after):
            self.take(info)
