"""Bringing a growing file to the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from writers._disk import sync

__all__ = ["BackgroundSync"]

_STEP = 64 * 2**20
"""Bytes after which the disk gets what came."""


class BackgroundSync:
    """Has a file brought to the disk while it grows, so that little is left to do at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None

    def grown(self, size: int) -> None:
        """Take note of so many bytes more; raises OSError if earlier ones did not get to the disk."""
        self._bytes += size
        if self._bytes < _STEP or (self._running is not None and not self._running.done()):
            return
        if self._running is not None:
            self._running.result()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="nexus-sync")
        self._bytes = 0
        self._running = self._thread.submit(sync, self._path)

    def end(self) -> None:
        """Wait for what is under way; raises OSError if it did not get to the disk, which no later sync would tell."""
        if self._thread is None:
            return
        self._thread.shutdown()
        self._thread = None
        if self._running is not None:
            self._running.result()
