"""Redis in the shapes that `channels` names: `Bus` for services and clients, `Wire` for the hot path."""

from bec_bluesky.bus._address import Address, parse
from bec_bluesky.bus._ask import Caller
from bec_bluesky.bus._bus import Bus
from bec_bluesky.bus._wire import Wire

__all__ = ["Address", "Bus", "Caller", "Wire", "parse"]
