"""Which devices there are, on all servers, and the one proxy of each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from bec_bluesky.errors import UnknownDeviceError
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.proxy._classes import class_for
from bec_bluesky.proxy._device import RemoteDevice

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["Devices", "Directory"]


class Directory:
    """Keeps what the servers say of their devices; proxies stay the same objects whatever changes."""

    def __init__(self, link: "DeviceLink") -> None:
        self._link = link
        self._infos: dict[str, DeviceInfo] = {}
        self._proxies: dict[str, RemoteDevice] = {}

    def info(self, path: str) -> DeviceInfo:
        """Give what is said of a device or a part of one; raises UnknownDeviceError."""
        found = self._infos.get(path)
        if found is None:
            parent = path.rpartition(".")[0]
            known = self._infos[parent].children if parent in self._infos else self.names()
            raise UnknownDeviceError(path, known, where=parent)
        return found

    def device(self, path: str) -> RemoteDevice:
        """Give the proxy of a device or a part of one; raises UnknownDeviceError."""
        proxy = self._proxies.get(path)
        if proxy is None:
            info = self.info(path)
            proxy = self._proxies.setdefault(path, class_for(info)(self._link, info))
        return proxy

    def names(self) -> list[str]:
        """Give the paths of the devices that are no parts of others."""
        return [path for path, info in list(self._infos.items()) if info.parent is None]  # others may add meanwhile

    # ── changes, in the link's loop ──

    def take_table(self, server: str, infos: Iterable[DeviceInfo]) -> None:
        """Take over all that a server has; what it no longer has is gone."""
        table = {info.path: info for info in infos}
        for path in [path for path, info in self._infos.items() if info.server == server and path not in table]:
            del self._infos[path]
        for info in table.values():
            self._bind(info)

    def take(self, info: DeviceInfo) -> None:
        """Take over what the change log says of one device, unless the table told more already."""
        old = self._infos.get(info.path)
        is_news = old is None or old.server != info.server or old.generation <= info.generation
        if is_news and info.state != "removed":
            self._bind(info)
        elif is_news and old is not None and old.server == info.server:
            del self._infos[info.path]

    def lose_server(self, server: str, reason: str) -> None:
        """Show the devices of a server as disconnected, until its table is read again."""
        for info in [info for info in self._infos.values() if info.server == server and info.state == "connected"]:
            self._bind(msgspec.structs.replace(info, state="disconnected", reason=reason))

    def _bind(self, info: DeviceInfo) -> None:
        self._infos[info.path] = info
        proxy = self._proxies.get(info.path)
        if proxy is not None:
            proxy._rebind(info, class_for(info))

    def change_hints(self, path: str, hints: dict[str, Any]) -> None:
        """Take over hints that came with a completion."""
        info = self._infos.get(path)
        if info is not None and info.hints != hints:
            self.take(msgspec.structs.replace(info, hints=hints))


class Devices(Mapping[str, RemoteDevice]):
    """The devices by name; parts of devices are found by their dotted path too."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def __getitem__(self, path: str) -> RemoteDevice:
        return self._directory.device(path)

    def __getattr__(self, name: str) -> RemoteDevice:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownDeviceError as error:
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._directory.names())

    def __len__(self) -> int:
        return len(self._directory.names())

    def __contains__(self, path: object) -> bool:
        return path in self._directory._infos

    def __repr__(self) -> str:
        return f"<devices {', '.join(self)}>"
