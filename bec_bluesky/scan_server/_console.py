"""The console: what workers and tasks print, read from their files and published in whole lines.

A process writes into its own file, as fast as it can and whatever becomes of us; nothing on its way waits for Redis.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from pathlib import Path

from bec_bluesky.bus import Bus
from bec_bluesky.channels import CONSOLE
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages.common import ConsoleText

__all__ = ["BYTES_A_SECOND", "LINES_A_SECOND", "Console", "Tail"]

_log = logger(__name__)
LINES_A_SECOND = 2_000
BYTES_A_SECOND = 128 * 1024
"""More than these of one source are left out, and counted; two seconds' worth may come at once."""
_BURST = 2.0
_PERIOD = 0.1
"""Seconds between two looks at the files."""
_LARGEST_TEXT = 16 * 1024
"""Bytes of one message."""
_LONGEST_LINE = 8 * 1024
"""Bytes; what comes after them is another line."""
_OLDEST_PART = 1.0
"""Seconds after which a line is published although it has no end yet."""
_MOST_READ = 256 * 1024
"""Bytes that are read of a file at once; what was written before them is left out."""
_LARGEST_FILE = 64 * 1024 * 1024
"""Bytes; then the file is emptied, so that no plan fills the disk by printing."""
_OUTPUT_KEPT = 16 * 1024
"""Bytes of the end of what a task printed that are kept with it."""
_MOST_PENDING = 500
"""Messages that wait for Redis."""


class Tail:
    """Follows one file; what is new comes as texts of whole lines, as many as the bounds allow."""

    def __init__(self, path: Path, source: str) -> None:
        self._fd = os.open(path, os.O_RDWR)
        self._at = 0
        self._part = b""
        """A line that has no end yet."""
        self._part_since = 0.0
        self._is_cut = False
        """Whether the beginning of the present line was left out."""
        self._lines_left, self._bytes_left, self._counted = _BURST * LINES_A_SECOND, _BURST * BYTES_A_SECOND, 0.0
        self._dropped = 0
        self._dropped_bytes = 0
        self._end = b""
        self.source = source
        """Whose lines these are; empty: they are not published."""
        self.item_id = ""

    @property
    def output(self) -> str:
        """The end of what this source printed so far."""
        return self._end[-_OUTPUT_KEPT:].decode(errors="replace")

    def begin(self, source: str, item_id: str = "") -> None:
        """From here on it is another source that prints."""
        self.source, self.item_id, self._end = source, item_id, b""

    def read(self, *, is_last: bool = False) -> list[str]:
        """Give what is new; `is_last` gives a line that has no end, too, and tells at once of what was left out."""
        now = time.monotonic()
        data = self._new_bytes()
        self._end = (self._end + data)[-_OUTPUT_KEPT:]
        lines = self._lines(data, now, is_last=is_last)
        texts = self._bounded(lines, now) if self.source else []
        if is_last and (notice := self._notice()):
            texts.append(notice.decode())
        return texts

    def close(self) -> None:
        os.close(self._fd)

    def _new_bytes(self) -> bytes:
        size = os.fstat(self._fd).st_size
        if size < self._at:  # it was emptied
            self._at = 0
        if size - self._at > _MOST_READ:
            self._dropped_bytes += size - _MOST_READ - self._at
            self._at, self._part, self._is_cut = size - _MOST_READ, b"", True
        data = os.pread(self._fd, size - self._at, self._at) if size > self._at else b""
        self._at += len(data)
        if self._at > _LARGEST_FILE:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)  # it is appended to: the next line is its first
                self._at = 0
        return data

    def _lines(self, data: bytes, now: float, *, is_last: bool) -> list[bytes]:
        """Cut into lines that end; the rest waits for its end."""
        if self._is_cut and data:
            cut, newline, data = data.partition(b"\n")
            self._dropped_bytes += len(cut)
            self._is_cut = not newline
        if data and not self._part:
            self._part_since = now
        lines = (self._part + data).split(b"\n")
        self._part = lines.pop()
        if self._part and (
            is_last or len(self._part) > _LONGEST_LINE or (not data and now - self._part_since > _OLDEST_PART)
        ):
            lines.append(self._part)
            self._part = b""
        return lines

    def _bounded(self, lines: list[bytes], now: float) -> list[str]:
        """Put lines together into texts, leaving out what is more than the bounds allow."""
        passed, self._counted = now - self._counted, now
        self._lines_left = min(_BURST * LINES_A_SECOND, self._lines_left + passed * LINES_A_SECOND)
        self._bytes_left = min(_BURST * BYTES_A_SECOND, self._bytes_left + passed * BYTES_A_SECOND)
        texts: list[bytearray] = []
        for number, line in enumerate(lines):
            if self._lines_left < 1:
                self._dropped += len(lines) - number
                break
            if self._bytes_left < min(len(line), _LONGEST_LINE):
                self._dropped += 1
                continue
            for part in _readable(line):
                written = self._notice() + part + b"\n"
                self._lines_left -= 1
                self._bytes_left -= len(written)
                if not texts or len(texts[-1]) + len(written) > _LARGEST_TEXT:
                    texts.append(bytearray())
                texts[-1] += written
        return [text.decode(errors="replace") for text in texts]

    def _notice(self) -> bytes:
        """Say how much was left out, if anything was."""
        if not self._dropped and not self._dropped_bytes:
            return b""
        parts = ([f"{self._dropped} lines"] if self._dropped else []) + (
            [f"{self._dropped_bytes} bytes"] if self._dropped_bytes else []
        )
        self._dropped = self._dropped_bytes = 0
        return f"... {' and '.join(parts)} were left out here: too much was printed at once\n".encode()


