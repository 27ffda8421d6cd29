"""What a process prints: written line by line, so that who reads its file sees each line at once."""

import contextlib
import ctypes
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["StandardOutput", "flush_output", "printing_nothing", "write_lines_at_once"]

_LINE_BUFFERED = 1
"""`_IOLBF` of C."""
_thread = threading.local()


class _Output:
    """Standard output, which some threads may not write to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if getattr(_thread, "prints_nothing", False) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class StandardOutput:
    """The standard streams as they were when this was made."""

    def __init__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        self._files = self._open_files()

    def restore(self) -> bool:
        """Put them back where others stand in their place; gives whether they can be written to as before."""
        sys.stdout, sys.stderr = self._streams
        return not any(stream.closed for stream in self._streams) and self._open_files() == self._files

    def _open_files(self) -> list[tuple[int, int] | None]:
        return [_identity(descriptor) for descriptor in (1, 2)]


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def write_lines_at_once() -> None:
    """Have Python's and C's standard streams write each line when it is complete."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stdout = _Output(sys.stdout)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a C library of another make: lines come later
        library = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(library, "stdout" if sys.platform != "darwin" else "__stdoutp")
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))


@contextlib.contextmanager
def printing_nothing() -> Iterator[None]:
    """Leave out what this thread prints while the block lasts: a plan that is only checked says nothing to people."""
    _thread.prints_nothing = True
    try:
        yield
    finally:
        _thread.prints_nothing = False


def flush_output() -> None:
    """Write what Python and C still hold back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the script closed it
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
