"""`bl.lock`: keep others from changing the queue and from starting anything, for a reason that they are told."""

import os
import secrets
from collections.abc import Callable
from typing import Any, Self

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages.around_queue import GetLock, LockAll, LockState, Unlock

__all__ = ["LOCK_KEY_VARIABLE", "BeamlineLock"]

LOCK_KEY_VARIABLE = "BEC_BLUESKY_LOCK_KEY"
"""Environment variable: a key with which clients ask, `bec-bluesky` too."""


class BeamlineLock:
    """`bl.lock("aligning")` locks, `bl.lock.release()` unlocks; `with bl.lock("aligning"):` does both.

    Looking is never locked, and stopping neither.
    """

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask
        self.key = os.environ.get(LOCK_KEY_VARIABLE, "")
        """With it this client asks for everything; who has the same one may work as well."""

    def __call__(self, note: str = "", *, queue: bool = True, environment: bool = True, key: str | None = None) -> Self:
        """Lock the queue (its edits), the environment (starting runs, scripts), or both; `note` tells others why.

        Without `key` one is made up: it is in `bl.lock.key`. Raises RefusedError if somebody else has locked it.
        """
        key = key or self.key or secrets.token_hex(8)
        self._ask(LockAll(key=key, queue=queue, environment=environment, note=note))
        self.key = key
        return self

    def release(self, key: str | None = None) -> None:
        """Unlock, with this client's key or another one, also the emergency key."""
        key = key or self.key
        if not key:
            raise BadArgumentError("this client has no key of a lock: give `key`, that one or the emergency key")
        self._ask(Unlock(key=key))
        self.key = os.environ.get(LOCK_KEY_VARIABLE, "")

    @property
    def state(self) -> LockState:
        """What is locked now, by whom and why."""
        return self._ask(GetLock())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = self.state
        parts = " and ".join(name for name in ("queue", "environment") if getattr(state, name))
        return f"{parts} locked by {state.user}: {state.note}" if parts else "nothing is locked"
