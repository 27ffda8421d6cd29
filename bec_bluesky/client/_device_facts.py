"""What is known of devices without asking their servers: state, published readings, holders."""

from collections.abc import Iterable

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_HOLDERS, READBACKS
from bec_bluesky.messages.devices import DeviceHolder, DeviceInfo, Readback
from bec_bluesky.proxy import DeviceLink

__all__ = ["DeviceFacts"]


class DeviceFacts:
    """Looks up facts of devices for everybody in one event loop."""

    def __init__(self, link: DeviceLink, bus: Bus) -> None:
        self._link = link
        self._bus = bus

    def state(self, info: DeviceInfo) -> str:
        """Give the state of a device: what its server said last, `no server` if that gives no sign of life."""
        return info.state if self._link.is_heard(info.server) else "no server"

    def reason(self, info: DeviceInfo) -> str:
        """Say why a device is not connected; empty if it is."""
        if self._link.is_heard(info.server):
            return info.reason
        return f"device server {info.server!r} gives no sign of life (`bec-bluesky status`)"

    async def readback(self, info: DeviceInfo) -> Readback | None:
        """Give what was published last of a device; None of parts, and of what has no published readback."""
        return await self._bus.field(READBACKS, info.path, server=info.server)

    async def readbacks(self) -> dict[str, Readback]:
        """Give what was published last, by device."""
        tables: list[dict[str, Readback]] = [
            await self._bus.fields(READBACKS, server=server) for server in self._servers()
        ]
        return {path: readback for table in tables for path, readback in table.items()}

    async def holders(self) -> dict[str, str]:
        """Say who holds each device that is held."""
        tables: list[dict[str, DeviceHolder]] = [
            await self._bus.fields(DEVICE_HOLDERS, server=server) for server in self._servers()
        ]
        return {path: holder.text for table in tables for path, holder in table.items()}

    async def holder(self, info: DeviceInfo) -> str | None:
        """Say who holds a device, or the one of which it is a part; None if nobody does."""
        path = info.path.partition(".")[0]
        found: DeviceHolder | None = await self._bus.field(DEVICE_HOLDERS, path, server=info.server)
        return None if found is None else found.text

    def _servers(self) -> Iterable[str]:
        return sorted({self._link.directory.info(name).server for name in self._link.directory.names()})
