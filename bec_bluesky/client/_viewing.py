"""Subscriptions of a person: callbacks in a thread of their own, which get the newest reading only."""

import queue
import threading
from collections.abc import Callable
from typing import Any, Self

from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Readback

__all__ = ["CallbackThread", "Viewing"]

_log = logger(__name__)
Reading = dict[str, dict[str, Any]]


class CallbackThread:
    """Calls one callback after the other; it starts when it is needed first."""

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[Viewing | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, viewing: "Viewing") -> None:
        """Have a viewing call its callback soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="bec-bluesky callbacks", daemon=True)
            self._thread.start()
        self._due.put(viewing)

    def stop(self) -> None:
        """End the thread after what it calls now."""
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._due.put(None)
            self._thread.join(timeout=5.0)
        self._thread = None

    def _run(self) -> None:
        while (viewing := self._due.get()) is not None:  # for the life of the client
            viewing.call()


class Viewing:
    """A callback that is told what a device reads, until `close()`; also a context manager."""

    def __init__(
        self, path: str, callback: Callable[[Reading], None], threads: CallbackThread, end: Callable[["Viewing"], None]
    ) -> None:
        self.path = path
        self._callback = callback
        self._threads = threads
        self._end = end
        self._lock = threading.Lock()
        self._newest: Reading | None = None
        self.is_open = True

    def close(self) -> None:
        """Call no more; harmless when repeated."""
        if self.is_open:
            self.is_open = False
            self._end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def hear(self, readback: Readback) -> None:
        """Take a reading; one that was not called for yet is replaced."""
        if not readback.reading:
            return
        with self._lock:
            is_due = self._newest is not None
            self._newest = readback.reading
        if not is_due:
            self._threads.submit(self)

    def call(self) -> None:
        """Call with the newest reading."""
        with self._lock:
            reading, self._newest = self._newest, None
        if reading is None or not self.is_open:
            return
        try:
            self._callback(reading)
        except Exception:  # noqa: BLE001  # a stranger's callback must not stop the others
            _log.exception("a callback of %s failed", self.path)

    def __repr__(self) -> str:
        return f"<view of {self.path}: {'live' if self.is_open else 'closed'}>"
