"""The one owner of the hardware: builds devices, executes instructions on them, publishes what they read."""

from typing import TYPE_CHECKING, Any

from bec_bluesky.device_server._construct import check
from bec_bluesky.device_server._content import read
from bec_bluesky.device_server._device_file import DeviceSpec, json_schema
from bec_bluesky.device_server._servers import check_server, server_names, service_name

if TYPE_CHECKING:
    from bec_bluesky.device_server._service import DeviceServer

__all__ = ["DeviceServer", "DeviceSpec", "check", "check_server", "json_schema", "read", "server_names", "service_name"]


def __getattr__(name: str) -> Any:
    """Import the service, which imports ophyd, only for who runs it; others want to know the device file."""
    if name == "DeviceServer":
        from bec_bluesky.device_server._service import DeviceServer

        return DeviceServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