class Console:
    """Publishes what the files bring; a Redis that is away is waited for, with a bounded backlog."""

    def __init__(self) -> None:
        self._tails: list[Tail] = []
        self._pending: deque[ConsoleText] = deque(maxlen=_MOST_PENDING)
        self._is_publishing = asyncio.Lock()

    def follow(self, path: Path, source: str) -> Tail:
        """Begin to follow a file."""
        tail = Tail(path, source)
        self._tails.append(tail)
        return tail

    def catch_up(self, tail: Tail) -> None:
        """Take what its source has printed until now; it prints no more."""
        self._take(tail, is_last=True)

    def leave(self, tail: Tail) -> None:
        """Take what is left in a file, and follow it no more."""
        self.catch_up(tail)
        self._tails.remove(tail)
        tail.close()

    def _take(self, tail: Tail, *, is_last: bool = False) -> None:
        now = time.time()
        try:
            texts = tail.read(is_last=is_last)
        except OSError as error:
            _log.debug("%s", error)
            return
        source, item_id = tail.source, tail.item_id
        self._pending.extend(ConsoleText(time=now, source=source, text=text, item_id=item_id) for text in texts)

    async def run(self, bus: Bus) -> None:
        """Publish for ever."""
        while True:
            await asyncio.sleep(_PERIOD)
            for tail in self._tails:
                self._take(tail)
            await self.flush(bus)

    async def flush(self, bus: Bus) -> None:
        """Publish what was taken until now, in its order."""
        async with self._is_publishing:
            messages = list(self._pending)
            self._pending.clear()
            try:
                await bus.append_all(CONSOLE, messages)
            except BusError as error:
                _log.debug("the console waits: %s", error)
                self._pending.extendleft(reversed(messages[: _MOST_PENDING - len(self._pending)]))


def _readable(line: bytes) -> list[bytes]:
    """Give a line as it looks in the end where it was written over (a progress bar), cut if it is very long."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return [shown[at : at + _LONGEST_LINE] for at in range(0, len(shown), _LONGEST_LINE)] or [b""]
