"""The device file on disk: what was read last, and how an edit gets there."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bec_bluesky.device_server._content import Content, read_content, read_text
from bec_bluesky.errors import RefusedError, UnknownDeviceError, choices

__all__ = ["Edit", "Store"]

_DATABASE_SUFFIX = ".json"


class Edit:
    """A new text for one file, and what all files say then."""

    def __init__(self, file: Path, text: str, content: Content) -> None:
        self.file = file
        self.text = text
        self.content = content


class Store:
    """The files as a device server knows them; methods read and write files and may block.

    Whoever edits them by hand has the last word: an edit is refused as long as a file differs from what was read last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content = Content(path)

    def read(self) -> Content:
        """Read all files as they are now; raises SettingsError. It is for the caller to keep them as `content`."""
        return read_content(self._path)

    def file_of(self, name: str) -> Path:
        """Give the file in which edits of a device go; raises UnknownDeviceError."""
        if name not in self.content.specs:
            raise UnknownDeviceError(name, self.content.specs, where="the device file")
        return self.content.specs[name].file

    def file_named(self, name: str) -> Path:
        """Give a file by its name relative to the device file, which an empty name means; raises RefusedError."""
        files = {self._relative(file): file for file in self.content.texts if file.suffix != _DATABASE_SUFFIX}
        if not name:
            return self._path
        if name not in files:
            raise RefusedError(f"no file {name!r} belongs to the device file: {choices(name, files)}", "unknown_file")
        return files[name]

    def prepare(self, file: Path, change: Callable[[str], str]) -> Edit:
        """Make an edit without writing it; raises RefusedError or SettingsError, in the words of the reader."""
        self._refuse_if_changed()
        text = change(self.content.texts[file])
        return Edit(file, text, read_content(self._path, self.content.texts | {file: text}))

    def write(self, edit: Edit) -> None:
        """Put an edit in place of its file, whole; raises RefusedError if a file was changed meanwhile."""
        file = edit.file.resolve()  # a link stays one
        with _locked(self._path.parent):
            self._refuse_if_changed()
            _replace(file, edit.text)
        self.content = edit.content

    def describe(self) -> dict[str, Any]:
        """Give which files there are, and for each device where it stands and what stands there."""
        content = self.content
        return {
            "path": str(self._path),
            "files": sorted(self._relative(file) for file in content.texts),
            "devices": {
                name: {
                    "file": self._relative(spec.file),
                    "place": spec.origin.removesuffix(": "),
                    "server": spec.server,
                    "database": self._relative(content.databases[name]) if name in content.databases else "",
                    "entry": content.entries[name],
                    "all": spec.model_dump(by_alias=True, mode="json"),
                }
                for name, spec in content.specs.items()
            },
        }

    def _relative(self, file: Path) -> str:
        return os.path.relpath(file, self._path.parent)

    def _refuse_if_changed(self) -> None:
        for file, text in self.content.texts.items():
            try:
                is_same = read_text(file) == text
            except (OSError, UnicodeDecodeError):
                is_same = False
            if not is_same:
                raise RefusedError(
                    f"{file} was changed on disk since it was read: nothing is written over it; "
                    "take the change over first (`bec-bluesky device reload`)",
                    "file_changed",
                )


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time write files of a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str) -> None:
    """Write a file anew: after a power cut it is the old or the new one, whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), file.stat().st_mode & 0o7777)
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
