"""Calls of devices' methods that are under way, each with its limit: one that does not return costs nobody else.

Those of ophyd are made one after the other in a thread; behind one that does not return, the rest is made in another
thread. A call of ophyd-async that takes too long is cancelled.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.errors import DeviceTimeout

__all__ = ["Call", "Calls", "Outcome"]

_PERIOD = 0.25
"""Seconds between two looks for calls that take too long."""
_POST_PERIOD = 0.002
"""Seconds after which outcomes in a thread are told though it has more to do."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to make in a thread."""

    found: Found
    verb: str
    make: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave; `number` is its place among those that were made together."""

    number: int
    result: Any
    error: BaseException | None = None


class Calls:
    """Makes calls and gives up those that take too long; lives in the service's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns: set[_Turn] = set()
        self._awaited: dict[asyncio.Task[Any], _Awaited] = {}
        self.hanging: dict[str, str] = {}
        """{device: the verb of its call that has not returned from its thread}"""
        self.on_hang: Callable[[Entry, str], None] = lambda entry, reason: None
        """Told of a device whose call was given up because it took too long."""

    # ── making calls ──

    async def within(self, found: Found, verb: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Await a call of ophyd-async; raises what it raises, or why it was given up."""
        task = asyncio.current_task()
        assert task is not None
        awaited = self._awaited[task] = _Awaited(found, verb, time.monotonic())
        try:
            return await coroutine
        except asyncio.CancelledError:
            if awaited.error is None:
                raise
            raise awaited.error from None
        finally:
            del self._awaited[task]

    async def in_thread(
        self,
        threads: ThreadPoolExecutor,
        calls: list[Call],
        tell: Callable[[list[Outcome]], None],
        more: Callable[[], list[Call]] = list,
    ) -> None:
        """Make calls in a thread; `tell` gets their outcomes here in the loop, in their order, perhaps in pieces.

        `more` is asked in the thread, when all have returned, for calls to make as well.
        """
        first = 0
        while first < len(calls):
            turn = _Turn(self._loop, calls, first, tell, more)
            more = list
            self._turns.add(turn)
            threads.submit(turn.run)
            try:
                given_up = await turn.ended
            finally:
                self._turns.discard(turn)
            if given_up is None:
                return
            number, error = given_up
            self._hang(turn, calls[number])
            tell([*turn.take_outcomes(), Outcome(number, None, error)])
            first = number + 1

    def _hang(self, turn: "_Turn", call: Call) -> None:
        """Note that a thread has not returned, until it does."""
        name = call.found.entry.name
        if not turn.has_returned:
            self.hanging[name] = call.verb
            turn.on_return = lambda: self.hanging.pop(name, None)

    # ── giving up ──

    def give_up(self, entry: Entry, error: BaseException) -> None:
        """Let every call of this device fail that is under way."""
        for task, awaited in list(self._awaited.items()):
            if awaited.found.entry is entry:
                awaited.give_up(task, error)
        for turn in list(self._turns):
            call = turn.current
            if call is not None and call.found.entry is entry:
                turn.leave(error)

    async def watch(self) -> None:
        """Give up calls that take longer than their devices' `call_timeout`, for ever."""
        while True:
            await asyncio.sleep(_PERIOD)
            now = time.monotonic()
            for task, awaited in list(self._awaited.items()):
                if (limit := _passed(awaited.found, now - awaited.since)) is not None:
                    awaited.give_up(task, _timeout(awaited.found, awaited.verb, limit))
                    self.on_hang(awaited.found.entry, f"its {awaited.verb} did not return within {limit:g} s")
            for turn in list(self._turns):
                call = turn.current
                if call is not None and (limit := _passed(call.found, now - turn.since)) is not None:
                    turn.leave(_timeout(call.found, call.verb, limit))
                    self.on_hang(call.found.entry, f"its {call.verb} did not return within {limit:g} s")


def _passed(found: Found, duration: float) -> float | None:
    """Give the limit of a device's calls if one has taken longer."""
    limit = found.entry.spec.call_limit
    return limit if limit is not None and duration > limit else None


def _timeout(found: Found, verb: str, limit: float) -> DeviceTimeout:
    return DeviceTimeout(
        f"{found.path}.{verb} did not return within {limit:g} s (`call_timeout` in the device file): the device hangs"
    )


@dataclass(eq=False, slots=True)
class _Awaited:
    """A call of ophyd-async that is under way."""

    found: Found
    verb: str
    since: float
    error: BaseException | None = None
    """Why it was given up."""

    def give_up(self, task: "asyncio.Task[Any]", error: BaseException) -> None:
        if self.error is None:
            self.error = error
            task.cancel()


class _Turn:
    """A thread that makes calls one after the other, until it is left behind with one that does not return."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: list[Call],
        first: int,
        tell: Callable[[list[Outcome]], None],
        more: Callable[[], list[Call]],
    ) -> None:
        self._loop = loop
        self._calls = calls
        self._first = first
        self._tell = tell
        self._more = more
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._is_left = False
        self.current: Call | None = None
        self._number = first
        self.since = 0.0
        self.ended: asyncio.Future[tuple[int, BaseException] | None] = loop.create_future()
        """None when all calls were made, else the number of the call that was given up, and why."""
        self.has_returned = False
        self.on_return: Callable[[], object] = lambda: None
        """Told when the call returns that was given up."""

    # ── in the thread ──

    def run(self) -> None:
        try:
            self._make_all()
        finally:
            self._loop.call_soon_threadsafe(self._returned if self._is_left else self._end)

    def _make_all(self) -> None:
        posted = time.monotonic()
        for number in itertools.count(self._first):
            if number == len(self._calls):
                self._calls += self._more()
                self._more = list
            if number == len(self._calls):
                break
            call = self._calls[number]
            self._number, self.since, self.current = number, time.monotonic(), call
            try:
                outcome = Outcome(number, call.make())
            except BaseException as error:  # noqa: BLE001  # whatever a device raises is the answer
                outcome = Outcome(number, None, error)
            with self._lock:
                self.current = None
                if self._is_left:
                    return
                self._outcomes.append(outcome)
            if time.monotonic() - posted > _POST_PERIOD:
                posted = time.monotonic()
                self._loop.call_soon_threadsafe(self._post)

    # ── in the loop ──

    def take_outcomes(self) -> list[Outcome]:
        """Give what was not told yet."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def leave(self, error: BaseException) -> None:
        """Leave the thread to the call that it makes, if that has not returned meanwhile."""
        with self._lock:
            if self.current is None or self._is_left:
                return
            self._is_left = True
            number = self._number
        self.ended.set_result((number, error))

    def _returned(self) -> None:
        self.has_returned = True
        self.on_return()

    def _post(self) -> None:
        outcomes = self.take_outcomes()
        if outcomes and not self._is_left:
            self._tell(outcomes)

    def _end(self) -> None:
        if not self.ended.done():
            self._post()
            self.ended.set_result(None)
