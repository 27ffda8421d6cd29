"""Subscriptions of clients to devices: every change is an answer."""

import asyncio
import contextlib
from typing import Any

from bec_bluesky.device_server._answers import Outbox
from bec_bluesky.device_server._entry import Found
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Answer, Op

__all__ = ["Monitors"]

_log = logger(__name__)


class Monitors:
    """Keeps what each client monitors; nothing is thinned out, since these become documents."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self._kept: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._ops: dict[tuple[str, int], Op] = {}
        """What was asked; a device that is built anew is asked again."""

    def add(self, client: str, op: Op, found: Found) -> None:
        """Send every reading of a device to a client from now on; the present one first, if the device does so itself.

        Devices of ophyd-async in the loop, those of ophyd in a thread: they may read before this returns.
        """
        device = found.device

        def told(reading: Any, *_: Any, **__: Any) -> None:
            self._outbox.say(client, Answer(op.id, "value", dict(reading)))

        def changed(*_: Any, **__: Any) -> None:
            # as bluesky's own monitor does with such devices: the callback says that, `read()` says what
            try:
                reading = device.read()
            except Exception as error:  # noqa: BLE001  # in a library's thread, which must go on
                _log.warning("%s changed but cannot be read: %s", op.device, error)
                return
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server ended meanwhile
                self._loop.call_soon_threadsafe(told, reading)

        heard = told if found.layer == "ophyd-async" else changed
        self._kept[client, op.id] = (device, heard)
        self._ops[client, op.id] = op
        try:
            device.subscribe(heard)
        except BaseException:
            del self._kept[client, op.id], self._ops[client, op.id]
            raise

    def remove(self, client: str, number: int) -> None:
        """End one subscription; one that is not there is no error."""
        device, heard = self._kept.pop((client, number), (None, None))
        self._ops.pop((client, number), None)
        if device is not None:
            device.clear_sub(heard)

    def take(self, name: str) -> list[tuple[str, Op]]:
        """End all subscriptions to a device and its parts; give who asked for what."""
        found = [(client, op) for (client, _), op in self._ops.items() if op.device.partition(".")[0] == name]
        for client, op in found:
            with contextlib.suppress(Exception):  # the device is let go of in any case
                self.remove(client, op.id)
        return found

    def clients(self) -> set[str]:
        """Give the clients that monitor something."""
        return {client for client, _ in self._kept}

    def remove_all(self, client: str) -> None:
        """End all subscriptions of a client."""
        for owner, number in list(self._kept):
            if owner == client:
                self.remove(client, number)

    def close(self) -> None:
        """End all subscriptions."""
        for client, number in list(self._kept):
            self.remove(client, number)
