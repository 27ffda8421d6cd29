"""Device servers by name: which ones a device file asks for, and what their services are called."""

from collections.abc import Mapping

from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.errors import SettingsError, choices

__all__ = ["MAIN", "check_server", "server_names", "service_name"]

MAIN = "main"
"""The server of devices that name none."""


def service_name(server: str) -> str:
    """Give the name of a server's service, as `bec-bluesky status` and the log files have it."""
    return "device_server" if server == MAIN else f"device_server-{server}"


def server_names(specs: Mapping[str, DeviceSpec]) -> list[str]:
    """Give the servers that own devices, `main` first; an empty file is `main`'s."""
    names = {spec.server for spec in specs.values()}
    return sorted(names or {MAIN}, key=lambda name: (name != MAIN, name))


def check_server(server: str, specs: Mapping[str, DeviceSpec]) -> None:
    """Raise SettingsError for a server that owns no device; `main` may be empty."""
    known = server_names(specs)
    if server != MAIN and server not in known:
        raise SettingsError(f"no device of the device file has `server: {server}`: {choices(server, known)}")
