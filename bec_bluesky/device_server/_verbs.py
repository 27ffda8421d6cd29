"""The verbs that a device server knows, and how they are carried out."""

from bec_bluesky.device_server._claims import CLAIM_VERBS
from bec_bluesky.device_server._describe import METHODS
from bec_bluesky.device_server._entry import Found
from bec_bluesky.device_server._steps import GIVE_UP, THEN
from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.messages.devices import Op

__all__ = ["GENERATORS", "IN_ORDER", "MONITOR_VERBS", "URGENT", "VIEW", "check_verb"]

IN_ORDER = frozenset({THEN, GIVE_UP, "read_all", "client_lost"}) | CLAIM_VERBS
"""Verbs of the server itself that are done in their order with those of devices."""
URGENT = frozenset({"stop"})
"""Verbs that wait for nothing: a device that blocks must still be stopped."""
VIEW = "view"
"""Asks for the present reading and for publication of what changes, for some seconds."""
MONITOR_VERBS = frozenset({"subscribe", "clear_sub", "unsubscribe"})
GENERATORS = frozenset({"collect", "collect_pages", "collect_asset_docs"})
"""Methods whose generators do their work while they are iterated."""
_OF_DEVICES = METHODS | MONITOR_VERBS | {"get", "put", "locate", VIEW}


def check_verb(found: Found, op: Op) -> None:
    """Refuse a verb that is none; a device may add some of its own by `USER_ACCESS`."""
    if op.verb not in _OF_DEVICES and op.verb not in getattr(found.device, "USER_ACCESS", ()):
        raise RefusedError(f"{op.device}: no verb {op.verb!r}: {choices(op.verb, _OF_DEVICES)}", "unknown_verb")
