"""The console and the status as they come: polled, streamed, and on WebSockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response, WebSocket, WebSocketDisconnect, status
from fastapi.responses import StreamingResponse

from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver.web._bodies import answer, check_keys, payload_of
from bec_bluesky.queueserver.web._door import Door

__all__ = ["console_router", "send_until_gone"]

_MOST_LINES = 2_000
_DEFAULT_LINES = 200


def console_router(feed: Feed, door: Door) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["console"])

    @router.get("/console_output", response_model=None)
    async def console_output(request: Request) -> Response:
        """Give the last `nlines` lines (200; at most 2000)."""
        door.admit(request, "read:console")
        count = (await payload_of(request)).get("nlines", _DEFAULT_LINES)
        if not isinstance(count, int) or isinstance(count, bool):
            raise HTTPException(status.HTTP_400_BAD_REQUEST, f"nlines={count!r} is no whole number")
        return _said(text=feed.lines(min(max(count, 0), _MOST_LINES)))

    @router.get("/console_output/uid", response_model=None)
    async def console_output_uid(request: Request) -> Response:
        """Give the id of the newest text."""
        door.admit(request, "read:console")
        return _said(console_output_uid=feed.uid)

    @router.get("/console_output_update", response_model=None)
    async def console_output_update(request: Request) -> Response:
        """Give the messages since `last_msg_uid`; "ALL" gives those that are kept."""
        door.admit(request, "read:console")
        payload = await payload_of(request, is_required=True)
        check_keys(payload, required=("last_msg_uid",))
        uid, messages = feed.since(str(payload["last_msg_uid"]))
        return _said(last_msg_uid=uid, console_output_msgs=messages)

    @router.get("/stream_console_output", response_model=None)
    async def stream_console_output(request: Request) -> Response:
        """Give messages as lines of JSON, those that are kept first, for ever."""
        door.admit(request, "read:console")
        return StreamingResponse(_lines(feed), media_type="text/event-stream")

    @router.websocket("/console_output/ws")
    async def console_socket(socket: WebSocket) -> None:
        if await door.admit_socket(socket, "read:console"):
            await send_until_gone(socket, feed, lambda topic, message: topic == "console")

    @router.websocket("/status/ws")
    async def status_socket(socket: WebSocket) -> None:
        if await door.admit_socket(socket, "read:monitor"):
            await send_until_gone(socket, feed, lambda topic, message: topic == "info" and "status" in message["msg"])

    @router.websocket("/info/ws")
    async def info_socket(socket: WebSocket) -> None:
        if await door.admit_socket(socket, "read:monitor"):
            await send_until_gone(socket, feed, lambda topic, message: topic == "info")

    return router


def _said(**fields: Any) -> Response:
    return answer({"success": True, "msg": ""} | fields)


async def _lines(feed: Feed) -> AsyncIterator[str]:
    async for topic, message in feed.listen(with_kept=True):
        if topic == "console":
            yield json.dumps(message) + "\n"


async def send_until_gone(
    socket: WebSocket,
    feed: Feed,
    is_wanted: Callable[[str, dict[str, Any]], bool],
) -> None:
    """Send what is wanted, until the reader goes away; what it says is not heard."""

    async def send() -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away while something was sent
            async for topic, message in feed.listen():
                if is_wanted(topic, message):
                    await socket.send_text(json.dumps(message))

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send(), name="messages to a socket")
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
        sending.cancel()
