"""Operations under way: what was asked of which server, and who waits for the answer.

Operations given in the same iteration of the loop travel together (one Instruction, one PUBLISH); as long as every
iteration brings new ones, they are held, so that ten `trigger`s of a plan are one round trip.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bec_bluesky.bus import Wire
from bec_bluesky.errors import BusError, DeviceServerLost
from bec_bluesky.log import logger
from bec_bluesky.messages import encode
from bec_bluesky.messages.devices import Answer, Answers, Instruction, Op
from bec_bluesky.proxy._failure import no_receiver

if TYPE_CHECKING:
    from bec_bluesky.proxy._readahead import ReadAhead

__all__ = ["Operations", "ServerState", "Waiter"]

_log = logger(__name__)
_MOST_HELD = 64
"""Operations; more are sent without waiting for the rest."""
_LONGEST_HOLD = 0.01
"""Seconds."""
_START_WITHIN = 2.0
"""Seconds in which a server must start an instruction: one that wakes up later must not move anything."""

_SAFE_LATE = frozenset({"clear_sub", "give_up", "release", "stop", "unstage"})
"""A server that wakes up late should still do these: the clean-up of plans that were told that it is lost."""


class Waiter(Protocol):
    """Who waits for the answers to one operation."""

    def take(self, code: str, payload: Any) -> bool:
        """Take an answer; give whether it was the last one."""
        ...

    def fail(self, error: BaseException) -> None:
        """No answer will come."""
        ...


class ServerState:
    """What this client knows of one device server."""

    def __init__(self, name: str, channel: str) -> None:
        self.name = name
        self.channel = channel
        self.epoch = ""
        """Its incarnation; empty: not heard of yet, or lost."""
        self.heard = 0.0
        """Loop time of its last beat, or of when one was first expected."""
        self.is_lost = False
        """Whether it gives no sign of life."""
        self.clock_offset = 0.0
        """Its clock minus ours, seconds."""
        self.held: list[Op] = []
        self.held_since = 0.0


class Operations:
    """Sends operations and hands out answers; lives in the link's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: str) -> None:
        self._loop = loop
        self._client = client
        self._waiting: dict[int, tuple[ServerState, Waiter]] = {}
        self._pending_servers: set[ServerState] = set()
        self._last_id = 0
        self._scheduled = False
        self._held_at_last_tick = 0
        self.wire: Wire | None = None
        self.token = ""
        """Names this process as a holder of devices; empty: it holds none."""
        self.round_trips = 0
        """Instructions sent so far."""
        self.read_ahead: ReadAhead | None = None

    def submit(self, server: ServerState, device: str, verb: str, args: Any, kwargs: Any, waiter: Waiter | None) -> int:
        """Ask for one operation; without a `waiter` no answer is wanted. Gives its id."""
        self._last_id += 1
        number = self._last_id
        if self.wire is None:
            if waiter is not None:
                waiter.fail(DeviceServerLost(f"{device}.{verb} was not sent: there is no connection to Redis"))
            return number
        if waiter is not None:
            self._waiting[number] = (server, waiter)
        if self.read_ahead is not None:
            self.read_ahead.note(number if waiter is not None else 0, verb)
        if not server.held:
            server.held_since = self._loop.time()
        server.held.append(Op(number if waiter is not None else 0, device, verb, list(args), dict(kwargs)))
        self._pending_servers.add(server)
        if not self._scheduled:
            self._scheduled = True
            self._held_at_last_tick = 0
            self._loop.call_soon(self._tick)
        return number

    def submit_apart(
        self,
        server: ServerState,
        verb: str,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        waiter: Waiter,
        token: str,
    ) -> None:
        """Ask a server itself, at once and in an instruction of its own, of which no other verb takes notice."""
        self._last_id += 1
        self._waiting[self._last_id] = (server, waiter)
        op = Op(self._last_id, "", verb, list(args), dict(kwargs))
        self._publish(server, [op], self._encoded(server, [op], [], token))

    @property
    def servers_waited_for(self) -> set[ServerState]:
        """Servers that owe answers."""
        return {server for server, _ in self._waiting.values()}

    def forget(self, number: int) -> None:
        """Ignore further answers to an operation."""
        self._waiting.pop(number, None)
        if self.read_ahead is not None:
            self.read_ahead.ended(number)

    def are_all_held(self, server: ServerState, waiters: Collection[Waiter]) -> bool:
        """Whether what is not sent yet to a server is just what these wait for."""
        held = [self._waiting[op.id][1] if op.id in self._waiting else None for op in server.held]
        return len(held) == len(waiters) and all(waiter in held for waiter in waiters)

    # ── sending ──

    def flush(self) -> None:
        """Send what is held, now."""
        servers, self._pending_servers = self._pending_servers, set()
        for server in servers:
            ops, server.held = server.held, []
            if ops:
                self._send(server, ops)

    def _tick(self) -> None:
        held = sum(len(server.held) for server in self._pending_servers)
        oldest = min((server.held_since for server in self._pending_servers), default=0.0)
        is_growing = held > self._held_at_last_tick
        if is_growing and held < _MOST_HELD and self._loop.time() - oldest < _LONGEST_HOLD:
            self._held_at_last_tick = held
            self._loop.call_soon(self._tick)
            return
        self._scheduled = False
        self.flush()

    def _send(self, server: ServerState, ops: list[Op]) -> None:
        try:
            after = self.read_ahead.attach(server, ops) if self.read_ahead else []
            data = self._encoded(server, ops, after, self.token)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._send_one_by_one(server, ops, error)
            return
        self._publish(server, ops, data)

    def _publish(self, server: ServerState, ops: list[Op], data: bytes) -> None:
        if self.wire is None:
            self._fail(ops, DeviceServerLost("not sent: there is no connection to Redis"))
            return
        try:
            future = self.wire.send("PUBLISH", server.channel, data)
        except BusError as error:
            self._fail(ops, _not_sent(error))
            return
        self.round_trips += 1
        future.add_done_callback(lambda done: self._published(server, ops, done))

    def _encoded(self, server: ServerState, ops: list[Op], after: list[str], token: str) -> bytes:
        is_safe_late = all(op.verb in _SAFE_LATE for op in ops)
        deadline = 0.0 if is_safe_late else time.time() + server.clock_offset + _START_WITHIN
        return encode(Instruction(self._client, server.epoch, ops, after, deadline, token))

    def _send_one_by_one(self, server: ServerState, ops: list[Op], error: Exception) -> None:
        """Let only that operation fail whose arguments cannot cross."""
        if len(ops) == 1:
            self._fail(ops, error)
            return
        for op in ops:
            self._send(server, [op])

    def _published(self, server: ServerState, ops: list[Op], done: "asyncio.Future[Any]") -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._fail(ops, _not_sent(error))
        elif not done.result():
            server.epoch = ""
            self._fail(ops, no_receiver(server.name))

    # ── answers ──

    def hear(self, answers: Answers) -> None:
        """Hand out answers to who waits for them; what nobody waits for came too late."""
        for answer in answers.items:
            if answer.code == "readings":
                if self.read_ahead is not None:
                    self.read_ahead.arrived(answer.id, answer.payload)
                continue
            found = self._waiting.get(answer.id)
            if found is not None:
                self._hand_out(found[1], answer)

    def _hand_out(self, waiter: Waiter, answer: Answer) -> None:
        try:
            is_last = waiter.take(answer.code, answer.payload)
        except Exception as error:  # noqa: BLE001  # an answer that cannot be read is an answer: somebody waits for it
            _log.exception("the answer to operation %d cannot be read", answer.id)
            waiter.fail(error)
            is_last = True
        if is_last:
            self.forget(answer.id)

    def fail_server(self, server: ServerState, error: BaseException) -> None:
        """Let everything fail that this server owes."""
        server.epoch = ""
        server.held.clear()
        for number in [number for number, (owed_by, _) in self._waiting.items() if owed_by is server]:
            self._fail_one(number, error)

    def fail_all(self, error: BaseException) -> None:
        """Let everything fail."""
        for server in self.servers_waited_for:
            self.fail_server(server, error)

    def _fail(self, ops: Iterable[Op], error: BaseException) -> None:
        for op in ops:
            self._fail_one(op.id, error)

    def _fail_one(self, number: int, error: BaseException) -> None:
        found = self._waiting.get(number)
        if found is not None:
            self.forget(number)
            found[1].fail(error)


def _not_sent(error: BaseException) -> DeviceServerLost:
    lost = DeviceServerLost(f"the instruction may not have been sent: {error}")
    lost.__cause__ = error
    return lost
