"""This process's link to the device servers."""

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Self

from bec_bluesky.bus import Address, parse
from bec_bluesky.errors import DeviceServerLost, DeviceTimeout, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import FREE_VERBS, Answers, Beat
from bec_bluesky.proxy._blocking import BlockingCaller
from bec_bluesky.proxy._claims import Claims, Holding
from bec_bluesky.proxy._connection import Connection
from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._directory import Devices, Directory
from bec_bluesky.proxy._failure import error_from
from bec_bluesky.proxy._operations import Operations, ServerState, Waiter
from bec_bluesky.proxy._panic import StopReport, stop_all
from bec_bluesky.proxy._reply import Promise, QuietReply, Reply
from bec_bluesky.proxy._subscription import Subscription

__all__ = ["DeviceLink"]

_log = logger(__name__)
_READY_PERIOD = 0.02
"""Seconds between looks at whether a lost connection is there again."""
_LOOK_PERIOD = 0.1
"""Seconds between looks at the clock: do all servers live?"""
_LOST_AFTER = 0.9
"""Seconds without a beat (there are ten a second) after which a server counts as lost."""


class DeviceLink:
    """Knows all device servers of a beamline; one for each client process, living in one event loop.

    Devices may be used from the loop's thread (plans of a RunEngine with that loop) and from others. Whatever is under
    way when a server dies, restarts or hangs fails with DeviceServerLost within about a second; nothing is sent again.
    """

    def __init__(
        self, address: Address, beamline: str, loop: asyncio.AbstractEventLoop, *, is_light: bool = False
    ) -> None:
        self.address = address
        self.beamline = beamline
        self.client = uuid.uuid4().hex
        self.loop = loop
        self.make_error = functools.partial(error_from, may_import=not is_light)
        self.directory = Directory(self)
        self.devices: Mapping[str, RemoteDevice] = Devices(self.directory)
        """Top-level devices by name; `devices["samx.velocity"]` works too."""
        self.operations = Operations(loop, self.client)
        self.claims = Claims(self)
        self.does_steps = False
        """Whether the RunEngine knows the message `remote_step` (`_step.py`)."""
        self._thread = 0
        self._looking_thread = 0
        """The thread that may only look, if there is one."""
        self._servers: dict[str, ServerState] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._connection = Connection(self)
        self._blocking = BlockingCaller(address, beamline, self.client)
        self._look: asyncio.TimerHandle | None = None
        self._look_due = 0.0

    # ── life ──

    @classmethod
    async def connect(
        cls,
        address: Address | str,
        beamline: str,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        is_light: bool = False,
    ) -> Self:
        """Connect in `loop`, which may run in another thread (a RunEngine's); raises BusError if there is no Redis.

        No device server has to be there: devices appear when they are announced. A light link never imports a library
        for the sake of an error: what is of a class that nobody here imported comes as RemoteError.
        """
        running = asyncio.get_running_loop()
        link = cls(
            parse(address) if isinstance(address, str) else address, beamline, loop or running, is_light=is_light
        )
        await link._in_loop(link._open())
        return link

    async def close(self) -> None:
        """Let go; what is under way fails with DeviceServerLost."""
        await self._in_loop(self._close())
        self._blocking.close()

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection, and every known server was heard of since it was made or is lost for now."""
        servers = {self.directory.info(name).server for name in self.directory.names()}
        states = [self.server(server) for server in servers]
        return self.operations.wire is not None and all(state.epoch or state.is_lost for state in states)

    async def wait_until_ready(self, timeout: float) -> bool:
        """Wait, `timeout` seconds at most, for what a lost Redis interrupted; False if it is not there again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.is_ready:  # noqa: ASYNC110  # two states of others, and seldom
                    await asyncio.sleep(_READY_PERIOD)
        return self.is_ready

    async def _in_loop(self, coroutine: Any) -> None:
        if asyncio.get_running_loop() is self.loop:
            await coroutine
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def _open(self) -> None:
        self._thread = threading.get_ident()
        await self._connection.open()
        self._look_again()

    async def _close(self) -> None:
        await self.claims.close()
        await self._connection.close()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self.operations.fail_all(DeviceServerLost("the link to the device servers was closed"))

    # ── asking ──

    @property
    def is_in_loop_thread(self) -> bool:
        """Whether the caller runs in the thread of the link's loop."""
        return threading.get_ident() == self._thread

    def device(self, path: str) -> RemoteDevice:
        """Give a device or a part of one; raises UnknownDeviceError."""
        return self.directory.device(path)

    def request(self, path: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Ask for a verb of a device; give an awaitable of its result.

        In a thread without a running loop it is a `concurrent.futures.Future` that may be awaited in a loop. It raises
        what the device raised, or DeviceServerLost.
        """
        if self.is_in_loop_thread:
            future: asyncio.Future[Any] = self.loop.create_future()
            self.submit(path, verb, args, kwargs, Reply(future, self.make_error))
            return future
        promise = Promise()
        self.submit(path, verb, args, kwargs, Reply(promise, self.make_error))
        try:
            return asyncio.wrap_future(promise, loop=asyncio.get_running_loop())
        except RuntimeError:
            return promise

    def ask(self, path: str, verb: str, *args: Any, timeout: float = 5.0, **kwargs: Any) -> Any:
        """Ask and wait in this thread for the result, `timeout` seconds at most (DeviceTimeout).

        It may even be the loop's thread, which then does nothing else for a round trip: for plain code inside plans.
        """
        if self.is_in_loop_thread:
            self.operations.flush()
            if self.operations.read_ahead is not None:
                self.operations.read_ahead.note(0, verb)
            server, token = self._server_of(path), self.operations.token
            return self._blocking.ask(server, path, verb, args, kwargs, min(timeout, 1.0), token=token)
        promise: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.submit(path, verb, args, kwargs, Reply(promise, self.make_error))
        try:
            return promise.result(timeout)
        except concurrent.futures.TimeoutError:
            if promise.done():
                raise
            raise DeviceTimeout(f"{path}.{verb}: no answer within {timeout:g} s") from None

    def request_quietly(
        self, path: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, timeout: float
    ) -> Any:
        """Ask for a verb whose loss must not hide another error: a lost server or no answer in time gives None."""
        future: Any = self.loop.create_future() if self.is_in_loop_thread else Promise()
        reply = QuietReply(future, f"{path}.{verb}")
        self.call_in_loop(self.operations.flush)
        self.submit(path, verb, args, kwargs, reply)
        self.call_in_loop(self.operations.flush)
        self.call_in_loop(self.loop.call_later, timeout, reply.give_up)
        return future

    def submit(self, path: str, verb: str, args: Any, kwargs: Any, waiter: Waiter | None) -> None:
        """Ask for a verb; the answers go to `waiter`."""
        if self._looking_thread and verb not in FREE_VERBS and threading.get_ident() == self._looking_thread:
            raise RefusedError(f"{path}.{verb} is not carried out here: only looking at devices is", "only_looking")
        server = self._server_of(path)
        self.call_in_loop(self._submit, server, path, verb, args, kwargs, waiter)

    @contextlib.contextmanager
    def only_looking(self) -> Iterator[None]:
        """Refuse, while the block lasts, whatever this thread asks of devices but to look and to stop."""
        self._looking_thread = threading.get_ident()
        try:
            yield
        finally:
            self._looking_thread = 0

    def submit_to_server(self, server: str, verb: str, args: Any, waiter: Waiter | None) -> int:
        """Ask a server itself, in the loop, for something that must keep its order with the verbs of devices.

        Gives the id of the operation.
        """
        return self._submit(self.server(server), "", verb, args, {}, waiter)

    def call_in_loop(self, function: Any, *args: Any) -> None:
        """Call in the loop's thread: now if this is it."""
        if self.is_in_loop_thread:
            function(*args)
        else:
            self.loop.call_soon_threadsafe(function, *args)

    def _submit(self, server: ServerState, path: str, verb: str, args: Any, kwargs: Any, waiter: Waiter | None) -> int:
        number = self.operations.submit(server, path, verb, args, kwargs, waiter)
        if self._look is None:
            self._look_due = self.loop.time() + _LOOK_PERIOD
            server.heard = server.heard or self.loop.time()
            self._look = self.loop.call_at(self._look_due, self._look_at_beats)
        return number

    def _server_of(self, path: str) -> ServerState:
        return self.server(self.directory.info(path).server)

    @contextlib.asynccontextmanager
    async def holding(self, devices: Iterable[str], holder: str, *, user: str = "") -> AsyncIterator[None]:
        """Hold devices, with their parts and what they move, while the block lasts; others can look at and stop them.

        `holder` is said to others who are refused. What else this link changes meanwhile is held too. Raises DeviceHeld
        if somebody else holds one of them, UnknownDeviceError.
        """
        holding = Holding(tuple(devices), holder, {"user": user} if user else {})
        await self._in_loop(self.claims.begin(holding))
        try:
            yield
        finally:
            await self._in_loop(self.claims.end(holding))

    async def stop_all(self, *, timeout: float = 1.5) -> StopReport:
        """Stop every movable on every device server (panic stop), in whichever loop this is awaited.

        It goes over a connection of its own and waits for nothing of this link, `timeout` seconds at most.
        """
        return await stop_all(self.address, self.beamline, timeout=timeout)

    def take_reading(self, device: RemoteDevice) -> Any:
        """Give a reading that was taken ahead and is still true, or an awaitable of one; None if there is none."""
        ahead = self.operations.read_ahead
        return ahead.take(device) if ahead is not None and self.is_in_loop_thread else None

    # ── subscriptions, in the loop ──

    def watch(self, device: RemoteDevice, subscription: Subscription) -> None:
        """Have the server push readings of a device."""
        self.call_in_loop(self._watch, device.path, subscription)

    def unwatch(self, device: RemoteDevice, subscription: Subscription) -> None:
        """End that."""
        self.call_in_loop(self._unwatch, device.path, subscription)

    def _watch(self, path: str, subscription: Subscription) -> None:
        self._subscriptions[path] = subscription
        if not subscription.operation:
            subscription.asked(self.loop.create_future())
            subscription.operation = self.operations.submit(
                self._server_of(path), path, "subscribe", (), {}, subscription
            )

    def _unwatch(self, path: str, subscription: Subscription) -> None:
        if self._subscriptions.get(path) is subscription:
            del self._subscriptions[path]
        if subscription.operation:
            self.operations.forget(subscription.operation)
            self.operations.submit(self._server_of(path), path, "clear_sub", (subscription.operation,), {}, None)
            subscription.operation = 0

    # ── servers, in the loop ──

    def is_heard(self, server: str) -> bool:
        """Whether a server gave a sign of life, and has not been lost since."""
        state = self._servers.get(server)
        return state is not None and bool(state.epoch)

    def server(self, name: str) -> ServerState:
        """Give what is known of a server."""
        state = self._servers.get(name)
        if state is None:
            state = self._servers[name] = ServerState(name, self._connection.instructions(name))
            state.heard = self.loop.time()
        return state

    def servers(self) -> list[ServerState]:
        """Give all servers that were heard of, or announced devices."""
        for name in self.directory.names():
            self.server(self.directory.info(name).server)
        return list(self._servers.values())

    def hear_answers(self, answers: Answers) -> None:
        """Hand out answers."""
        self.operations.hear(answers)

    def hear_beat(self, beat: Beat) -> None:
        """Note that a server lives; another incarnation knows nothing of what was asked of the last one."""
        state = self.server(beat.server)
        state.heard = self.loop.time()
        state.is_lost = False
        offset = beat.time - time.time()
        if state.epoch == beat.epoch:
            # the least delayed beat tells the offset best; let go slowly, since clocks drift
            state.clock_offset = max(offset, state.clock_offset - 0.001)
            return
        if state.epoch:
            self.operations.fail_server(
                state, DeviceServerLost(f"device server {state.name!r} was restarted; what it was doing is unknown")
            )
        state.epoch = beat.epoch
        state.clock_offset = offset
        self.claims.meet(state)
        self._connection.meet_again(state.name)

    def resume_subscriptions(self, server: str) -> None:
        """Ask a server that is back for what it pushed before."""
        for path, subscription in list(self._subscriptions.items()):
            if path in self.devices and self.directory.info(path).server == server:
                self._watch(path, subscription)

    def lose_all(self, error: BaseException) -> None:
        """Redis is gone, and with it every answer that is under way."""
        lost = DeviceServerLost(f"the answer cannot be heard: {error}")
        lost.__cause__ = error
        for state in self._servers.values():
            self.operations.fail_server(state, lost)

    def _look_again(self) -> None:
        self._look_due = self.loop.time() + _LOOK_PERIOD
        self._look = self.loop.call_at(self._look_due, self._look_at_beats)

    def _look_at_beats(self) -> None:
        now = self.loop.time()
        was_blocked = now - self._look_due > 3 * _LOOK_PERIOD  # this loop stood still: beats may wait in the socket
        for state in list(self._servers.values()):  # other threads may meet new ones
            if was_blocked or self.operations.wire is None:
                state.heard = now
            elif now - state.heard > _LOST_AFTER:
                self._lose(state)
        self._look_again()

    def _lose(self, state: ServerState) -> None:
        """A server gives no sign of life: whatever it owes fails, and its devices are shown as disconnected."""
        reason = f"device server {state.name!r} gave no sign of life for {_LOST_AFTER:g} s"
        self.operations.fail_server(state, DeviceServerLost(reason))
        if not state.is_lost:
            _log.warning("%s: its devices cannot be used until it is back", reason)
            state.is_lost = True
            self.directory.lose_server(state.name, reason)
