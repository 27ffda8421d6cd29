"""The sockets that Finch takes from ophyd-websocket: devices, parts of them by the name of PVs, and the console."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from bec_bluesky.client import DeviceAccess, shown_entry
from bec_bluesky.errors import BadArgumentError, DeviceError, DeviceFailed, DeviceTimeout, RefusedError
from bec_bluesky.messages.devices import DeviceInfo, Readback
from bec_bluesky.proxy import RemoteStatus, limits_of
from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver.web._bodies import as_json
from bec_bluesky.queueserver.web._console_routes import send_until_gone
from bec_bluesky.queueserver.web._door import Door

__all__ = ["device_socket_router"]

_MOST_WATCHED = 1_000
_MOST_SETS = 16
"""Moves under way that one reader may have asked for."""
_LONGEST_SET = 3_600.0
_LARGEST_ARRAY = 100_000
"""Elements; of larger ones the value is null."""


def device_socket_router(access: DeviceAccess, feed: Feed, door: Door) -> APIRouter:
    """Make the sockets below `/api/v1`."""
    router = APIRouter(prefix="/v1")

    @router.websocket("/qs-console-socket")
    async def console(socket: WebSocket) -> None:
        if await door.admit_socket(socket, "read:console"):
            await send_until_gone(socket, feed, lambda topic, _: topic == "console")

    async def devices(socket: WebSocket, word: str) -> None:
        principal = await door.admit_socket(socket, "read:monitor")
        if principal:
            await _DeviceSocket(socket, access, word, may_set="write:execute" in principal.scopes).serve()

    @router.websocket("/device-socket")
    async def device_socket(socket: WebSocket) -> None:
        await devices(socket, "device")

    @router.websocket("/pv-socket")
    async def pv_socket(socket: WebSocket) -> None:
        await devices(socket, "pv")

    return router


@dataclass
class _Watched:
    """What a reader subscribed to."""

    path: str
    is_read_only: bool = False
    readback: Readback | None = None
    is_told: bool = False
    """Whether its facts (units, limits) were told in its present state."""


@dataclass
class _DeviceSocket:
    """One reader; of what is not sent yet the newest is kept, once for each device."""

    socket: WebSocket
    access: DeviceAccess
    word: str
    """What devices are called: device or pv."""
    may_set: bool
    watched: dict[str, _Watched] = field(default_factory=dict[str, _Watched])
    due: dict[str, None] = field(default_factory=dict[str, None])
    is_news: asyncio.Event = field(default_factory=asyncio.Event)
    setting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def serve(self) -> None:
        """Do what is asked until the reader goes away; a move under way goes on then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send_news(), name="readings to a socket")
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    while True:
                        message = await self.socket.receive()
                        if message["type"] == "websocket.disconnect":
                            break
                        await self._take(message.get("text") or "", tasks)
                sending.cancel()
                for each in self.setting:
                    each.cancel()
        finally:
            for path in list(self.watched):
                self._let_go(path)

    async def _take(self, text: str, tasks: asyncio.TaskGroup) -> None:
        try:
            asked = json.loads(text)
            if not isinstance(asked, dict):
                raise BadArgumentError("a message is a JSON object, with an `action`")
            action = asked.get("action")
            if action == "set":
                self._start_set(asked, tasks)
            else:
                await self._say(self._answer(str(action), asked))
        except (RefusedError, DeviceError, ValueError, RecursionError) as error:
            await self._say({"error": str(error) or type(error).__name__})

    def _answer(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        actions: dict[str, Callable[[str], bool]] = {
            "subscribe": self._watch,
            "subscribeSafely": lambda path: self._watch(path, is_safe=True),
            "subscribeReadOnly": lambda path: self._watch(path, is_read_only=True),
            "unsubscribe": self._let_go,
        }
        if action == "refresh":
            self._note(*self.watched)
            return {"message": f"Refreshing {len(self.watched)} {self.word}s"}
        if action not in actions:
            raise BadArgumentError(f"no action {action!r}: there are {', '.join((*actions, 'set', 'refresh'))}")
        act = actions[action]
        past, else_ = (
            ("unsubscribed", "not_subscribed") if action == "unsubscribe" else ("subscribed", "already_subscribed")
        )
        several = asked.get(f"{self.word}s")
        if not isinstance(several, list):
            path = self._name(asked)
            is_new = act(path)
            return {"message": f"{past.capitalize()} {'from' if action == 'unsubscribe' else 'to'} {path}"} | (
                {} if is_new else {"note": else_}
            )
        said: dict[str, Any] = {"action": action, past: [], else_: []}
        failed: list[str] = []
        for each in several:
            try:
                said[past if act(str(each)) else else_].append(each)
            except (RefusedError, DeviceError):
                failed.append(str(each))
        return said if action == "unsubscribe" else said | {"failed": failed}

    def _name(self, asked: dict[str, Any]) -> str:
        name = asked.get(self.word)
        if not isinstance(name, str) or not name:
            raise BadArgumentError(f"the message names no {self.word}")
        return name

    # ── watching ──

    def _watch(self, path: str, *, is_safe: bool = False, is_read_only: bool = False) -> bool:
        if path in self.watched:
            return False
        if len(self.watched) >= _MOST_WATCHED:
            raise BadArgumentError(f"{_MOST_WATCHED} {self.word}s are watched already on this socket")
        info = self.access.link.directory.info(path)
        if is_safe and info.state != "connected":
            raise DeviceFailed(f"{path} is {info.state}: {info.reason}")
        self.watched[path] = _Watched(path, is_read_only)
        self.access.live.add(path, self._hear)
        self._note(path)
        return True

    def _let_go(self, path: str) -> bool:
        if self.watched.pop(path, None) is None:
            return False
        self.due.pop(path, None)
        self.access.live.remove(path, self._hear)
        return True

    def _hear(self, readback: Readback) -> None:
        watched = self.watched.get(readback.device)
        if watched is not None:
            if watched.readback is None or watched.readback.connected != readback.connected:
                watched.is_told = False
            watched.readback = readback
            self._note(readback.device)

    def _note(self, *paths: str) -> None:
        self.due.update(dict.fromkeys(paths))
        self.is_news.set()

    async def _send_news(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away while something was sent
            while True:
                await self.is_news.wait()
                self.is_news.clear()
                while self.due:
                    path = next(iter(self.due))
                    del self.due[path]
                    watched = self.watched.get(path)
                    if watched is not None and watched.readback is not None:
                        await self._tell(watched, watched.readback)

    async def _tell(self, watched: _Watched, readback: Readback) -> None:
        try:
            info = self.access.link.directory.info(watched.path)
        except RefusedError as error:
            await self._say({self.word: watched.path, "connected": False, "error": str(error)})
            return
        key, value, units = shown_entry(info, readback)
        entry = readback.reading.get(key, {})
        common = {
            "timestamp": entry.get("timestamp", readback.time),
            "connected": readback.connected,
            "read_access": True,
            "write_access": self._is_settable(info, watched),
        }
        is_told, watched.is_told = watched.is_told, True
        size = getattr(value, "size", 1)
        value = value if not isinstance(size, int) or size <= _LARGEST_ARRAY else None
        await self._say({self.word: watched.path, "signal": key, "value": value} | common)
        if not is_told:
            await self._say(common | _facts_of(info, units) | {"obj": watched.path, self.word: watched.path})

    def _is_settable(self, info: DeviceInfo, watched: _Watched | None) -> bool:
        is_free = not info.read_only and not (watched is not None and watched.is_read_only)
        return self.may_set and is_free and "set" in info.methods

    async def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self.socket.send_text(as_json(message).decode())

    # ── setting ──

    def _start_set(self, asked: dict[str, Any], tasks: asyncio.TaskGroup) -> None:
        path, timeout = self._name(asked), asked.get("timeout") or _LONGEST_SET
        info = self.access.link.directory.info(path)
        if not self._is_settable(info, self.watched.get(path)):
            raise BadArgumentError(f"{path} cannot be set here: it is read-only, or the key does not allow it")
        if "value" not in asked:
            raise BadArgumentError("the message has no value")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST_SET:
            raise BadArgumentError(f"the timeout must be up to {_LONGEST_SET:g} s, it is {str(timeout)[:50]}")
        if len(self.setting) >= _MOST_SETS:
            raise BadArgumentError(f"{_MOST_SETS} moves are under way already on this socket")
        task = tasks.create_task(self._set(path, asked["value"], float(timeout)), name=f"set {path}")
        self.setting.add(task)
        task.add_done_callback(self.setting.discard)

    async def _set(self, path: str, value: Any, timeout: float) -> None:
        link = self.access.link
        try:
            moving = RemoteStatus(link, link.device(path), "set", (value,))
            link.submit(path, "set", (value,), {}, moving)
            try:
                async with asyncio.timeout(timeout):
                    await moving
            except TimeoutError as error:
                if isinstance(error, DeviceTimeout):
                    raise
                raise DeviceTimeout(f"{path} is not there after {timeout:g} s; it goes on") from error
        except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
            await self._say({"error": f"{path}: {error}", self.word: path})


def _facts_of(info: DeviceInfo, units: str) -> dict[str, Any]:
    low, high = limits_of(info) or (None, None)
    return {
        "sub_type": "meta",
        "status": 0,
        "severity": 0,
        "precision": info.properties.get("precision"),
        "lower_ctrl_limit": low,
        "upper_ctrl_limit": high,
        "units": units or None,
        "enum_strs": info.properties.get("enum_strs"),
    }
