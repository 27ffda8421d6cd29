"""The beamline from a person's session: light (neither bluesky nor ophyd), and synchronous.

from bec_bluesky import connect
bl = connect()
bl.run.scan(["det"], "samx", -5, 5, num=11)
"""

from bec_bluesky.client._client import Client, connect
from bec_bluesky.client._console import ConsoleDoor, last_texts
from bec_bluesky.client._device import Device
from bec_bluesky.client._device_access import DeviceAccess, open_device_access
from bec_bluesky.client._device_file import DeviceFile
from bec_bluesky.client._device_notes import DeviceNotes, keeping_notes
from bec_bluesky.client._device_status import DeviceStatus
from bec_bluesky.client._device_text import shown_entry
from bec_bluesky.client._device_value import has_one_value, value_in
from bec_bluesky.client._devices import Devices, is_chosen
from bec_bluesky.client._follow import Event
from bec_bluesky.client._history import PastItems, call_text
from bec_bluesky.client._live import LiveView, result_text
from bec_bluesky.client._lock import LOCK_KEY_VARIABLE, BeamlineLock
from bec_bluesky.client._offered_plans import OfferedPlans
from bec_bluesky.client._panic import panic_stop
from bec_bluesky.client._plans import PlanCall, Plans
from bec_bluesky.client._queue import Item, QueueDoor
from bec_bluesky.client._tasks import ServerTask, TaskDoor
from bec_bluesky.client._viewing import Viewing
from bec_bluesky.client._watch import Detached, raise_if_failed, watch

__all__ = [
    "LOCK_KEY_VARIABLE",
    "BeamlineLock",
    "Client",
    "ConsoleDoor",
    "Detached",
    "Device",
    "DeviceAccess",
    "DeviceFile",
    "DeviceNotes",
    "DeviceStatus",
    "Devices",
    "Event",
    "Item",
    "LiveView",
    "OfferedPlans",
    "PastItems",
    "PlanCall",
    "Plans",
    "QueueDoor",
    "ServerTask",
    "TaskDoor",
    "Viewing",
    "call_text",
    "connect",
    "has_one_value",
    "is_chosen",
    "keeping_notes",
    "last_texts",
    "open_device_access",
    "panic_stop",
    "raise_if_failed",
    "result_text",
    "shown_entry",
    "value_in",
    "watch",
]
