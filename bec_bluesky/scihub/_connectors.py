"""Where entries go: a connector is one place, tried until it takes them."""

import json
import os
from pathlib import Path
from typing import Protocol

from bec_bluesky.scihub._journal import Entry

__all__ = ["Connector", "LogbookFile"]


class Connector(Protocol):
    """A logbook or a catalogue. `deliver` runs in a thread and may take its time."""

    name: str

    def deliver(self, entry: Entry) -> None:
        """Deliver one entry; an exception means: try again later. It may come twice, with the same `key`."""
        ...


class LogbookFile:
    """A logbook as a file: one JSON object a line, in the order in which things happened."""

    name = "logbook"

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, entry: Entry) -> None:
        """Append the entry unless it is the last one there (a delivery that was cut short)."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = entry.to_json()
        if self._last_key() == entry.key:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _last_key(self) -> str | None:
        """Give the key of the newest whole line; a torn one is cut off."""
        try:
            content = self._path.read_bytes()[-65_536:]
        except FileNotFoundError:
            return None
        if content and not content.endswith(b"\n"):
            whole = content.rfind(b"\n") + 1
            with self._path.open("r+b") as file:
                file.truncate(self._path.stat().st_size - (len(content) - whole))
            content = content[:whole]
        lines = content.splitlines()
        return json.loads(lines[-1])["key"] if lines else None
