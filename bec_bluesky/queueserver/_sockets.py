"""bluesky-queueserver's two 0MQ sockets: questions and answers, and what is published."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from bec_bluesky.errors import SettingsError
from bec_bluesky.log import logger
from bec_bluesky.queueserver._encoding import json_text, packed
from bec_bluesky.queueserver._feed import Feed

__all__ = ["PRIVATE_KEY", "ControlSocket", "InfoSocket"]

_log = logger(__name__)
PRIVATE_KEY = "QSERVER_ZMQ_PRIVATE_KEY_FOR_SERVER"
"""Environment variable with the server's CURVE key, 40 characters; without it nothing is encrypted."""
_TOPICS = {"console": b"QS_Console", "info": b"QS_Info"}
_LONGEST_REQUEST = 64 * 2**20
_WAITING = 1_000
"""Requests of all clients that are carried out at a time; more wait in the socket."""
Answer = Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class ControlSocket:
    """Answers requests of REQ sockets; those of several clients are carried out at the same time."""

    def __init__(self, context: zmq.asyncio.Context, address: str, answer: Answer, spawn: Spawn, encoding: str) -> None:
        """Bind; raises SettingsError if the address is taken or the key is wrong."""
        self._socket: zmq.asyncio.Socket = context.socket(zmq.ROUTER)
        self._answer, self._spawn, self._encoding = answer, spawn, encoding
        self._socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST_REQUEST)
        self._socket.setsockopt(zmq.LINGER, 200)
        _encrypt(self._socket)
        _bind(self._socket, address)
        self._room = asyncio.Semaphore(_WAITING)

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            await self._room.acquire()
            try:
                frames = await self._socket.recv_multipart()
            except BaseException:
                self._room.release()
                raise
            # a REQ socket sends its identity, an empty frame, and the request
            *envelope, request = frames
            self._spawn(self._serve(envelope, request), "request")

    async def _serve(self, envelope: list[bytes], request: bytes) -> None:
        try:
            try:
                reply = self._encoded(await self._answer(self._decoded(request)))
            except Exception as error:  # noqa: BLE001  # whoever asks must hear something, or waits for ever
                _log.exception("a request could not be answered")
                reply = self._encoded({"success": False, "msg": f"Error: {type(error).__name__}: {error}"})
            with contextlib.suppress(zmq.ZMQError):  # the client is gone
                await self._socket.send_multipart([*envelope, reply])
        finally:
            self._room.release()

    def _decoded(self, request: bytes) -> Any:
        try:
            return msgpack.unpackb(request) if self._encoding == "msgpack" else json.loads(request)
        except Exception as error:  # noqa: BLE001  # whatever was sent
            return f"{self._encoding.upper()} decode error: {error}"

    def _encoded(self, reply: dict[str, Any]) -> bytes:
        if self._encoding == "msgpack":
            return packed(reply)
        return json_text(reply)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class InfoSocket:
    """Publishes console lines and statuses."""

    def __init__(self, context: zmq.asyncio.Context, address: str, feed: Feed) -> None:
        """Bind; raises SettingsError if the address is taken."""
        self._socket: zmq.asyncio.Socket = context.socket(zmq.PUB)
        self._feed = feed
        self._socket.setsockopt(zmq.LINGER, 200)
        _bind(self._socket, address)

    async def run(self) -> None:
        """Publish for ever."""
        async for topic, message in self._feed.listen():
            await self._socket.send_multipart([_TOPICS[topic], json_text(message)])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _encrypt(socket: zmq.asyncio.Socket) -> None:
    key = os.environ.get(PRIVATE_KEY)
    if key is None:
        return
    try:
        socket.curve_secretkey = key.encode()
        socket.curve_server = True
    except (zmq.ZMQError, ValueError) as error:
        raise SettingsError(f"{PRIVATE_KEY} is no CURVE key of 40 characters: {error}") from None


def _bind(socket: zmq.asyncio.Socket, address: str) -> None:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        raise SettingsError(f"{address} cannot be used: {error}") from None
