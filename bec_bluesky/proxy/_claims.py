"""What this process holds of devices: a token in its instructions, renewed as long as the link lives."""

import asyncio
import contextlib
import functools
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bec_bluesky.errors import DeviceServerLost, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.proxy._operations import ServerState
from bec_bluesky.proxy._reply import QuietReply, Reply

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["Claims", "Holding"]

_log = logger(__name__)
_LIFETIME = 60.0
"""Seconds for which devices stay held if nothing more is heard of this process; a dead one is noticed sooner."""
_RENEWAL_PERIOD = 15.0
"""Seconds."""
_MOST_OWED = 1_000
"""Tokens of which a lost server is told when it is back; what older ones hold ends by itself after their lifetime."""
_LONGEST_RELEASE = 1.0
"""Seconds; a server that is silent for longer is lost anyway, or busy: then it is told once more."""


@dataclass(eq=False)
class Holding:
    """Devices that are held for one purpose, by their paths."""

    devices: tuple[str, ...]
    text: str
    """Who holds them, for people: `grid_scan (item 3f2a9c01, anna)`."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """`item_id`, `user` and `scan_id`, as far as there are."""


class Claims:
    """Holds devices for this link, on all servers; lives in the link's loop.

    All holdings share one token, so that they do not get into each other's way. While there is one, whatever this link
    changes is held too, until the last one ends. A server that was restarted is asked again.
    """

    def __init__(self, link: "DeviceLink") -> None:
        self._link = link
        self._holdings: list[Holding] = []
        self._renewal: asyncio.TimerHandle | None = None
        self._told: set[ServerState] = set()
        """Servers that may know this token."""
        self._owed: dict[ServerState, dict[str, None]] = {}
        """Earlier tokens of which a server may not have heard that they hold nothing any more."""
        self._reminders: dict[ServerState, asyncio.TimerHandle] = {}
        """When a server that did not answer is told of these once more."""

    async def begin(self, holding: Holding) -> None:
        """Hold devices; raises DeviceHeld (then nothing more is held than before) or UnknownDeviceError.

        What is on a server that is lost is held when that is back.
        """
        for path in holding.devices:
            self._link.directory.info(path)
        if not self._holdings:
            self._link.operations.flush()
            self._link.operations.token = f"{holding.facts.get('item_id') or self._link.client}.{uuid.uuid4().hex}"
            self._renewal = self._link.loop.call_later(_RENEWAL_PERIOD, self._renew)
        self._holdings.append(holding)
        try:
            claims = [self._claim(state) for state in self._link.servers() if not state.is_lost]
            outcomes = await asyncio.gather(*claims, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, DeviceServerLost):
                    raise outcome
        except BaseException:
            await self.end(holding)
            raise

    async def end(self, holding: Holding) -> None:
        """Let go of what no other holding wants; it is free when this returns, on every server that answers."""
        operations = self._link.operations
        operations.flush()  # what was asked for before is done by the holder
        self._holdings.remove(holding)
        releases: list[asyncio.Future[Any]] = []
        if self._holdings:
            kept = {path for each in self._holdings for path in each.devices}
            for state in self._told:
                gone = [path for path in self._on(state, holding) if path not in kept]
                releases += [self._release(state, operations.token, gone)] if gone else []
        else:
            for state in self._link.servers():
                # one that seemed lost may have been back already, and hold for this token what was used meanwhile
                self._owe(state, operations.token)
                releases += self._settle(state) if state in self._told else []
            self._told.clear()
            operations.token = ""
            if self._renewal is not None:
                self._renewal.cancel()
                self._renewal = None
        await asyncio.gather(*releases, return_exceptions=True)

    async def close(self) -> None:
        """Let go of everything."""
        for holding in list(self._holdings):
            await self.end(holding)
        while self._reminders:
            self._reminders.popitem()[1].cancel()

    def describe(self, **facts: Any) -> None:
        """Tell the servers more of what devices are held for: `scan_id=`."""
        if self._holdings:
            self._holdings[0].facts |= facts
            for state in self._told:
                self._ask(state, "renew", [self._holdings[0].text, _LIFETIME]).add_done_callback(_noted)

    def meet(self, state: ServerState) -> None:
        """Tell a server that may know nothing of it (any more) what is held, and what is not."""
        self._settle(state)
        if self._holdings:
            self._claim(state).add_done_callback(_noted)

    def _renew(self) -> None:
        """Claim again rather than renew: whatever happened meanwhile, it is right afterwards."""
        for state in self._link.servers():
            if not state.is_lost:
                self.meet(state)
        self._renewal = self._link.loop.call_later(_RENEWAL_PERIOD, self._renew)

    # ── instructions ──

    def _claim(self, state: ServerState) -> "asyncio.Future[Any]":
        """Claim on a server; without devices it learns who this is, since a plan may use what nobody knew of before."""
        self._settle(state)
        self._told.add(state)
        paths = dict.fromkeys(path for holding in self._holdings for path in self._on(state, holding))
        return self._ask(state, "claim", [list(paths), self._holdings[0].text, _LIFETIME])

    def _ask(self, state: ServerState, verb: str, args: list[Any]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._link.loop.create_future()
        operations, reply = self._link.operations, Reply(future, self._link.make_error)
        operations.submit_apart(state, verb, args, self._holdings[0].facts, reply, operations.token)
        return future

    def _release(self, state: ServerState, token: str, *devices: list[str]) -> "asyncio.Future[Any]":
        """Release devices, or everything; gives None if the server does not answer."""
        future: asyncio.Future[Any] = self._link.loop.create_future()
        reply = QuietReply(future, f"release on device server {state.name!r}")
        self._link.operations.submit_apart(state, "release", devices, {}, reply, token)
        self._link.loop.call_later(_LONGEST_RELEASE, reply.give_up)
        return future

    def _owe(self, state: ServerState, token: str) -> None:
        """Note that a server must be told that a token holds nothing any more."""
        owed = self._owed.setdefault(state, {})
        owed[token] = None
        if len(owed) > _MOST_OWED:
            del owed[next(iter(owed))]

    def _settle(self, state: ServerState) -> "list[asyncio.Future[Any]]":
        """Release everything by tokens that are not in use any more."""
        reminder = self._reminders.pop(state, None)
        if reminder is not None:
            reminder.cancel()
        releases: list[asyncio.Future[Any]] = []
        for token in self._owed.get(state, ()):
            release = self._release(state, token)
            release.add_done_callback(functools.partial(self._settled, state, token))
            releases.append(release)
        return releases

    def _settled(self, state: ServerState, token: str, release: "asyncio.Future[Any]") -> None:
        if release.cancelled() or (release.exception() is None and release.result() is None):
            if state.epoch and state not in self._reminders:  # or it is told when it is met again
                self._reminders[state] = self._link.loop.call_later(_LONGEST_RELEASE, self._settle, state)
            return
        self._owed[state].pop(token, None)

    def _on(self, state: ServerState, holding: Holding) -> list[str]:
        """Give those devices of a holding that a server has."""
        found: list[str] = []
        for path in holding.devices:
            with contextlib.suppress(LookupError):  # it was taken out of the device file
                if self._link.directory.info(path).server == state.name:
                    found.append(path)
        return found


def _noted(done: "asyncio.Future[Any]") -> None:
    error = None if done.cancelled() else done.exception()
    if isinstance(error, RefusedError):
        _log.warning("what was held is held by somebody else now: %s", error)
    elif error is not None:
        _log.debug("a claim is made again later: %s", error)
