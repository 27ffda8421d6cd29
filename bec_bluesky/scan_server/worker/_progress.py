"""How far the running plan is, from its documents and from what moves."""

import threading
from collections.abc import Iterable
from typing import Any

from bec_bluesky.messages.queue import Progress

__all__ = ["ProgressMeter"]


class ProgressMeter:
    """Counts points of the run opened last and follows what the engine waits for; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points = 0
        self._expected: int | None = None
        self._stream = ""
        """Uid of the descriptor whose events are points: primary's, or else the first that is no baseline."""
        self._moving: dict[str, float] = {}
        self._is_new = False

    def take(self) -> Progress | None:
        """Give the progress if it is another than last time."""
        with self._lock:
            if not self._is_new:
                return None
            self._is_new = False
            return Progress(points=self._points, expected=self._expected, moving=dict(self._moving))

    def reset(self) -> None:
        """Forget the last plan."""
        with self._lock:
            self._points, self._expected, self._stream, self._is_new = 0, None, "", False
            self._moving.clear()

    # ── from the RunEngine ──

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        """Take a document."""
        match name:
            case "start":
                with self._lock:
                    self._points, self._stream, self._is_new = 0, "", True
                    self._expected = expected_points(document)
            case "descriptor":
                if document.get("name") == "primary" or (not self._stream and document.get("name") != "baseline"):
                    self._stream = document["uid"]
            case "event":
                self._count(document["descriptor"], document["seq_num"])
            case "event_page":
                self._count(document["descriptor"], max(document["seq_num"], default=0))
            case "stream_datum":
                self._count(document["descriptor"], document["seq_nums"]["stop"] - 1)

    def _count(self, descriptor: str, number: int) -> None:
        if descriptor == self._stream and number > self._points:
            with self._lock:
                self._points, self._is_new = number, True

    def wait_for(self, statuses: Iterable[Any] | None) -> None:
        """Follow what the engine waits for (its `waiting_hook`); None: it waits no longer."""
        if statuses is None:
            with self._lock:
                self._is_new = self._is_new or bool(self._moving)
                self._moving.clear()
            return
        for status in statuses:
            watch = getattr(status, "watch", None)
            if watch is not None and not status.done:
                watch(self._proceed)

    def _proceed(
        self, *, name: Any = None, current: Any = None, initial: Any = None, target: Any = None, **_: Any
    ) -> None:
        try:
            way = abs(float(target) - float(initial))
            done = 1.0 if way == 0 else min(1.0, abs(float(current) - float(initial)) / way)
        except (TypeError, ValueError):  # nothing that could be told as a fraction
            return
        if name is not None and done == done:
            with self._lock:
                self._moving[str(name)] = round(done, 4)
                self._is_new = True


def expected_points(start: dict[str, Any]) -> int | None:
    """Give how many points a start document promises."""
    points = start.get("num_points")
    return points if isinstance(points, int) and not isinstance(points, bool) and points > 0 else None
