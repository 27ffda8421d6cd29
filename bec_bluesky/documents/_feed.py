"""Feeds one callback from the runs on Redis, from where its sink ended."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import CURSORS, DOCUMENTS, FILES, POINTS, RESULTS, RUNS, STORED
from bec_bluesky.documents._callback import RunCallback
from bec_bluesky.documents._given_up import GivenUp, Tell
from bec_bluesky.documents._publish import Alarm, Publisher
from bec_bluesky.documents._stored import let_go, mark_stored
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder, unpack
from bec_bluesky.messages.products import FileReady, RunClosed

__all__ = ["Feed"]

_log = logger(__name__)
_runs_decoder = decoder(RUNS.message)
_product_decoders = {channel.name: decoder(channel.message) for channel in (POINTS, RESULTS)}
_BATCH = 500
_TICK = 0.1
"""Seconds between two `tick()`s of a callback."""
LOST_AFTER = 60.0
"""Seconds for which a run's documents must be gone from a Redis that answers before it is closed without them."""
_LOOK_EVERY = 5.0
"""Seconds between two looks for such runs, at most."""


@dataclass
class _Run:
    """A run that is being fed."""

    opened_at: str | None
    """Id of its RunOpened in the stream of runs; None of one that an earlier process gave up on."""
    last: int = 0
    """Number of the last document that was fed."""
    is_sealed: bool = False
    """Whether its stop document was fed."""
    failure: str = ""
    """Why the callback gave up on it."""
    is_incomplete: bool = False
    """Whether documents of it are missing, so that feeding it again is of no use."""
    last_products: dict[str, str] = field(default_factory=dict)
    """{channel: id of the last point or result that was given}"""


