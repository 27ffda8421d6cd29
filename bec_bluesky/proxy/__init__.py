"""A remote device as bluesky sees it.

`DeviceLink` is this process's connection to the device servers; `link.devices["samx"]` is a `RemoteDevice` with exactly
the methods that the real device has, `prepare_engine(RE, link)` makes a RunEngine work with them. Nothing here imports
bluesky or ophyd before it is needed: protocols are matched by attributes.
"""

from bec_bluesky.proxy._claims import Holding
from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._device_edits import DeviceEdits, EditReport
from bec_bluesky.proxy._engine import NOT_DONE, prepare_engine
from bec_bluesky.proxy._limits import limits_of
from bec_bluesky.proxy._link import DeviceLink
from bec_bluesky.proxy._panic import StopReport, stop_all
from bec_bluesky.proxy._status import RemoteStatus
from bec_bluesky.proxy._subscription import value_of

__all__ = [
    "NOT_DONE",
    "DeviceEdits",
    "DeviceLink",
    "EditReport",
    "Holding",
    "RemoteDevice",
    "RemoteStatus",
    "StopReport",
    "limits_of",
    "prepare_engine",
    "stop_all",
    "value_of",
]
