"""What people have devices do past the queue, for the command log."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from bec_bluesky.bus import Caller
from bec_bluesky.client._arguments import plain
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import DeviceNote, NoteDevices
from bec_bluesky.messages.devices import FREE_VERBS
from bec_bluesky.proxy import RemoteStatus

__all__ = ["DeviceNotes", "keeping_notes"]

_log = logger(__name__)
_TOGETHER = 0.1
"""Seconds in which notes are gathered."""
_LARGEST = 1024
"""Bytes of an array whose values are noted."""
_MOST = 1000
"""Notes of a request."""
_MOST_PENDING = 100_000
"""Notes that are kept while Redis is away."""
_GOOD_FOR = 3600.0
"""Seconds for which a scan server that is away may come back and still write them."""
Who = tuple[tuple[str, Any], ...]


class DeviceNotes:
    """Tells the scan server, in passing, what devices were commanded; nothing waits for it. For any thread.

    A command is noted when it is sent, and once more if it fails. Looking is not noted, stopping is.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._loop = asyncio.get_running_loop()
        self._notes: deque[tuple[Who, DeviceNote]] = deque(maxlen=_MOST_PENDING)
        self._is_news = asyncio.Event()

    @contextlib.contextmanager
    def sending(
        self, device: str, verb: str, args: Any = (), kwargs: Mapping[str, Any] | None = None, **who: Any
    ) -> Iterator[None]:
        """Note what the block sends, and the error that it raises; `who` asks, if it is not the caller."""
        if verb in FREE_VERBS and verb != "stop":
            yield
            return
        self._note(who, device, verb, args, kwargs)
        try:
            yield
        except Exception as error:
            self._note(who, device, verb, args, kwargs, error)
            raise

    def follow(self, status: RemoteStatus, **who: Any) -> None:
        """Note it if what was sent fails later."""

        def note_failure(done: RemoteStatus) -> None:
            if (error := done.exception()) is not None:
                self._note(who, done.device.path, done.verb, done.args, None, error)

        status.add_callback(note_failure)

    def _note(
        self,
        who: dict[str, Any],
        device: str,
        verb: str,
        args: Any,
        kwargs: Mapping[str, Any] | None,
        error: BaseException | None = None,
    ) -> None:
        failure = "" if error is None else str(error) or type(error).__name__
        note = DeviceNote(
            time=time.time(),
            device=device,
            verb=verb,
            args=[*map(_short, args)],
            kwargs={name: _short(value) for name, value in (kwargs or {}).items()},
            failure=failure,
        )
        self._notes.append((tuple(sorted(who.items())), note))
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._is_news.set)

    async def run(self) -> None:
        """Send notes for ever, those of a moment together."""
        while True:
            await self._is_news.wait()
            await asyncio.sleep(_TOGETHER)
            self._is_news.clear()
            try:
                await self.send()
            except BusError as error:
                _log.warning("%s; what devices were told will be noted later", error)
                self._is_news.set()

    async def send(self) -> None:
        """Send what was noted; raises BusError, and keeps what was not sent."""
        while self._notes:
            who = self._notes[0][0]
            some: list[tuple[Who, DeviceNote]] = []
            while self._notes and len(some) < _MOST and self._notes[0][0] == who:
                some.append(self._notes.popleft())
            try:
                await self._caller.tell(NoteDevices(notes=[note for _, note in some]), good_for=_GOOD_FOR, **dict(who))
            except BusError:
                self._notes.extendleft(reversed(some))
                raise


def _short(value: Any) -> Any:
    """Give a value as it crosses; of a large array what it is."""
    if getattr(value, "nbytes", 0) > _LARGEST:
        return f"{value.dtype} array {value.shape}"
    return plain(value)


@contextlib.asynccontextmanager
async def keeping_notes(caller: Caller) -> AsyncIterator[DeviceNotes]:
    """Keep notes while the block lasts; the last of them are sent at its end."""
    notes = DeviceNotes(caller)
    sending = asyncio.create_task(notes.run(), name="notes of what devices were told")
    try:
        yield notes
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        with contextlib.suppress(BusError):
            await notes.send()
