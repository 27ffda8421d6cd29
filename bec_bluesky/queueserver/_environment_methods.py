"""Methods about the environment, locks, and the manager itself."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.around_queue import GetLock, LockAll, LockState, SetEnvironment, Unlock
from bec_bluesky.queueserver._mirror import uid_of
from bec_bluesky.queueserver._scan_server import ScanServerAccess

__all__ = ["EnvironmentMethods"]

_STOP_OPTIONS = ("safe_off", "safe_on")


class EnvironmentMethods:
    """`environment_…`, `lock…`, `manager_…`."""

    def __init__(self, access: ScanServerAccess) -> None:
        self._access = access

    async def open(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Open the environment; the status tells when it is."""
        self._access.feed.say("Opening the new RE environment ...")
        if self._access.has_environment:
            raise RefusedError("RE Worker environment already exists.", "not_closed")
        if self._access.state == "creating_environment":
            text = "Manager is already in the process of creating the RE Worker environment."
            raise RefusedError(text, "not_closed")
        await self._access.change(SetEnvironment(action="open"), params)
        return {}

    async def close(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Close the environment; refused while anything runs."""
        self._access.feed.say("Closing existing RE environment ...")
        self._access.require_environment()
        state = self._access.state
        if state in ("executing_queue", "starting_queue"):
            raise RefusedError("Queue execution is in progress.", "not_idle")
        if state == "executing_task":
            raise RefusedError("Foreground task execution is in progress.", "not_idle")
        if state != "idle":
            raise RefusedError(f"Manager state is not idle. Current state: {state}", "not_idle")
        await self._access.change(SetEnvironment(action="close"), params)
        return {}

    async def destroy(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """End the workers, whatever they do."""
        self._access.feed.say("Destroying current RE environment ...")
        if not self._access.has_environment and self._access.state != "creating_environment":
            raise RefusedError("RE environment does not exist", "no_environment")
        await self._access.change(SetEnvironment(action="destroy"), params)
        return {}

    # ── locks ──

    async def lock(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Lock environment, queue or both."""
        user = params.get("user")
        if "user" not in params:
            raise BadArgumentError("User name is not specified: 'user' is a required parameter")
        if not isinstance(user, str) or not user:
            raise BadArgumentError(f"User name must be a non-empty string: user = {user!r}")
        key = _key_of(params, "Lock key is not specified: 'lock_key' is a required parameter")
        note = params.get("note")
        if not isinstance(note, str | None):
            raise BadArgumentError(f"Note must be a string or None: note = {note!r}")
        parts = {name: params.get(name) or False for name in ("environment", "queue")}
        if not all(isinstance(value, bool) for value in parts.values()) or not any(parts.values()):
            raise BadArgumentError(f"Choose what to lock, 'environment' or 'queue' or both: they are {parts}")
        asked = LockAll(key=key, note=note or "", **parts)
        return self._written(await self._access.change(asked, {"user": user, "lock_key": key}))

    async def unlock(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Unlock with the key or the emergency key."""
        key = _key_of(params, "Request contains no lock key: 'lock_key' parameter is required")
        return self._written(await self._access.change(Unlock(key=key)))

    async def lock_info(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what is locked; a key that is given must be right."""
        key = params.get("lock_key")
        if key is not None and not isinstance(key, str):
            raise BadArgumentError(f"Lock key must be a non-empty string or None: lock_key = {key!r}")
        try:
            return self._written(await self._access.ask(GetLock(key=key or "")))
        except RefusedError as error:
            known = self._written(await self._access.ask(GetLock()))
            return {"success": False, "msg": f"Error: Invalid lock key: \n{error}"} | known

    def _written(self, lock: LockState | None) -> dict[str, Any]:
        state = lock or LockState()
        at = datetime.fromtimestamp(state.time) if state.time else None
        info = {
            "environment": state.environment,
            "queue": state.queue,
            "user": state.user or None,
            "time": state.time or None,
            "time_str": "" if at is None else at.strftime("%m/%d/%Y %H:%M:%S"),
            "note": state.note or None,
            "emergency_lock_key_is_set": state.has_emergency_key,
        }
        is_set = state.environment or state.queue
        return {"lock_info": info, "lock_info_uid": uid_of("lock", state if is_set else None)}

    # ── the manager ──

    async def config(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the configuration: there is no IPython kernel to connect to."""
        return {"config": {"ip_connect_info": {}}}

    async def interrupt_kernel(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse: plans run in no IPython kernel."""
        raise RefusedError("RE Manager is not in IPython mode: IPython kernel is not used", "no_kernel")

    async def stop_manager(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stop this interface; the scan server and its queue go on."""
        option = params.get("option") or "safe_on"
        if option not in _STOP_OPTIONS:
            raise BadArgumentError(f"Option '{option}' is not allowed. Allowed options: {_STOP_OPTIONS}")
        if option == "safe_on" and self._access.state != "idle":
            raise RefusedError(
                f"Closing RE Manager with option '{option}' is allowed only in 'idle' state. "
                f"Current state: '{self._access.state}'",
                "not_idle",
            )
        self._access.stop_asked.set()
        return {}

    async def kill_manager(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse: it exists to test the peer."""
        raise RefusedError("manager_kill is a test of another program: this manager is not killed", "not_here")

    async def test_manager(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse: there are no such tests."""
        raise RefusedError(f"Unknown test: {params.get('test_name')!r}. Known tests: []", "not_here")


def _key_of(params: Mapping[str, Any], absent: str) -> str:
    if "lock_key" not in params:
        raise BadArgumentError(absent)
    key = params["lock_key"]
    if not isinstance(key, str) or not key:
        raise BadArgumentError(f"Lock key must be a non-empty string: lock_key = {key!r}")
    return key
