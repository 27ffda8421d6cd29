"""Documents from the RunEngine to Redis: none is lost while this process lives, none is there twice.

The RunEngine's thread encodes and queues (a few µs); one task in the control loop writes. While Redis is away the
documents wait; only when CREDIT of them do, the plan waits too.
"""

import asyncio
import contextlib
import heapq
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bec_bluesky.bus import Address, Wire
from bec_bluesky.channels import document_stream
from bec_bluesky.errors import BusError, FencedError, StreamGapError
from bec_bluesky.log import logger
from bec_bluesky.messages import encode, pack
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.scan_server.worker import _append
from bec_bluesky.scan_server.worker._routing import Routing

__all__ = ["DocumentPublisher"]

_log = logger(__name__)
CREDIT = 20_000
"""Documents that may wait for Redis before the plan waits."""
_BATCH = 200
_PERIOD = 0.005
"""Seconds between two batches of a busy stream."""
_TIMEOUT = 3.0
"""Seconds that Redis may take for one batch."""
_LOOK_EVERY = 5.0
"""Seconds between two looks whether Redis still has the runs that write nothing; consumers wait longer for them."""
_KEPT_BYTES = 32 * 2**20
"""Size of the written documents of a run that are kept, to be written again if Redis lost its newest entries."""


@dataclass(frozen=True)
class _Document:
    order: int
    """Place among the documents of all runs."""
    name: str
    data: bytes


@dataclass
class _Run:
    """An open run."""

    uid: str
    token: int
    opened: bytes
    key: str
    script_keys: list[str]
    stored: int = 0
    """Number of the newest document on Redis."""
    waiting: deque[_Document] = field(default_factory=deque[_Document])
    """Documents `stored + 1` and later."""
    kept: deque[_Document] = field(default_factory=deque[_Document])
    """Documents up to `stored`."""
    kept_bytes: int = 0
    stop: dict[str, Any] | None = None
    """The stop document, once the run is closed."""


@dataclass(frozen=True)
class _Batch:
    """Documents of one run that follow each other; without any, it only asks whether Redis has those before."""

    run: _Run
    last: int
    """Number of the document before them."""
    documents: list[_Document]

    def arguments(self) -> list[str | bytes | int]:
        run = self.run
        closed = b""
        if run.stop is not None and self.documents and self.documents[-1].name == "stop":
            message = RunClosed(
                run_uid=run.uid,
                time=run.stop["time"],
                exit_status=run.stop["exit_status"],
                documents=self.last + len(self.documents),
            )
            closed = encode(message)
        opened = run.opened if self.last == 0 and self.documents else b""
        return _append.arguments(run.token, self.last, opened, closed, [(d.name, d.data) for d in self.documents])


