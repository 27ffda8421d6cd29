"""The beamline from a person's session: light (neither bluesky nor ophyd), and synchronous.

from bec_bluesky import connect
bl = connect()
bl.run.scan(["det"], "samx", -5, 5, num=11)
"""

from bec_bluesky.client._client import Client, connect
from bec_bluesky.client._devices import Device, Devices
from bec_bluesky.client._follow import Event
from bec_bluesky.client._live import LiveView, result_text
from bec_bluesky.client._plans import PlanCall, Plans
from bec_bluesky.client._queue import Item, QueueDoor
from bec_bluesky.client._watch import Detached, raise_if_failed, watch

__all__ = [
    "Client",
    "Detached",
    "Device",
    "Devices",
    "Event",
    "Item",
    "LiveView",
    "PlanCall",
    "Plans",
    "QueueDoor",
    "connect",
    "raise_if_failed",
    "result_text",
    "watch",
]
