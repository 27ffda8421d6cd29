"""The history as clients see it: all finished items since it was cleared, in one answer.

Clients ask for all of it after every plan. It is kept as it is written, compressed in chunks: some forty bytes an item.
"""

import asyncio
import zlib
from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS_DONE, QUEUESERVER
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder
from bec_bluesky.messages.queue import ItemDone
from bec_bluesky.queueserver._encoding import EncodedList, json_text
from bec_bluesky.queueserver._items import item_of

__all__ = ["ShownHistory"]

_log = logger(__name__)
_HIDDEN = "history_after"
"""Field of the channel QUEUESERVER: the entry up to which the history was cleared, and how many entries that hides."""
_READ = 500
_CHUNK = 1_000
"""Items that are compressed together."""
_START = "0-0"


class ShownHistory:
    """Finished items, oldest first."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._decoder = decoder(ItemDone)
        self._hidden, self._hidden_count = _START, 0
        self._end, self._total = _START, 0
        """The newest entry, and how many there are."""
        self._chunks: list[bytes] = []
        self._newest: list[bytes] = []
        self._written = _START
        """The newest entry that is among them."""
        self._lock = asyncio.Lock()

    @property
    def state(self) -> tuple[str, str]:
        """Changes with every finished item, and when the history is cleared."""
        return self._end, self._hidden

    @property
    def size(self) -> int:
        """How many items there are."""
        return max(0, self._total - self._hidden_count)

    async def load(self) -> None:
        """Read what was cleared, and how much there is."""
        hidden = await self._bus.field(QUEUESERVER, _HIDDEN)
        if hidden:
            self._hidden, _, count = hidden.decode().partition(" ")
            self._hidden_count = int(count) if count else await self._count_to(self._hidden)
        self._forget()
        await self.look()

    async def _count_to(self, last: str) -> int:
        count = 0
        after = "-"
        while entries := await self._entries(after, last):
            count += len(entries)
            after = f"({entries[-1][0].decode()}"
        return count

    async def look(self) -> None:
        """Notice what is new; its items are read when they are asked for."""
        async with self._bus.translated():
            pipeline: Any = self._bus.redis.pipeline(transaction=True)
            pipeline.xlen(self._bus.key(ITEMS_DONE))
            pipeline.xrevrange(self._bus.key(ITEMS_DONE), count=1)
            total, newest = await pipeline.execute()
        end = newest[0][0].decode() if newest else _START
        if _place(end) < max(_place(self._end), _place(self._hidden)):
            _log.warning("the history on Redis is another one than before: it is read anew")
            self._hidden, self._hidden_count = _START, 0
            self._forget()
        self._end, self._total = end, int(total)

    async def items(self) -> tuple[EncodedList, tuple[str, str]]:
        """Give all items, and the state that they are of."""
        async with self._lock:
            await self.look()
            await self._write_new()
            chunks, newest, state = list(self._chunks), list(self._newest), (self._written, self._hidden)
        return await asyncio.to_thread(_joined, chunks, newest), state

    async def _write_new(self) -> None:
        """Write what is new, whatever time it takes; others are served meanwhile."""
        while entries := await self._entries(f"({self._written}", "+"):
            self._newest += [text for _, fields in entries if (text := self._text(fields))]
            self._written = entries[-1][0].decode()
            while len(self._newest) >= _CHUNK:
                self._chunks.append(zlib.compress(b", ".join(self._newest[:_CHUNK]), 1))
                del self._newest[:_CHUNK]
        await self.look()

    def _text(self, fields: dict[bytes, bytes]) -> bytes:
        try:
            return json_text(item_of(self._decoder.decode(fields.get(b"m", b"")).item))
        except msgspec.MsgspecError as error:
            _log.warning("an entry of the history cannot be read and is left out: %s", error)
            return b""

    async def hide(self, *, size: int | None = None, item_uid: str | None = None) -> bool:
        """Show only the newest `size` items, or those after an item; without either none. Tell whether that changes it.

        The scan server keeps all.
        """
        async with self._lock:
            await self.look()
            if item_uid is not None:
                hidden, count = await self._place_of(item_uid)
            else:
                hidden, count = await self._place_before(max(0, size or 0))
            if not count:
                return False
            self._hidden, self._hidden_count = hidden, self._hidden_count + count
            await self._bus.put_raw_field(QUEUESERVER, _HIDDEN, f"{self._hidden} {self._hidden_count}")
            self._forget()
            return True

    async def _place_before(self, size: int) -> tuple[str, int]:
        """Give the newest entry before the newest `size` ones, and how many that are shown it hides."""
        count = self.size - size
        if count <= 0:
            return self._hidden, 0
        newest = "+"
        while True:
            async with self._bus.translated():
                entries: Any = await self._bus.redis.xrevrange(
                    self._bus.key(ITEMS_DONE), max=newest, count=min(size + 1, _READ)
                )
            if not entries:
                return self._hidden, 0
            if len(entries) > size:
                return entries[size][0].decode(), count
            size -= len(entries)
            newest = f"({entries[-1][0].decode()}"

    async def _place_of(self, item_uid: str) -> tuple[str, int]:
        """Give the entry of an item that is shown, and how many are shown up to it; none if there is no such item."""
        count = 0
        after = self._hidden
        while entries := await self._entries(f"({after}", "+"):
            for stream_id, fields in entries:
                count += 1
                if item_uid.encode() in fields.get(b"m", b"") and self._id_of(fields) == item_uid:
                    return stream_id.decode(), count
            after = entries[-1][0].decode()
        return self._hidden, 0

    def _id_of(self, fields: dict[bytes, bytes]) -> str:
        return self._decoder.decode(fields[b"m"]).item.item_id

    async def _entries(self, first: str, last: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        async with self._bus.translated():
            entries: Any = await self._bus.redis.xrange(self._bus.key(ITEMS_DONE), min=first, max=last, count=_READ)
        return entries

    def _forget(self) -> None:
        self._chunks, self._newest, self._written = [], [], self._hidden


def _joined(chunks: list[bytes], newest: list[bytes]) -> EncodedList:
    return EncodedList(b", ".join([*map(zlib.decompress, chunks), *newest]))


def _place(stream_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in stream_id.split("-"))
