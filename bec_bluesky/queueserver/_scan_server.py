"""Asking the scan server for a caller of this interface, in that caller's name."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.bus import Caller
from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.around_queue import GetLock
from bec_bluesky.messages.queue import RequestBody
from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver._mirror import Mirror
from bec_bluesky.queueserver._status import manager_state, status_of

__all__ = ["ScanServerAccess"]

_PATIENCE = 30.0
"""Seconds for which an answer is awaited; a batch of plans takes its time."""


@dataclass
class ScanServerAccess:
    """What the methods share: how to ask, what is known, whom to tell."""

    caller: Caller
    mirror: Mirror
    feed: Feed
    stop_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client asked that the manager stop."""
    foreground: str = ""
    """Id of the task for which the queue waits."""
    pause_asked_of: str = ""
    """Item that is to pause at its next checkpoint."""

    async def ask(
        self, body: RequestBody, params: Mapping[str, Any] | None = None, *, answer_within: float | None = None
    ) -> Any:
        """Ask in the name of whom the parameters name; raises RefusedError with the text that clients know."""
        given = params or {}
        lock_key = given.get("lock_key")
        if lock_key is not None and not (isinstance(lock_key, str) and lock_key):
            raise BadArgumentError(f"Lock key must be a non-empty string or None: lock_key = {lock_key!r}")
        user = given.get("user")
        try:
            return await self.caller.ask(
                body,
                timeout=_PATIENCE,
                user=user if isinstance(user, str) else None,
                user_group=str(given.get("user_group", "")),
                lock_key=lock_key or "",
                host="",  # it is not told
                answer_within=answer_within,
            )
        except RefusedError as error:
            if error.code == "locked" and "Invalid lock key" not in str(error):
                raise RefusedError(f"Invalid lock key: \n{error}", "locked") from None
            raise

    async def change(
        self, body: RequestBody, params: Mapping[str, Any] | None = None, *, answer_within: float | None = None
    ) -> Any:
        """Ask for a change; when this returns, the status tells of it."""
        try:
            return await self.ask(body, params, answer_within=answer_within)
        finally:
            await self.mirror.refresh()

    async def check_key(self, params: Mapping[str, Any], part: str) -> None:
        """Raise RefusedError if a part, environment or queue, is locked and the request does not have its key."""
        lock = None if self.mirror.status is None else self.mirror.status.lock
        if lock is not None and getattr(lock, part):
            key = params.get("lock_key")
            await self.ask(GetLock(key=key if isinstance(key, str) and key else "-"))

    def user_of(self, params: Mapping[str, Any]) -> tuple[str, str]:
        """Give user and group of a request; raises BadArgumentError if it names none."""
        if "user_group" not in params:
            raise BadArgumentError("Incorrect request format: user group is not specified")
        if "user" not in params:
            raise BadArgumentError("Incorrect request format: user name is not specified")
        return str(params["user"]), str(params["user_group"])

    @property
    def state(self) -> str:
        """The manager's state, in bluesky-queueserver's words."""
        return manager_state(self.mirror.status, bool(self.foreground))

    @property
    def has_environment(self) -> bool:
        status = self.mirror.status
        return status is not None and status.environment == "open"

    def require_environment(self) -> None:
        """Raise RefusedError unless the environment is open."""
        if not self.has_environment:
            raise RefusedError("RE Worker environment does not exist.", "no_environment")

    def require_idle(self) -> None:
        """Raise RefusedError if anything goes on."""
        if self.state != "idle":
            raise RefusedError("RE Manager is busy.", "not_idle")

    def status(self) -> dict[str, Any]:
        """Give the status."""
        status = self.mirror.status
        running = None if status is None else status.running
        if running is None or running.item_id != self.pause_asked_of or (status and status.run_state == "paused"):
            self.pause_asked_of = ""
        return status_of(self.mirror, foreground=bool(self.foreground), pause_pending=bool(self.pause_asked_of))
