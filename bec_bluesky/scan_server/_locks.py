"""A lock on the environment or the queue: whoever has its key goes on, others are told who locked it and why."""

import hashlib
import hmac
import os
import secrets
import time

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import AROUND
from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.around_queue import (
    GetLock,
    LockAll,
    LockState,
    ReloadPlans,
    RunFunction,
    RunScript,
    SetEnvironment,
    SetRules,
    Unlock,
)
from bec_bluesky.messages.queue import (
    AddItem,
    AddItems,
    ClearQueue,
    ControlRun,
    EditItem,
    ExecuteItem,
    HoldItem,
    MoveItems,
    ReleaseItem,
    RemoveItem,
    RemoveItems,
    Request,
    SetQueueMode,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server._surroundings import Surroundings

__all__ = ["EMERGENCY_KEYS", "Locks"]

EMERGENCY_KEYS = ("BEC_BLUESKY_EMERGENCY_LOCK_KEY", "QSERVER_EMERGENCY_LOCK_KEY_FOR_SERVER")
"""Environment variables; the first that is set holds a key that unlocks whatever is locked."""
_FIELD = "lock"
_OF_ENVIRONMENT = (SetEnvironment, StartQueue, ExecuteItem, RunScript, RunFunction, ReloadPlans)
_OF_QUEUE = (
    AddItem,
    AddItems,
    EditItem,
    MoveItems,
    RemoveItem,
    RemoveItems,
    ClearQueue,
    HoldItem,
    ReleaseItem,
    SetRules,
)


class _Locked(msgspec.Struct, frozen=True):
    """What is kept: never the key itself."""

    state: LockState
    salt: bytes
    digest: bytes


class Locks:
    """Keeps the one lock; it outlives restarts."""

    def __init__(self, bus: Bus, around: Surroundings) -> None:
        self._bus, self._around = bus, around
        self._locked: _Locked | None = None
        self._emergency = next((os.environ[name] for name in EMERGENCY_KEYS if os.environ.get(name)), "")

    async def load(self) -> None:
        """Take up the lock that an earlier scan server kept."""
        kept = await self._bus.field(AROUND, _FIELD)
        if kept:
            self._locked = msgspec.msgpack.decode(kept, type=_Locked)
            self._around.lock = self._locked.state

    def check(self, request: Request) -> None:
        """Raise RefusedError if what is asked for is locked with another key. Stopping never is."""
        state = self._around.lock
        if state is None or self._fits(request.lock_key):
            return
        body = request.body
        needs_environment = (
            isinstance(body, _OF_ENVIRONMENT)
            or (isinstance(body, ControlRun) and body.action == "resume")
            or (isinstance(body, StopQueue) and body.cancel)
            or (isinstance(body, SetQueueMode) and body.autostart)
        )
        needs_queue = isinstance(body, _OF_QUEUE) or (isinstance(body, SetQueueMode) and _edits_mode(body))
        starts = isinstance(body, AddItem | AddItems) and body.start
        if (state.environment and (needs_environment or starts)) or (state.queue and needs_queue):
            raise RefusedError(self._text(state), "locked")

    async def lock(self, asked: LockAll, request: Request) -> LockState:
        """Lock; with the key of the present lock it is changed."""
        if not asked.key:
            raise BadArgumentError("A lock needs a key: a text that is not empty")
        if not asked.environment and not asked.queue:
            raise BadArgumentError("Say what to lock: the environment, the queue, or both")
        if self._locked is not None and not self._fits(asked.key):
            raise RefusedError(
                f"RE Manager was locked with a different key: \n{self._told(self._locked.state)}", "locked"
            )
        state = LockState(
            environment=asked.environment,
            queue=asked.queue,
            user=request.user,
            note=asked.note,
            time=time.time(),
            has_emergency_key=bool(self._emergency),
        )
        salt = secrets.token_bytes(16)
        await self._keep(_Locked(state, salt, _digest(salt, asked.key)))
        return state

    async def unlock(self, asked: Unlock, request: Request) -> LockState:
        """Take the lock away."""
        if self._locked is not None:
            is_emergency = bool(self._emergency) and hmac.compare_digest(self._emergency.encode(), asked.key.encode())
            if not is_emergency and not self._fits(asked.key):
                raise RefusedError(self._text(self._locked.state), "locked")
            await self._keep(None)
        return self._nothing()

    async def get(self, asked: GetLock, request: Request) -> LockState:
        """Tell what is locked; a key that is given must fit."""
        if self._locked is None:
            return self._nothing()
        if asked.key and not self._fits(asked.key):
            raise RefusedError(self._text(self._locked.state), "locked")
        return self._locked.state

    def _nothing(self) -> LockState:
        return LockState(has_emergency_key=bool(self._emergency))

    def _fits(self, key: str) -> bool:
        locked = self._locked
        return locked is not None and bool(key) and hmac.compare_digest(_digest(locked.salt, key), locked.digest)

    async def _keep(self, locked: _Locked | None) -> None:
        await self._bus.put_raw_field(AROUND, _FIELD, b"" if locked is None else msgspec.msgpack.encode(locked))
        self._locked = locked
        self._around.lock = None if locked is None else locked.state

    def _text(self, state: LockState) -> str:
        return f"Invalid lock key: \n{self._told(state)}"

    def _told(self, state: LockState) -> str:
        parts = " and ".join(name for name in ("environment", "queue") if getattr(state, name))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.time))
        note = f": {state.note}" if state.note else ""
        return (
            f"the {parts} is locked by {state.user or 'somebody'} since {since}{note}; give the lock's key, or unlock"
        )


def _edits_mode(body: SetQueueMode) -> bool:
    """Tell whether more than autostart is asked for: turning that off is a way of stopping."""
    return body.loop is not None or body.ignore_failures is not None


def _digest(salt: bytes, key: str) -> bytes:
    return hashlib.scrypt(key.encode(), salt=salt, n=2**10, r=8, p=1)
