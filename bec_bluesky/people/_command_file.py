"""The command log on disk: who asked for what, one line of JSON each, in files that are only ever appended to."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bec_bluesky.messages.around_queue import Command

__all__ = ["CommandFile", "Wanted"]

_BLOCK = 256 * 1024
"""Bytes that are read at once, from the end."""


@dataclass(frozen=True)
class Wanted:
    """Which commands are looked for; what is empty does not matter."""

    user: str = ""
    verb: str = ""
    """A part of it: `run` finds `control_run abort` as well as `run_script`."""
    text: str = ""
    """Somewhere in the line, whatever its case."""
    since: float = 0.0
    until: float = float("inf")
    only_refused: bool = False

    def has(self, command: Command) -> bool:
        """Whether a command is one of them, but for `text`."""
        return (
            self.since <= command.time <= self.until
            and (not self.user or command.user == self.user)
            and self.verb in command.verb
            and not (self.only_refused and command.outcome in ("done", "sent"))
        )


class CommandFile:
    """The files of one beamline, `commands-<beamline>-<year>.jsonl`; one process appends, anybody reads."""

    def __init__(self, directory: Path, beamline: str) -> None:
        self._directory = directory
        self._beamline = beamline
        self._encoder = msgspec.json.Encoder()

    def append(self, commands: Sequence[Command]) -> None:
        """Append, and see that it is on the disk; raises OSError, and then none or all of a year's are there."""
        self._directory.mkdir(parents=True, exist_ok=True)
        of_years: dict[int, list[Command]] = {}
        for command in commands:
            of_years.setdefault(time.localtime(command.time).tm_year, []).append(command)
        for year, those in of_years.items():
            lines = b"".join(self._encoder.encode(command) + b"\n" for command in those)
            self._write(self._directory / f"commands-{self._beamline}-{year}.jsonl", lines)

    def _write(self, path: Path, lines: bytes) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":  # the last writer was killed within a line
                lines = b"\n" + lines
            try:
                if os.write(fd, lines) != len(lines):
                    raise OSError(f"{path}: the disk took only a part of it")
                os.fdatasync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def newest(self, wanted: Wanted | None = None) -> Iterator[Command]:
        """Give what is wanted, newest first; a line that is no command is left out."""
        wanted = wanted or Wanted()
        decode: Callable[[bytes], Command] = msgspec.json.Decoder(Command).decode
        text = wanted.text.casefold()
        for path in self._paths():
            for line in _lines_backwards(path):
                if text and text not in line.decode(errors="replace").casefold():
                    continue
                try:
                    command = decode(line)
                except (msgspec.MsgspecError, ValueError):
                    continue
                if command.time < wanted.since:
                    return
                if wanted.has(command):
                    yield command

    def _paths(self) -> list[Path]:
        """Give the files, that of the newest year first."""
        pattern = re.compile(rf"commands-{re.escape(self._beamline)}-(\d+)\.jsonl")
        found = [
            (int(match[1]), path)
            for path in self._directory.glob("commands-*.jsonl")
            if (match := pattern.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found, reverse=True)]


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at:
            start = max(0, at - _BLOCK)
            file.seek(start)
            lines = (file.read(at - start) + rest).split(b"\n")
            at = start
            rest = lines[0]
            yield from (line for line in reversed(lines[1:]) if line)
        if rest:
            yield rest
