"""What a queue item, or one run, brings: runs, points, results, files, progress; in order, live or late."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from bec_bluesky.bus import Bus
from bec_bluesky.channels import (
    FILES,
    ITEMS,
    ITEMS_DONE,
    NAMED_STATUS,
    POINTS,
    RESULTS,
    RUNS,
    SCAN_STATUS,
    SERVICES,
    STORED,
    Channel,
)
from bec_bluesky.errors import BusError, NoReplyError, RefusedError
from bec_bluesky.messages import decoder
from bec_bluesky.messages.common import Heartbeat
from bec_bluesky.messages.products import AnalysisResult, FileReady, Point, RunClosed, RunOpened
from bec_bluesky.messages.queue import ItemDone, QueueItem, ScanServerStatus

__all__ = ["Event", "Follow", "Place", "Settled", "status_of"]

Event = RunOpened | Point | AnalysisResult | FileReady | RunClosed | ScanServerStatus | ItemDone
Settled = Literal["callbacks", "all"]
"""Whose products are awaited at the end of a run: those of callbacks (points, results), or of writers too."""

_TURN = 0.2
"""Seconds that one read waits at most; status is looked at in between."""
_PATIENCE = 10.0
"""Seconds without Redis or scan server after which following ends with an error."""
_SETTLING = 8.0
"""Seconds that products may come after their run was closed."""
_decoders = {channel.name: decoder(channel.message) for channel in (RUNS, ITEMS_DONE, FILES, POINTS, RESULTS)}


@dataclass(frozen=True)
class Place:
    """Where the streams ended at a moment, so that what follows can be told from what was."""

    runs: str = "0-0"
    done: str = "0-0"
    files: str = "0-0"

    @classmethod
    async def now(cls, bus: Bus) -> Self:
        """Take the place; before asking for what is to be followed."""
        runs, done, files = await asyncio.gather(*(bus.last_id(channel) for channel in (RUNS, ITEMS_DONE, FILES)))
        return cls(runs, done, files)


@dataclass
class _Run:
    uid: str
    closed_at: float | None = None
    """When its end was seen here (monotonic)."""
    stored: set[str] = field(default_factory=set[str])


class Follow:
    """Follows one item of the queue (`item_id`), or one run (`run_uid`).

    One blocking read a turn covers all streams. The last event of an item is its ItemDone, of a run its RunClosed,
    both given after everything that belongs to it, as far as it came within some seconds.
    """

    def __init__(
        self,
        bus: Bus,
        place: Place,
        *,
        item_id: str = "",
        run_uid: str = "",
        settled: Settled = "callbacks",
        queue: str = "",
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._item_id = item_id
        self._settled: Settled = settled
        self._runs: dict[str, _Run] = {}
        self._streams: dict[str, tuple[Channel, str]] = {}
        """{key on Redis: (its channel, last id that was read)}"""
        self._end: ItemDone | RunClosed | None = None
        self._status_time = 0.0
        self._wanted_run = run_uid
        self._watch(RUNS, place.runs)
        self._watch(FILES, place.files)
        if item_id:
            self._watch(ITEMS_DONE, place.done)

    def _watch(self, channel: Channel, after: str = "0-0", **words: str) -> None:
        self._streams[self._bus.key(channel, **words)] = (channel, after)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Give events until the end; raises NoReplyError if the scan server is gone, BusError if Redis is."""
        last_contact = last_check = time.monotonic()
        while True:
            try:
                for event in await self._turn():
                    yield event
                if self._end is not None and await self._is_settled():
                    yield self._end
                    return
                last_contact = time.monotonic()
            except BusError:
                if time.monotonic() - last_contact > _PATIENCE:
                    raise
                await asyncio.sleep(_TURN)
                continue
            if self._end is None and time.monotonic() - last_check > _PATIENCE:
                await self._check_scan_server()
                last_check = time.monotonic()

    async def _turn(self) -> list[Event]:
        entries = await self._bus.read_keys({key: after for key, (_, after) in self._streams.items()}, block=_TURN)
        found: list[Event] = []
        for key, batch in entries.items():
            channel, _ = self._streams[key]
            for stream_id, fields in batch:
                self._streams[key] = (channel, stream_id)
                event = self._sort(_decoders[channel.name].decode(fields[b"m"]))
                if event is not None:
                    found.append(event)
        if self._item_id and self._end is None:
            status = await status_of(self._bus, self._queue)
            if status is not None and status.time != self._status_time:
                self._status_time = status.time
                found.append(status)
                if status.running is None:
                    await self._check_item()
        return found

    def _sort(self, message: Any) -> Event | None:
        """Give what belongs to us; the end is kept back until everything else has come."""
        match message:
            case RunOpened():
                is_ours = message.item_id == self._item_id if self._item_id else message.run_uid == self._wanted_run
                if not is_ours or message.run_uid in self._runs:
                    return None
                self._runs[message.run_uid] = _Run(message.run_uid)
                self._watch(POINTS, run=message.run_uid)
                self._watch(RESULTS, run=message.run_uid)
                return message
            case RunClosed() if message.run_uid in self._runs:
                self._runs[message.run_uid].closed_at = time.monotonic()
                if self._item_id:
                    return message
                self._end = message
                return None
            case Point() | AnalysisResult():
                return message
            case FileReady() if message.run_uid in self._runs:
                return message
            case ItemDone() if message.item.item_id == self._item_id:
                self._end = message
                return None
            case _:
                return None

    async def _is_settled(self) -> bool:
        """Tell whether every consumer has given what it makes of our runs, or has had its time for it."""
        beats = await self._bus.find(SERVICES, "service")
        awaited = _consumers(beats, self._settled)
        for run in self._runs.values():
            if run.closed_at is None:  # the item is done: its run will not be closed any more, if it was not yet
                run.closed_at = time.monotonic()
            if time.monotonic() - run.closed_at > _SETTLING:
                continue
            # names are read before the streams are: what a consumer stored, it published before
            stored = set(await self._bus.fields(STORED, run=run.uid))
            if not awaited <= stored:
                return False
            if run.stored != stored:
                run.stored = stored
                return False  # one more turn, for what came between reading and asking
        return True

    async def _check_item(self) -> None:
        """Raise RefusedError if the item will not run: taken out, or held."""
        item: QueueItem | None = await self._bus.field(ITEMS, self._item_id)
        if item is not None and item.state == "held":
            raise RefusedError(
                f"{item.plan} {self._item_id} is held: {item.held}; `bec-bluesky queue release {self._item_id}` lets "
                "it run, `bec-bluesky queue rm` takes it out",
                "item_held",
            )
        # the status may be older than the end of the item, which then is in its stream already
        if item is None and not await self._bus.read(ITEMS_DONE, self._streams[self._bus.key(ITEMS_DONE)][1]):
            raise RefusedError(f"item {self._item_id} was taken out of the queue before it ran", "item_removed")

    async def _check_scan_server(self) -> None:
        if await self._bus.get(SERVICES, service="scan_server") is None:
            raise NoReplyError(
                "the scan server is gone; what it was running is closed as failed when it is back "
                "(`bec-bluesky status`, `bec-bluesky queue history`)"
            )


async def status_of(bus: Bus, queue: str) -> ScanServerStatus | None:
    """Give the latest status of a queue; the main one's name is empty."""
    return await (bus.get(NAMED_STATUS, queue=queue) if queue else bus.get(SCAN_STATUS))


def _consumers(beats: dict[str, Heartbeat], settled: Settled) -> set[str]:
    """Name the hosted callbacks (and writers) that are at work, by what the document services say of themselves."""
    found: set[str] = set()
    for beat in beats.values():
        hosts: dict[str, str] = beat.facts.get("hosts") or {}
        found |= {name for name, use in hosts.items() if settled == "all" or use.startswith("callbacks.")}
    return found
