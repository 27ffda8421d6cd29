"""What people and programs may listen to: console lines and statuses, the last ones kept."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal

__all__ = ["Feed", "Topic"]

Topic = Literal["console", "info"]
_KEPT = 2_000
"""Console messages kept for those who poll or come late."""
_BACKLOG = 1_000
"""Messages that a slow listener may lag behind; beyond that the oldest are left out for it."""


class Feed:
    """Messages `{"time": …, "msg": …}` by topic, as bluesky-queueserver publishes them."""

    def __init__(self) -> None:
        self._console: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT)
        self._number = 0
        self._name = uuid.uuid4().hex
        self._listeners: set[asyncio.Queue[tuple[Topic, dict[str, Any]]]] = set()

    def say(self, text: str, *, at: float | None = None) -> None:
        """Put text on the console; from the event loop."""
        message = {"time": time.time() if at is None else at, "msg": text if text.endswith("\n") else text + "\n"}
        self._number += 1
        self._console.append((self._number, message))
        self._send("console", message)

    def show(self, status: dict[str, Any]) -> None:
        """Tell a status."""
        self._send("info", {"time": time.time(), "msg": {"status": status}})

    def _send(self, topic: Topic, message: dict[str, Any]) -> None:
        for listener in self._listeners:
            if listener.full():
                listener.get_nowait()
            listener.put_nowait((topic, message))

    @property
    def uid(self) -> str:
        """Id of the newest console message."""
        return f"{self._name}-{self._number}"

    def lines(self, count: int = 200) -> str:
        """Give the last lines of the console."""
        text = "".join(message["msg"] for _, message in self._console)
        kept = text.splitlines(keepends=True)
        return "".join(kept[max(0, len(kept) - count) :]) if count > 0 else ""

    def since(self, uid: str) -> tuple[str, list[dict[str, Any]]]:
        """Give the newest id and the console messages after `uid`; "ALL" gives all kept, an unknown one none."""
        name, _, number = uid.rpartition("-")
        is_known = name == self._name and number.isdigit()
        after = 0 if uid == "ALL" else int(number) if is_known else self._number
        return self.uid, [message for at, message in self._console if at > after]

    async def listen(self, *, with_kept: bool = False) -> AsyncIterator[tuple[Topic, dict[str, Any]]]:
        """Give messages as they come, for ever; first the console messages that are kept, if they are wanted."""
        listener: asyncio.Queue[tuple[Topic, dict[str, Any]]] = asyncio.Queue(_BACKLOG)
        kept = list(self._console) if with_kept else []
        self._listeners.add(listener)
        try:
            for _, message in kept:
                yield "console", message
            while True:
                yield await listener.get()
        finally:
            self._listeners.discard(listener)
