"""The command log: every request that changes something, with who asked it and what became of it."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import COMMANDS
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import Command, DeviceNote, LockAll, NoteDevices, Unlock
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.queue import ItemAccepted, ItemsChanged, QueueItem, Request
from bec_bluesky.people import CommandFile

__all__ = ["CommandLog", "commands_of"]

_log = logger(__name__)
_LONGEST = 16 * 1024
"""Letters of what a request says."""
_MOST_PENDING = 100_000
"""Commands kept while the disk does not take them."""
_AGAIN = 2.0
"""Seconds until a write that failed is tried again."""
_LATE = 2.0
"""Seconds after which it is said when a device was told, besides when that was heard of."""
Alarm = Callable[[str], Awaitable[None]]
Note = tuple[float, Request, Any, Failure | None]


class CommandLog:
    """Notes commands in passing; a task writes those of a moment together: no answer waits for the disk."""

    def __init__(self, bus: Bus, file: CommandFile, alarm: Alarm) -> None:
        self._bus = bus
        self._file = file
        self._alarm = alarm
        self._noted: deque[Note] = deque()
        self._lost = 0
        self._is_news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_failing = False

    def note(self, request: Request, body: Any, failure: Failure | None) -> None:
        """Note an answered request."""
        if len(self._noted) >= _MOST_PENDING:
            self._lost += 1
            return
        self._noted.append((time.time(), request, body, failure))
        self._is_news.set()

    async def run(self) -> None:
        """Write for ever what is noted; what the disk does not take is tried again."""
        while True:
            await self._is_news.wait()
            self._is_news.clear()
            if not await self.write():
                await asyncio.sleep(_AGAIN)
                self._is_news.set()

    async def write(self) -> bool:
        """Write what is noted, then tell whoever looks on; gives False if the disk did not take it."""
        async with self._writing:  # also at the end of the service, while `run` may be within a write
            return await self._write()

    async def _write(self) -> bool:
        notes = list(self._noted)
        if not notes:
            return True
        try:
            commands = await asyncio.to_thread(self._append, notes)
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                await self._alarm(
                    f"the command log cannot be written, and commands wait in memory until it can: {error}"
                )
            return False
        for _ in notes:
            self._noted.popleft()
        if self._is_failing:
            lost = f"; the {self._lost} that came after them are lost" if self._lost else ""
            await self._alarm(f"the command log is written again{lost}")
            self._is_failing, self._lost = False, 0
        try:
            await self._bus.append_all(COMMANDS, commands)
        except BusError as error:
            _log.warning("whoever follows commands misses %d: %s", len(commands), error)
        return True

    def _append(self, notes: list[Note]) -> list[Command]:
        commands = [command for note in notes for command in commands_of(*note)]
        self._file.append(commands)
        return commands


def commands_of(answered: float, request: Request, body: Any, failure: Failure | None) -> list[Command]:
    """Say in a record each who asked for what, and what became of it."""
    if isinstance(request.body, NoteDevices):
        return [_of_device(answered, request, note) for note in request.body.notes]
    return [_of_request(answered, request, body, failure)]


def _of_device(heard: float, request: Request, note: DeviceNote) -> Command:
    asked = _plain(msgspec.structs.replace(request.body, notes=[note]))
    (asked,) = asked.get("notes", [asked])
    return Command(
        time=heard,  # lines are in the order of their times; a client may have waited long for a scan server
        verb=f"device {note.verb}",
        user=request.user,
        user_group=request.user_group,
        host=request.host,
        program=request.program,
        asked={name: asked[name] for name in ("device", "args", "kwargs", "cut") if asked.get(name)}
        | ({"sent": note.time} if heard - note.time > _LATE else {}),
        outcome="failed" if note.failure else "sent",
        answer=note.failure,
    )


def _of_request(answered: float, request: Request, body: Any, failure: Failure | None) -> Command:
    asked = _plain(request.body)
    verb = asked.pop("type")
    if action := asked.get("action"):
        verb = f"{verb} {action}"
    return Command(
        time=answered,
        verb=verb,
        user=request.user,
        user_group=request.user_group,
        host=request.host,
        program=request.program,
        queue=request.queue,
        asked=asked,
        outcome="done" if failure is None else "refused" if failure.code not in (None, "internal_error") else "failed",
        code=None if failure is None else failure.code,
        answer="" if failure is None else failure.text,
        items=_items(body),
    )


def _plain(body: msgspec.Struct) -> dict[str, Any]:
    """Give what a request says as JSON has it, without secrets, and not all of what is endless."""
    if isinstance(body, LockAll | Unlock):
        body = msgspec.structs.replace(body, key="")
    text = msgspec.json.encode(body, enc_hook=repr)
    if len(text) > _LONGEST:
        return {"type": body.__struct_config__.tag, "cut": text[:_LONGEST].decode(errors="replace")}
    return msgspec.json.decode(text)


def _items(body: Any) -> list[str]:
    match body:
        case ItemAccepted(item=item) | (QueueItem() as item):
            return [item.item_id]
        case ItemsChanged(items=items):
            return [item.item_id for item in items]
        case _:
            return []
