"""Requests in, replies out: each request is carried out at most once, and always answered if that is possible."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import REPLIES, REQUESTS
from bec_bluesky.errors import BusError, FencedError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder, unpack
from bec_bluesky.messages.around_queue import EndTask, GetLock, GetRules, GetTasks
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.failures import tell
from bec_bluesky.messages.queue import (
    ControlRun,
    GetHistory,
    GetQueue,
    GetStatus,
    Reply,
    Request,
    StopQueue,
)
from bec_bluesky.scan_server._store import QueueStore

__all__ = ["LOOKING", "CheckFailed", "RequestReader", "time_left"]

_log = logger(__name__)
LOOKING = (GetStatus, GetQueue, GetHistory, GetTasks, GetLock, GetRules)
"""Change nothing: may be carried out twice, and their answers are not kept."""
_AT_ONCE = (StopQueue, ControlRun, EndTask, *LOOKING)
"""Carried out without waiting for earlier requests of the same client."""
_REMEMBERED = 1000
"""Replies kept for requests that come twice."""
_NOTE_PERIOD = 1.0
"""Seconds within which requests that change nothing may be carried out again after a restart."""
_LONGEST_LINE = 1000
"""Letters of a refusal."""
_BLOCK = 1.0
_ANSWER_TIME = 0.5
"""Seconds before a request's deadline by which its answer should leave."""
Handle = Callable[[Request], Awaitable[Any]]
Alarm = Callable[[str], Awaitable[None]]
Noted = Callable[[Request, Any, Failure | None], None]
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


def time_left(deadline: float) -> float:
    """Give the seconds for which a request may be worked on, so that its answer arrives in time."""
    return max(0.1, deadline - _ANSWER_TIME - time.time())


