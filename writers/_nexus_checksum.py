"""Checksums of files, of large ones without holding anybody up."""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

__all__ = ["Checksums", "checksum"]

_BLOCK = 2**20
_AT_ONCE = 32 * 2**20
"""Bytes that take some 20 ms, at 1.6 GB a second."""


class Checksums:
    """Computes checksums, one after the other in a thread where it takes a while."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._is_over = threading.Event()

    def of(self, path: Path) -> Future[str]:
        """Begin with a file; that of a small one is there at once."""
        if path.stat().st_size <= _AT_ONCE:
            there: Future[str] = Future()
            there.set_result(checksum(path))
            return there
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="nexus-checksum")
        return self._thread.submit(checksum, path, self._is_over)

    def close(self) -> None:
        """Let go of what is not complete."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
        self._is_over = threading.Event()


def checksum(path: Path, is_over: threading.Event | None = None) -> str:
    """Give the SHA-256 of a file, with the name of the method before it; empty if it is over before the end."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
            if is_over is not None and is_over.is_set():
                return ""
    return f"sha256:{digest.hexdigest()}"
