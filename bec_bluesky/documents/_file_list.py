"""The list of files that were ever announced: a line of JSON each, beside the data, where no Redis can lose them."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bec_bluesky.documents._callback import Emit
from bec_bluesky.messages.products import FileReady, Product

__all__ = ["FileList", "LineFile", "present_files"]

_log = logging.getLogger(__name__)


class LineFile:
    """A file of lines to which several processes append, and of which a kill may tear the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0

    def append(self, line: bytes) -> None:
        """Put a line on the disk; raises OSError."""
        if not self._is_whole():
            line = b"\n" + line
        descriptor = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            os.write(descriptor, line + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def new_lines(self) -> Iterator[bytes]:
        """Give the complete lines that came since this was asked last; none if there is no file."""
        with contextlib.suppress(OSError), self.path.open("rb") as lines:
            lines.seek(self._read_to)
            for line in lines:
                if not line.endswith(b"\n"):  # another process is writing it
                    break
                self._read_to += len(line)
                yield line

    def _is_whole(self) -> bool:
        with contextlib.suppress(OSError), self.path.open("rb") as lines:
            lines.seek(-1, os.SEEK_END)
            return lines.read(1) == b"\n"
        return True


class FileList:
    """Files of runs, for as long as the data directory lives; catalogue entries are not in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def noting(self, emit: Emit) -> Emit:
        """Give an `emit` that notes each file in the list before it passes it on."""

        def note(product: Product) -> None:
            if isinstance(product, FileReady) and product.kind == "file":
                self._add(product)
            emit(product)

        return note

    def _add(self, file: FileReady) -> None:
        try:
            LineFile(self._path).append(msgspec.json.encode(file))
        except OSError as error:
            _log.warning("%s is not noted in %s: %s", file.path, self._path, error, extra={"run": file.run_uid})

    def of(self, run_uid: str) -> list[FileReady]:
        """Give a run's files where they are now; reads the whole list, 0.1 s for 10⁵ runs."""
        return present_files(message for message in self._messages(run_uid) if message.run_uid == run_uid)

    def _messages(self, word: str) -> Iterator[FileReady]:
        """Give what the lines with that word say; a torn line says nothing."""
        wanted = word.encode()
        for line in LineFile(self._path).new_lines():
            if wanted in line:
                with contextlib.suppress(msgspec.MsgspecError):
                    yield msgspec.json.decode(line, type=FileReady)


def present_files(announced: Iterable[FileReady]) -> list[FileReady]:
    """Give each file once, as it was announced last, and a moved one by its new place only."""
    files: dict[str, FileReady] = {}
    for file in announced:
        files.pop(file.moved_from, None)
        files[file.path] = file
    return list(files.values())