class DocumentPublisher:
    """A RunEngine callback, and the task that writes what it takes."""

    def __init__(
        self,
        address: Address,
        beamline: str,
        *,
        on_opened: Callable[[dict[str, Any]], None],
        on_closed: Callable[[str, str], None],
        on_refused: Callable[[BusError], None],
        credit: int = CREDIT,
        look_every: float = _LOOK_EVERY,
    ) -> None:
        self._address = address
        self._beamline = beamline
        self._on_opened = on_opened
        self._on_closed = on_closed
        self._on_refused = on_refused
        self._credit = credit
        self._look_every = look_every
        self._next_look = 0.0
        self._lock = threading.Condition()
        self._runs: dict[str, _Run] = {}
        self._routing = Routing()
        self._count = 0
        self._order = 0
        self._is_patient = True
        self._is_woken = False
        self._refusal: BusError | None = None
        self._token = 0
        self._item_id = ""
        self._user = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._wire: Wire | None = None

    @property
    def waiting(self) -> int:
        """How many documents are not on Redis yet."""
        return self._count

    # ── any thread ──

    def begin(self, token: int, item_id: str, user: str) -> None:
        """Say for whom the runs to come are made."""
        self._token, self._item_id, self._user = token, item_id, user
        self._is_patient = True

    def let_go(self) -> None:
        """Make the plan wait for Redis no longer: it is to be ended."""
        with self._lock:
            self._is_patient = False
            self._lock.notify_all()

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        """Take a document from the RunEngine.

        Raises FencedError or StreamGapError if its run may no longer be written, TypeError if it cannot be encoded.
        """
        data = pack(document)
        if name == "start":
            self._on_opened(document)
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            run = self._open(document) if name == "start" else self._runs[self._routing.run_of(name, document)]
            if name == "stop":
                run.stop = document
                self._routing.forget(run.uid)
            self._order += 1
            run.waiting.append(_Document(self._order, name, data))
            self._count += 1
            if not self._is_woken and self._loop is not None:
                self._is_woken = True
                self._loop.call_soon_threadsafe(self._wake.set)
            if self._count > self._credit and self._is_patient:
                self._wait_for_credit()

    def _open(self, start: dict[str, Any]) -> _Run:
        uid = start["uid"]
        opened = RunOpened(
            run_uid=uid,
            scan_id=int(start.get("scan_id", 0)),
            time=start["time"],
            plan_name=str(start.get("plan_name", "")),
            item_id=self._item_id,
            user=self._user,
        )
        self._routing.open(uid)
        run = self._runs[uid] = _Run(
            uid=uid,
            token=self._token,
            opened=encode(opened),
            key=document_stream(self._beamline, uid),
            script_keys=_append.keys(self._beamline, uid),
        )
        return run

    def _wait_for_credit(self) -> None:
        _log.warning("%d documents wait for Redis: the plan waits too", self._count)
        self._lock.wait_for(lambda: self._count <= self._credit or not self._is_patient or self._refusal is not None)

    # ── the control loop ──

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._wake.set()  # documents may have come before
        delay = 0.02
        written = 0.0
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look_every):
                        await self._wake.wait()
                self._wake.clear()
                while batches := [*(silent := self._silent()), *self._next()]:
                    if sum(len(batch.documents) for batch in batches) < _BATCH:
                        await asyncio.sleep(max(0.0, written + _PERIOD - self._loop.time()))
                        batches = [*silent, *self._next()]  # what came meanwhile goes along
                    try:
                        await self._write(batches)
                        delay = 0.02
                    except BusError as error:
                        self._disconnect()
                        _log.warning("%d documents wait for Redis: %s", self._count, error)
                        await asyncio.sleep(random.uniform(0.0, delay))
                        delay = min(2 * delay, 1.0)
                    written = self._loop.time()
        finally:
            self._disconnect()

    async def drained(self) -> None:
        """Wait until every document is on Redis, or may no longer go there."""
        while self._count and self._refusal is None:
            self._moved.clear()
            await self._moved.wait()

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _next(self) -> list[_Batch]:
        """Give the next documents in their order; they stay queued until they are known to be written."""
        batches: list[_Batch] = []
        with self._lock:
            waiting = [
                [(document.order, run, document) for document in islice(run.waiting, _BATCH)]
                for run in self._runs.values()
                if run.waiting
            ]
            self._is_woken = bool(waiting)
        in_order = waiting[0] if len(waiting) == 1 else heapq.merge(*waiting, key=lambda entry: entry[0])
        last: dict[str, int] = {}
        for _, run, document in islice(in_order, _BATCH):
            number = last.setdefault(run.uid, run.stored)
            if not batches or batches[-1].run is not run:
                batches.append(_Batch(run, number, []))
            batches[-1].documents.append(document)
            last[run.uid] += 1
        return batches

    def _silent(self) -> list[_Batch]:
        """Give a batch of nothing for every run that has nothing to write, when it is time to look after those.

        Redis may have lost them while their plan waits or exposes; nobody would know before the next document.
        """
        assert self._loop is not None
        if self._loop.time() < self._next_look:
            return []
        self._next_look = self._loop.time() + self._look_every
        with self._lock:
            return [_Batch(run, run.stored, []) for run in self._runs.values() if not run.waiting]

    async def _write(self, batches: list[_Batch]) -> None:
        if self._wire is None or not self._wire.is_open:
            wire = await Wire.connect(self._address, timeout=_TIMEOUT)
            self._wire = wire
            await self._bounded(wire.send("SCRIPT", "LOAD", _append.SCRIPT))
        wire = self._wire
        futures = [
            wire.send("EVALSHA", _append.SHA, len(batch.run.script_keys), *batch.run.script_keys, *batch.arguments())
            for batch in batches
        ]
        is_in_order = True
        for batch, future in zip(batches, futures, strict=True):
            outcome, number = await self._bounded(future)
            if not is_in_order:
                continue  # what was sent after a gap was refused as well: it is sent again
            if outcome == _append.APPENDED:
                self._acknowledge(batch.run, len(batch.documents))
                continue
            is_in_order = False
            if outcome == _append.GAP:
                await self._close_gap(wire, batch.run, int(number))
            else:
                self._refuse(
                    FencedError(f"another scan server took over (its token is {number}): documents are refused")
                )
        self._moved.set()

    async def _bounded(self, future: "asyncio.Future[Any]") -> Any:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await future
        except TimeoutError:
            raise BusError(f"no answer from Redis at {self._address} within {_TIMEOUT:g} s") from None

    def _acknowledge(self, run: _Run, number: int) -> None:
        """Note that the next `number` documents of a run are on Redis."""
        with self._lock:
            for _ in range(number):
                document = run.waiting.popleft()
                run.kept.append(document)
                run.kept_bytes += len(document.data)
            while run.kept_bytes > _KEPT_BYTES:
                run.kept_bytes -= len(run.kept.popleft().data)
            run.stored += number
            self._count -= number
            is_closed = run.stop is not None and not run.waiting
            if is_closed:
                del self._runs[run.uid]
            self._lock.notify_all()
        if run.stop is not None and is_closed:
            self._on_closed(run.uid, run.stop["exit_status"])

    async def _close_gap(self, wire: Wire, run: _Run, newest: int) -> None:
        """Find out why Redis does not stand where it should: a reply was lost, entries were, or somebody else wrote."""
        if newest > run.stored:
            ahead = newest - run.stored
            mine = run.waiting[ahead - 1] if ahead <= len(run.waiting) else None
            entries = await self._bounded(wire.send("XRANGE", run.key, f"{newest}-0", f"{newest}-0"))
            if mine is not None and _data(entries) == mine.data:
                self._acknowledge(run, ahead)
            else:
                self._refuse(StreamGapError(f"somebody else writes the documents of run {run.uid}", newest))
            return
        lost = run.stored - newest
        if lost > len(run.kept):
            self._refuse(
                StreamGapError(f"Redis lost the documents of run {run.uid} from {newest + 1} on; too many to repeat")
            )
            return
        _log.warning("Redis lost %d documents: they are written again", lost, extra={"run": run.uid})
        with self._lock:
            for _ in range(lost):
                document = run.kept.pop()
                run.kept_bytes -= len(document.data)
                run.waiting.appendleft(document)
            run.stored = newest
            self._count += lost

    def _refuse(self, error: BusError) -> None:
        """Stop writing for good."""
        with self._lock:
            if self._refusal is not None:
                return
            self._refusal = error
            self._runs.clear()
            self._count = 0
            self._lock.notify_all()
        self._moved.set()
        _log.error("%s", error)
        self._on_refused(error)


def _data(entries: Any) -> bytes | None:
    """Give the field `d` of the one entry of an XRANGE."""
    if not entries:
        return None
    flat = list(entries[0][1])
    return dict(zip(flat[::2], flat[1::2], strict=True)).get(b"d")
