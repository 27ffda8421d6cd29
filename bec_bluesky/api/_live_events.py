"""Events on a WebSocket: first the present state, then status, runs, points, results, files, commands, alarms."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from bec_bluesky.api._json_values import json_value
from bec_bluesky.bus import Bus
from bec_bluesky.channels import (
    ALARMS,
    COMMANDS,
    CONSOLE,
    FILES,
    ITEMS_DONE,
    NAMED_STATUS,
    POINTS,
    RESULTS,
    RUNS,
    SCAN_STATUS,
    Channel,
)
from bec_bluesky.errors import BadArgumentError, BusError
from bec_bluesky.messages import decoder
from bec_bluesky.messages.products import RunOpened
from bec_bluesky.messages.queue import MAIN_QUEUE, ScanServerStatus

__all__ = ["LiveEvents"]

_TURN = 0.1
"""Seconds that one read waits; the status is looked at in between."""
_PAUSE = 0.5
"""Seconds between tries while Redis does not answer."""
_MOST_RUNS = 16
"""Runs whose points are followed at once; beyond that the oldest is let go."""
_FOLLOWED = (RUNS, FILES, ITEMS_DONE, ALARMS, CONSOLE, COMMANDS)
_decoders = {channel.name: decoder(channel.message) for channel in (*_FOLLOWED, POINTS, RESULTS)}


@dataclass
class LiveEvents:
    """One reader.

    Streams wait on Redis for a reader that is slow, and of the status it gets the newest only: nothing grows here.
    """

    socket: WebSocket
    bus: Bus
    kinds: frozenset[str]
    """Types of messages that are wanted; none: all."""
    _streams: dict[str, tuple[Channel, str]] = field(default_factory=dict[str, tuple[Channel, str]])
    """{key on Redis: (its channel, last id that was read)}"""
    _runs: list[str] = field(default_factory=list[str])
    _told: dict[str, float] = field(default_factory=dict[str, float])
    """{queue: time of its status that was sent last}"""

    async def serve(self) -> None:
        """Send until the reader goes away."""
        for channel in _FOLLOWED:
            self._streams[self.bus.key(channel)] = (channel, await self.bus.last_id(channel))
        await self.socket.accept()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send(), name="events to a socket")
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    message = await self.socket.receive()
                    if message["type"] == "websocket.disconnect":
                        break
            sending.cancel()

    async def _send(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away while something was sent
            while True:
                try:
                    await self._look_at_status()
                    entries = await self.bus.read_keys({key: at for key, (_, at) in self._streams.items()}, block=_TURN)
                except BusError:
                    await asyncio.sleep(_PAUSE)
                    continue
                for key, batch in entries.items():
                    channel = self._streams[key][0]
                    for stream_id, fields in batch:
                        await self._tell(_decoders[channel.name].decode(fields[b"m"]))
                        if key in self._streams:
                            self._streams[key] = (channel, stream_id)

    async def _look_at_status(self) -> None:
        main: ScanServerStatus | None = await self.bus.get(SCAN_STATUS)
        if main is None:
            return
        others = [name for name in main.queues if name != MAIN_QUEUE]
        found = [main, *[await self.bus.get(NAMED_STATUS, queue=name) for name in others]]
        for each in found:
            if each is not None and self._told.get(each.queue) != each.time:
                if each.queue not in self._told and each.run_uid:
                    self._follow_run(each.run_uid)  # a late joiner gets the whole run
                self._told[each.queue] = each.time
                await self._tell(each)

    async def _tell(self, message: Any) -> None:
        if isinstance(message, RunOpened):
            self._follow_run(message.run_uid)
        kind = _kind_of(message)
        if self.kinds and kind not in self.kinds:
            return
        try:
            data = json_value(message)
        except BadArgumentError as error:  # an array too large for JSON
            data = {"problem": str(error)}
        await self.socket.send_text(json.dumps({"type": kind, "data": data}, allow_nan=False))

    def _follow_run(self, run: str) -> None:
        if run in self._runs:
            return
        self._runs.append(run)
        for channel in (POINTS, RESULTS):
            self._streams[self.bus.key(channel, run=run)] = (channel, "0-0")
        if len(self._runs) > _MOST_RUNS:
            oldest = self._runs.pop(0)
            for channel in (POINTS, RESULTS):
                self._streams.pop(self.bus.key(channel, run=oldest), None)


def _kind_of(message: Any) -> str:
    kind = str(message.__struct_config__.tag)
    return {"scan_server_status": "status", "console_text": "console", "analysis_result": "result"}.get(kind, kind)