class Feed:
    """One callback, its thread, and its place in every open run.

    Resumes from what the sink holds: a run that is complete there is skipped, any other is fed again from its start
    document. A callback that raises loses that run and nothing else; if it is required, the documents are kept on Redis
    and the run is fed again by the next start.

    A run counts as stored on Redis once all that was made of it is there, too. One that the sink holds and that does
    not count so was cut off in between, by a kill: it is announced again, unless its files are among the announced.
    """

    def __init__(
        self,
        name: str,
        callback: RunCallback,
        bus: Bus,
        publisher: Publisher,
        *,
        required: frozenset[str],
        alarm: Alarm,
        tell_given_up: Tell | None = None,
        lost_after: float = LOST_AFTER,
    ) -> None:
        self.name = name
        self._callback = callback
        self._bus = bus
        self._publisher = publisher
        self._required = required
        self._alarm = alarm
        self._runs: dict[str, _Run] = {}
        self._given_up = GivenUp(bus, name, tell_given_up or (lambda _: None))
        self._cursor = "0-0"
        self._lost_after = lost_after
        self._missing: dict[str, float] = {}
        """{run whose documents are not on Redis: since when, by the monotonic clock}"""
        self._unclosable: set[str] = set()
        self._next_look = 0.0
        self._last_read = -math.inf
        wanted = ((POINTS, callback.wants_points), (RESULTS, callback.wants_results))
        self._products = [channel for channel, is_wanted in wanted if is_wanted]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"feed-{name}")
        self._is_stopping = asyncio.Event()
        self._is_finished = asyncio.Event()

    async def run(self) -> None:
        """Feed until `finish()`."""
        publishing = asyncio.create_task(self._publisher.run(), name=f"publish {self.name}")
        ticking = asyncio.create_task(self._tick_often(), name=f"tick {self.name}")
        try:
            await self._take_up()
            while not self._is_stopping.is_set():
                try:
                    await self._step()
                    await self._look_for_lost()
                except BusError as error:
                    self._missing.clear()  # only while Redis answers can documents be seen to be gone
                    _log.warning("%s; reading again", error, extra={"consumer": self.name})
                    await asyncio.sleep(0.2)
            await self._in_thread(self._callback.close)
            await self._publisher.drained()
        finally:
            for task in (ticking, publishing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self._thread.shutdown(wait=False)
            self._is_finished.set()

    async def finish(self) -> None:
        """End after the batch under way; what comes later is fed by the next start."""
        self._is_stopping.set()
        await self._is_finished.wait()

    async def _take_up(self) -> None:
        """Find the place where an earlier process ended, and what it gave up on."""
        while True:
            try:
                stored = await self._bus.field(CURSORS, self.name)
                self._cursor = "0-0" if stored is None else stored.decode()
                await self._given_up.load()
                return
            except BusError as error:
                _log.warning("%s; asking again", error, extra={"consumer": self.name})
                await asyncio.sleep(0.2)

    async def _step(self) -> None:
        """Read once from the stream of runs and from every open run; feed what came."""
        await self._feed_again()
        runs_key = self._bus.key(RUNS)
        documents = {self._bus.key(DOCUMENTS, run=uid): uid for uid in self._runs if not self._runs[uid].is_sealed}
        cursors = {runs_key: self._cursor} | {key: f"{self._runs[uid].last}-0" for key, uid in documents.items()}
        products = {
            self._bus.key(channel, run=uid): (uid, channel.name) for uid in self._runs for channel in self._products
        }
        cursors |= {key: self._runs[uid].last_products.get(name, "0-0") for key, (uid, name) in products.items()}
        # a sealed run that is not stored yet is looked at again soon
        block = 0.05 if any(run.is_sealed for run in self._runs.values()) else 0.25
        await self._gather()
        entries = await self._bus.read_keys(cursors, count=_BATCH, block=block)
        for stream_id, fields in entries.pop(runs_key, ()):
            await self._open_run(stream_id, _runs_decoder.decode(fields[b"m"]))
            self._cursor = stream_id
        if entries:
            self._last_read = time.monotonic()
        for key in entries.keys() & documents.keys():
            await self._feed(documents[key], entries[key])
        for key in entries.keys() & products.keys():
            await self._give_products(*products[key], entries[key])
        for uid in [uid for uid, run in self._runs.items() if run.is_sealed]:
            await self._close_run(uid)

    async def _gather(self) -> None:
        """Let documents come together, for a callback that wants no more than so many deliveries a second."""
        pause = self._last_read + self._callback.pace - time.monotonic()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_stopping.wait()

    async def _open_run(self, stream_id: str, note: Any) -> None:
        if isinstance(note, RunClosed):
            await self._forget_if_gone(note.run_uid)
            return
        if note.run_uid not in self._runs:
            await self._begin(note.run_uid, _Run(opened_at=stream_id))

    async def _begin(self, uid: str, run: _Run) -> None:
        """Feed a run, unless the sink has it."""
        if await self._bus.field(STORED, self.name, run=uid) is not None:
            await self._given_up.drop(uid)
            await let_go(self._bus, uid, self._required)
            return
        if await self._in_thread(self._callback.holds, uid):
            await self._announce_again(uid, run.opened_at or "0-0")
            await self._mark_stored(uid)
            return
        self._runs[uid] = run

    async def _feed_again(self) -> None:
        """Take up the next of the runs that an earlier process gave up on, when the one before is through."""
        uid = self._given_up.next
        if uid is None or any(run.opened_at is None for run in self._runs.values()):
            return
        if not await self._has_documents(uid):
            await self._given_up.drop(uid)
        elif uid not in self._runs:
            await self._begin(uid, _Run(opened_at=None))
        self._given_up.passed()

    async def _forget_if_gone(self, uid: str) -> None:
        """Wait no longer for documents of a run that was closed and whose documents have expired since."""
        run = self._runs.get(uid)
        if run is not None and run.last == 0 and not await self._has_documents(uid):
            del self._runs[uid]

    async def _has_documents(self, uid: str) -> bool:
        return await self._bus.last_id(DOCUMENTS, run=uid) != "0-0"

    async def _look_for_lost(self) -> None:
        """Close the runs whose documents were lost with a Redis, once they have been gone for long enough.

        A worker that lives writes them anew into a Redis that was lost; then the run goes on, or is fed again.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + min(_LOOK_EVERY, self._lost_after / 5)
        for uid in [uid for uid, run in self._runs.items() if run.last and not run.is_sealed]:
            await self._take_early_stop(uid)
        unfinished = set(await self._in_thread(self._unfinished))
        begun = {uid for uid, run in self._runs.items() if not run.is_sealed} | (unfinished - self._runs.keys())
        missing = [uid for uid in begun - self._unclosable if not await self._has_documents(uid)]
        self._missing = {uid: self._missing.get(uid, now) for uid in missing}
        for uid in missing:
            if now - self._missing[uid] < self._lost_after:
                continue
            if uid in unfinished or uid in self._callback.open_runs:
                await self._close_lost(uid)
            else:
                await self._forget(uid)

    async def _take_early_stop(self, uid: str) -> None:
        """Take the stop document of a run that lost its newest entries with Redis, and its worker, and was closed.

        It has a number that was fed already: reading on would never come to it.
        """
        run = self._runs[uid]
        newest, _ = _order(await self._bus.last_id(DOCUMENTS, run=uid))
        if not 0 < newest <= run.last:
            return
        key = self._bus.key(DOCUMENTS, run=uid)
        entries = (await self._bus.read_keys({key: f"{newest - 1}-0"}, count=1)).get(key, [])
        if [(_order(stream_id)[0], fields[b"n"]) for stream_id, fields in entries] != [(newest, b"stop")]:
            return
        run.is_sealed = True
        if not run.failure:
            await self._take(uid, [("stop", unpack(entries[0][1][b"d"]))])

    def _unfinished(self) -> list[str]:
        try:
            return list(self._callback.unfinished())
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("%s cannot say what is unfinished", self.name, exc_info=error)
            return []

    async def _close_lost(self, uid: str) -> None:
        try:
            await self._in_thread(self._callback.close_lost, uid)
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            self._unclosable.add(uid)  # it is tried again by the next start
            _log.warning("%s closed no run", self.name, exc_info=error, extra={"run": uid})
            text = (
                f"{self.name} cannot close a run whose documents were lost with Redis: {type(error).__name__}: {error}"
            )
            await self._alarm(text, level="error", run=uid)
        else:
            text = f"the documents of a run were lost with Redis: {self.name} has closed it with what it had of it"
            await self._alarm(text, level="error", run=uid)
        await self._forget(uid)

    async def _forget(self, uid: str) -> None:
        """Be done with a run, once all that was made of it is on Redis."""
        await self._publisher.drained()
        self._publisher.forget(uid)
        self._runs.pop(uid, None)
        await self._save_cursor()

    async def _announce_again(self, uid: str, opened_at: str) -> None:
        """Publish what a kill kept from Redis: the sink had the run, and nobody was told."""
        try:
            products = list(await self._in_thread(self._callback.announcements, uid))
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("%s cannot say what it has of a run", self.name, exc_info=error, extra={"run": uid})
            return
        files = {(product.writer, product.path) for product in products if isinstance(product, FileReady)}
        if files and not files <= await self._announced(uid, opened_at):
            for product in products:
                self._callback.emit(product)
            await self._publisher.drained()

    async def _announced(self, uid: str, after: str) -> set[tuple[str, str]]:
        """Give writer and path of what was announced of a run; `after` is the id of a message before."""
        found: set[tuple[str, str]] = set()
        while messages := await self._bus.read(FILES, after, count=_BATCH):
            found |= {(message.writer, message.path) for _, message in messages if message.run_uid == uid}
            after = messages[-1][0]
        return found

    async def _feed(self, uid: str, batch: list[tuple[str, dict[bytes, bytes]]]) -> None:
        run = self._runs[uid]
        first = run.last + 1
        numbers = [_order(stream_id)[0] for stream_id, _ in batch]
        run.last = numbers[-1]
        run.is_sealed = batch[-1][1][b"n"] == b"stop"
        if run.failure:
            return
        for expected, number in enumerate(numbers, first):
            if number != expected:  # a compare-and-append publisher makes no gaps: somebody deleted entries
                run.is_incomplete = True
                await self._lose(uid, f"documents {expected} to {number - 1} are missing on Redis")
                return
        await self._take(uid, [(fields[b"n"].decode(), unpack(fields[b"d"])) for _, fields in batch])

    async def _take(self, uid: str, documents: list[tuple[str, Any]]) -> None:
        try:
            await self._in_thread(self._call, uid, documents)
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("%s failed", self.name, exc_info=error, extra={"run": uid})
            await self._lose(uid, f"{type(error).__name__}: {error}")

    async def _give_products(self, uid: str, channel: str, batch: list[tuple[str, dict[bytes, bytes]]]) -> None:
        self._runs[uid].last_products[channel] = batch[-1][0]
        take = self._callback.take_point if channel == POINTS.name else self._callback.take_result
        products = [_product_decoders[channel].decode(fields[b"m"]) for _, fields in batch]
        try:
            await self._in_thread(lambda: [take(product) for product in products])
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("%s did not take %s", self.name, channel, exc_info=error, extra={"run": uid})

    def _call(self, uid: str, documents: list[tuple[str, Any]]) -> None:
        for name, doc in documents:
            self._callback.take(uid, name, doc)

    async def _lose(self, uid: str, reason: str) -> None:
        self._runs[uid].failure = reason
        try:
            await self._in_thread(self._callback.abandon, uid)
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("%s does not let go of a run", self.name, exc_info=error, extra={"run": uid})
        await self._alarm(
            f"{self.name} gave up on a run: {reason}; its documents stay on Redis", level="error", run=uid
        )

    async def _close_run(self, uid: str) -> None:
        run = self._runs[uid]
        if not run.failure:
            try:
                if not await self._in_thread(self._callback.is_stored, uid):
                    return
            except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
                await self._lose(uid, f"{type(error).__name__}: {error}")
        if not run.failure:
            await self._publisher.drained()
            await self._mark_stored(uid)
        elif self.name in self._required and not run.is_incomplete:
            await self._given_up.add(uid, run.failure)
        await self._forget(uid)

    async def _mark_stored(self, uid: str) -> None:
        """Note that the sink has the run, and all that was made of it is on Redis."""
        await mark_stored(self._bus, uid, self.name)
        await self._given_up.drop(uid)
        await let_go(self._bus, uid, self._required)

    async def _save_cursor(self) -> None:
        """Keep the place in the stream of runs before which everything is done."""
        opened = [run.opened_at for run in self._runs.values() if run.opened_at is not None]
        oldest = min(opened, key=_order, default=None)
        await self._bus.put_raw_field(CURSORS, self.name, self._cursor if oldest is None else _before(oldest))

    async def _tick_often(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                await self._in_thread(self._callback.tick)
            except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
                _log.warning("%s failed in tick()", self.name, exc_info=error)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _before(stream_id: str) -> str:
    """Give an id just before this one, so that reading after it gives this one again."""
    milliseconds, number = _order(stream_id)
    return f"{milliseconds}-{number - 1}" if number else f"{milliseconds - 1}-{2**63 - 1}"