class CheckFailed(RefusedError):
    """A worker's check refused an item; `failure` is what it said."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, failure.code or "check_failed")
        self.failure = failure


class RequestReader:
    """Reads the requests stream and answers; `handle` gives the body of the reply or raises RefusedError."""

    def __init__(
        self, bus: Bus, store: QueueStore, handle: Handle, alarm: Alarm, spawn: Spawn, *, name: str, noted: Noted
    ) -> None:
        """`noted` hears of every answer to what was to change something."""
        self._bus = bus
        self._store = store
        self._handle = handle
        self._alarm = alarm
        self._spawn = spawn
        self._name = name
        self._noted_answer = noted
        self._decoder = decoder(Request)
        self._replies: OrderedDict[str, Reply | None] = OrderedDict()
        """By request id; None while it is carried out."""
        self._deadlines: dict[str, float] = {}
        """Of the requests in `_replies`: one that comes again after its deadline is left out anyway."""
        self._lanes: dict[str, asyncio.Task[None]] = {}
        """{client: its last request}; requests of one client are carried out in their order."""
        self._is_closed = False
        self._noted = 0.0
        """When it was noted last how far was read (monotonic)."""

    def close(self) -> None:
        """Take up no more requests; those that were taken up are carried out."""
        self._is_closed = True

    async def drained(self) -> None:
        """Wait until what was taken up is answered."""
        while tasks := [task for task in self._lanes.values() if not task.done()]:
            await asyncio.wait(tasks)

    async def run(self) -> None:
        """Read for ever; a lost Redis is waited for."""
        after = await self._store.requests_read()
        key = self._bus.key(REQUESTS)
        delay = 0.02
        while True:
            try:
                entries = (await self._bus.read_keys({key: after}, count=100, block=_BLOCK)).get(key, [])
                if self._is_closed:
                    return
                taken = [(stream_id, fields, self._decoded(fields)) for stream_id, fields in entries]
                if entries:
                    await self._note_taken_up(entries[-1][0], [request for *_, request in taken])
                    after = entries[-1][0]
                delay = 0.02
            except FencedError:
                raise
            except BusError as error:
                _log.warning("%s; reading requests again", error)
                await asyncio.sleep(random.uniform(0.0, delay))
                delay = min(2 * delay, 1.0)
                continue
            for stream_id, fields, request in taken:
                await self._take(stream_id, fields, request)

    def _decoded(self, fields: dict[bytes, bytes]) -> Request | Exception:
        try:
            return self._decoder.decode(fields.get(b"m", b""))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return error

    async def _note_taken_up(self, last: str, requests: list[Request | Exception]) -> None:
        """Note how far was read, before it is carried out; who only looks does not wait for that each time."""
        only_look = all(isinstance(request, Request) and isinstance(request.body, LOOKING) for request in requests)
        if only_look and time.monotonic() < self._noted + _NOTE_PERIOD:
            return
        await self._store.take_up(last)
        self._noted = time.monotonic()

    async def _take(self, stream_id: str, fields: dict[bytes, bytes], request: Request | Exception) -> None:
        if isinstance(request, Exception):
            return await self._answer_malformed(stream_id, fields, request)
        if request.request_id in self._replies:
            known = self._replies[request.request_id]
            if known is not None:
                await self._reply(request.reply_to, known)
            return None
        if request.deadline < time.time():
            _log.info("a request came after its deadline and is left out", extra={"request": request.request_id})
            return None
        if not isinstance(request.body, LOOKING):
            self._replies[request.request_id] = None
            self._deadlines[request.request_id] = request.deadline
        self._forget()
        self._start(request)
        return None

    def _forget(self) -> None:
        now = time.time()
        while self._replies:
            oldest = next(iter(self._replies))
            if len(self._replies) <= _REMEMBERED and self._deadlines[oldest] >= now:
                return
            del self._replies[oldest], self._deadlines[oldest]

    def _start(self, request: Request) -> None:
        name = f"request {type(request.body).__name__}"
        if isinstance(request.body, _AT_ONCE):
            self._spawn(self._answer(request), name)
            return
        for client in [client for client, task in self._lanes.items() if task.done()]:
            del self._lanes[client]
        earlier = self._lanes.get(request.reply_to)
        self._lanes[request.reply_to] = self._spawn(self._answer(request, after=earlier), name)

    async def _answer(self, request: Request, *, after: "asyncio.Task[None] | None" = None) -> None:
        if after is not None:
            await asyncio.wait([after])
        body: Any = None
        failure: Failure | None = None
        try:
            body = await self._handle(request)
        except FencedError:
            raise
        except CheckFailed as refused:
            failure = msgspec.structs.replace(refused.failure, code=refused.code)
        except RefusedError as refused:
            failure = msgspec.structs.replace(tell(refused, where=self._name), traceback="")
        except Exception as error:  # noqa: BLE001  # one request must not end the service that all others use
            _log.exception("a request could not be carried out", extra={"request": request.request_id})
            failure = msgspec.structs.replace(tell(error, where=self._name), code="internal_error")
        if failure is not None:
            failure = msgspec.structs.replace(failure, text=_readable(failure.text))
            _log.info("refused %s: %s", type(request.body).__name__, failure.text, extra={"user": request.user})
        if not isinstance(request.body, LOOKING):
            self._noted_answer(request, body, failure)
        reply = Reply(request_id=request.request_id, body=body, failure=failure)
        if request.request_id in self._replies:
            self._replies[request.request_id] = reply
        await self._reply(request.reply_to, reply)

    async def _reply(self, client: str, reply: Reply) -> None:
        try:
            await self._bus.append(REPLIES, reply, client=client)
        except (BusError, ValueError) as error:  # ValueError: the client's name can't be part of a key
            _log.warning("a reply could not be given: %s", error, extra={"request": reply.request_id})

    async def _answer_malformed(self, stream_id: str, fields: dict[bytes, bytes], error: Exception) -> None:
        """Refuse what is no request of ours; answer if it says to whom."""
        text = _readable(f"Request {stream_id} is malformed and was left out: {error or type(error).__name__}")
        try:
            raw: Any = unpack(fields.get(b"m", b""))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raw = None
        request_id, client = (raw.get("request_id"), raw.get("reply_to")) if isinstance(raw, dict) else (None, None)
        if isinstance(request_id, str) and isinstance(client, str):
            refused = RefusedError(text, "malformed_request")
            failure = msgspec.structs.replace(tell(refused, where=self._name), traceback="")
            await self._reply(client, Reply(request_id=request_id, failure=failure))
        await self._alarm(text)


def _readable(text: str) -> str:
    """Leave out the middle of lines that quote something endless."""
    lines = (line if len(line) <= _LONGEST_LINE else f"{line[:600]} … {line[-300:]}" for line in text.split("\n"))
    return "\n".join(lines)
