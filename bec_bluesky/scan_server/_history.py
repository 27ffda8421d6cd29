"""The history as it is asked for: pages of the stream of finished items, and searches in it."""

import asyncio
import contextlib
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS_DONE
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder
from bec_bluesky.messages.queue import GetHistory, History, ItemDone, QueueItem
from bec_bluesky.scan_server._history_index import HistoryIndex
from bec_bluesky.scan_server._history_words import bounds, check, is_search, matches

__all__ = ["HistoryReader"]

_log = logger(__name__)
_CURSOR = re.compile(r"\d{1,20}-\d{1,20}")
_READ = 500
"""Entries that are read at a time."""
_MOST = 1000
"""Items of one page."""
_CATCHING_UP = 2.0
"""Seconds for which a search waits until the index has what is new; then it looks through the history."""
_Entries = list[tuple[str, QueueItem]]


class HistoryReader:
    """Reads the stream of finished items, and finds some of them by an index in a file, which it keeps up to date."""

    def __init__(self, bus: Bus, index: Path | None) -> None:
        """Without a file for the index, searches look through the whole history."""
        self._bus = bus
        self._decoder = decoder(ItemDone)
        self._index = None if index is None else HistoryIndex(index)
        self._index_lock = asyncio.Lock()
        self._is_building = False

    async def page(self, asked: GetHistory) -> History:
        """Give finished items, newest first, from a cursor on; as quickly in a long history as in a short one."""
        if asked.before is not None and not _CURSOR.fullmatch(asked.before):
            raise RefusedError(
                f"{asked.before!r} is no place in the history: give `next` of an earlier answer", "bad_cursor"
            )
        if asked.limit < 1:
            raise RefusedError(f"{asked.limit} items cannot be given: ask for 1 to {_MOST}", "bad_limit")
        check(asked)
        limit = min(asked.limit, _MOST)
        async with self._bus.translated():
            total = int(await self._bus.redis.xlen(self._bus.key(ITEMS_DONE)))
        found = await self._searched(asked, limit + 1) if is_search(asked) else None
        if found is None:
            found = await self._looked_through(asked, limit + 1)
        more = found[limit - 1][0] if len(found) > limit else None
        return History(items=[item for _, item in found[:limit]], next=more, total=total)

    async def keep_index(self) -> None:
        """Build the index, and close it when cancelled."""
        try:
            with contextlib.suppress(BusError):  # a search goes on with it
                await self.build_index()
            await asyncio.Event().wait()
        finally:
            self.close()

    async def build_index(self) -> None:
        """Put what is missing into the index, whatever time it takes; searches look through the history meanwhile."""
        if self._index is not None:
            async with self._index_lock:
                self._is_building = True
                try:
                    await self._guarded(self._index, self._catch_up(self._index, float("inf")))
                finally:
                    self._is_building = False

    def close(self) -> None:
        """Close the index; a search opens it again."""
        if self._index is not None:
            self._index.close()

    # ── the stream ──

    async def _looked_through(self, asked: GetHistory, wanted: int) -> _Entries:
        oldest, newest = bounds(asked)
        if asked.before is not None:
            newest = f"({asked.before}"
        count = max(wanted, _READ if is_search(asked) else 0)
        found: _Entries = []
        while len(found) < wanted:
            async with self._bus.translated():  # each read has its own time: a search may take several
                entries: Any = await self._bus.redis.xrevrange(
                    self._bus.key(ITEMS_DONE), max=newest, min=oldest, count=count
                )
            found += [entry for entry in self._decoded(entries) if matches(asked, entry[1])]
            if len(entries) < count:
                break
            newest = f"({entries[-1][0].decode()}"
        return found[:wanted]

    def _decoded(self, entries: Any) -> _Entries:
        """Decode entries; one that can't be read is left out and said, for the others' sake."""
        items: _Entries = []
        for stream_id, fields in entries:
            try:
                items.append((stream_id.decode(), self._decoder.decode(fields.get(b"m", b"")).item))
            except msgspec.MsgspecError as error:
                _log.warning("entry %s of the history cannot be read and is left out: %s", stream_id.decode(), error)
        return items

    # ── the index ──

    async def _searched(self, asked: GetHistory, wanted: int) -> _Entries | None:
        """Search by the index; None if that is not possible now."""
        if self._index is None or self._is_building:
            return None
        async with self._index_lock:
            return await self._guarded(self._index, self._search(self._index, asked, wanted))

    async def _guarded(self, index: HistoryIndex, work: Any) -> Any:
        """Do without an index that does not work; a spoiled one is made anew."""
        try:
            return await work
        except sqlite3.DatabaseError as error:
            is_spoiled = type(error) is sqlite3.DatabaseError
            _log.warning(
                "the index of the history %s: %s; searches look through the history",
                "is spoiled and made anew" if is_spoiled else "cannot be used",
                error,
            )
            await asyncio.to_thread(index.clear if is_spoiled else index.close)
        except OSError as error:
            _log.warning("the index of the history cannot be used: %s; searches look through the history", error)
        return None

    async def _search(self, index: HistoryIndex, asked: GetHistory, wanted: int) -> _Entries | None:
        if not await self._catch_up(index, _CATCHING_UP):
            return None
        found: _Entries = []
        before = asked.before
        while len(found) < wanted:
            ids = await asyncio.to_thread(index.find, asked, before, wanted)
            found += [entry for entry in await self._read(ids) if matches(asked, entry[1])]
            if len(ids) < wanted:
                break
            before = ids[-1]
        return found[:wanted]

    async def _read(self, ids: list[str]) -> _Entries:
        async with self._bus.translated():
            pipeline: Any = self._bus.redis.pipeline(transaction=False)
            for stream_id in ids:
                pipeline.xrange(self._bus.key(ITEMS_DONE), stream_id, stream_id)
            return self._decoded([entry for entries in await pipeline.execute() for entry in entries])

    async def _catch_up(self, index: HistoryIndex, patience: float) -> bool:
        """Add what is new to the index; tell whether it has all."""
        deadline = time.monotonic() + patience
        known = await asyncio.to_thread(index.last)
        after = "-"
        if known is not None and [item.item_id for _, item in await self._read([known[0]])] == [known[1]]:
            after = f"({known[0]}"
        elif known is not None:
            _log.info("the index is of another history: it is made anew")
            await asyncio.to_thread(index.clear)
        while time.monotonic() < deadline:
            async with self._bus.translated():
                entries: Any = await self._bus.redis.xrange(self._bus.key(ITEMS_DONE), min=after, count=_READ)
            if entries:
                after = f"({entries[-1][0].decode()}"
                await asyncio.to_thread(lambda raw=entries: index.add(self._decoded(raw)))
            if len(entries) < _READ:
                return True
        return False
