"""Devices over a WebSocket: the present state first, then what changes; a slow reader gets the newest only."""

import asyncio
import contextlib
import json
from collections.abc import Iterable
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from bec_bluesky.api._json_values import json_value
from bec_bluesky.client import DeviceAccess
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.devices import Readback

__all__ = ["LiveSocket"]

_LOOK_PERIOD = 0.5
"""Seconds between looks at states and holders."""


class LiveSocket:
    """One reader. Messages are {device, time, connected, state, reason, holder, reading, units}.

    What is not sent yet is kept once for each device, so that it never grows.
    """

    def __init__(self, socket: WebSocket, access: DeviceAccess) -> None:
        self._socket = socket
        self._access = access
        self._readbacks: dict[str, Readback] = {}
        self._due: dict[str, None] = {}
        """Devices with news, in order."""
        self._facts: dict[str, tuple[Any, ...]] = {}
        self._something_is_due = asyncio.Event()

    async def serve(self, paths: Iterable[str]) -> None:
        """Send until the reader goes away."""
        await self._socket.accept()
        live = self._access.live
        watched = list(dict.fromkeys(paths))
        for path in watched:
            live.add(path, self._hear)
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(watched), name="readings to a socket")
                with contextlib.suppress(WebSocketDisconnect):
                    while True:
                        await self._socket.receive_text()  # nothing is expected; it tells when the reader goes
                sending.cancel()
        finally:
            for path in watched:
                live.remove(path, self._hear)

    def _hear(self, readback: Readback) -> None:
        self._readbacks[readback.device] = readback
        self._due[readback.device] = None
        self._something_is_due.set()

    async def _send(self, watched: list[str]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away while something was sent
            while True:
                await self._look_at_facts(watched)
                while self._due:
                    path = next(iter(self._due))
                    del self._due[path]
                    await self._socket.send_text(self._message(path))
                self._something_is_due.clear()
                with contextlib.suppress(TimeoutError):  # time for a look
                    async with asyncio.timeout(_LOOK_PERIOD):
                        await self._something_is_due.wait()

    async def _look_at_facts(self, watched: list[str]) -> None:
        """Note devices whose state or holder is another one now; at first all are."""
        holders = await self._access.facts.holders()
        for path in watched:
            facts = (*self._state(path), holders.get(path.partition(".")[0]))
            if self._facts.get(path) != facts:
                self._facts[path] = facts
                self._due[path] = None

    def _state(self, path: str) -> tuple[str, str]:
        try:
            info = self._access.link.directory.info(path)
        except RefusedError as error:
            return "gone", str(error)
        return self._access.facts.state(info), self._access.facts.reason(info)

    def _message(self, path: str) -> str:
        readback = self._readbacks.get(path)
        state, reason, holder = self._facts[path]
        message = {
            "device": path,
            "state": state,
            "reason": reason,
            "holder": holder,
            "time": None if readback is None else readback.time,
            "connected": readback is not None and readback.connected and state == "connected",
            "reading": {} if readback is None else json_value(readback.reading),
            "units": {} if readback is None else readback.units,
        }
        return json.dumps(message, allow_nan=False)
