"""The one owner of the hardware: builds devices, executes instructions on them, publishes what they read."""

from bec_bluesky.device_server._device_file import DeviceSpec, json_schema, read
from bec_bluesky.device_server._service import DeviceServer

__all__ = ["DeviceServer", "DeviceSpec", "json_schema", "read"]
