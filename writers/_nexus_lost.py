"""Files that were begun and not completed: whose they are, and what they hold."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from writers._nexus_documents import read_documents
from writers._nexus_template import file_word

__all__ = ["OpenFiles", "PartFile"]

_log = logging.getLogger(__name__)
_FOLDER = ".open"


class OpenFiles:
    """Which parts below a directory are being written, and for whom: a small file for each, until it is complete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / _FOLDER

    def add(self, run_uid: str, part: Path, owner: str) -> None:
        """Note a part; if that cannot be written, nobody will close it but who has the run's documents."""
        note = json.dumps({"uid": run_uid, "part": str(part.relative_to(self._root)), "owner": owner})
        try:
            self._folder.mkdir(exist_ok=True)
            new = self._path(run_uid).with_suffix(".new")
            new.write_text(note)
            new.replace(self._path(run_uid))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path(run_uid), error, extra={"run": run_uid})

    def remove(self, run_uid: str) -> None:
        """Forget a part that is complete."""
        self._path(run_uid).unlink(missing_ok=True)

    def of(self, owner: str) -> dict[str, Path]:
        """Give the parts of an owner, by run; those of others are not for it to close."""
        found: dict[str, Path] = {}
        for path in self._folder.glob("*.json"):
            try:
                note = json.loads(path.read_text())
                if note["owner"] == owner:
                    found[str(note["uid"])] = self._root / note["part"]
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
            ):  # another process has just removed it, or a disk was full
                continue
        return found

    def _path(self, run_uid: str) -> Path:
        return self._folder / f"{file_word(run_uid, default='run')}.json"


class PartFile:
    """What the part file of an attempt that was cut short holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        """What of it could not be read."""
        self._rows: dict[str, int] = {}

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents, as far as they can be read; raises OSError if the file cannot be opened."""
        h5py.File(self.path, "r").close()
        self._rows = {}
        names: dict[str, str] = {}
        try:
            for name, doc in read_documents(self.path, as_lists=False):
                if name == "descriptor":
                    names[str(doc.get("uid"))] = str(doc.get("name") or "primary")
                elif name in ("event", "event_page"):
                    stream = names.get(str(doc.get("descriptor")), "")
                    self._rows[stream] = self._rows.get(stream, 0) + (len(doc["seq_num"]) if "page" in name else 1)
                yield name, doc
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
            self.problem = f"its documents end in one that cannot be read ({error!r:.100})"

    def is_whole(self) -> bool:
        """Tell whether the documents that were given tell all that the file holds."""
        if self.problem:
            return False
        try:
            with h5py.File(self.path, "r") as file:
                streams = file.get("entry/streams")
                for group in streams.values() if isinstance(streams, h5py.Group) else ():
                    times, stream = group.get("time"), str(group.attrs["stream"])
                    if isinstance(times, h5py.Dataset) and len(times) > self._rows.get(stream, 0):
                        self.problem = f"more events of {stream} are in its columns than among its documents"
        except (OSError, RuntimeError, KeyError) as error:
            self.problem = f"its columns cannot be read ({error!r:.100})"
        return not self.problem

    def has_more(self, documents: int, rows: int) -> bool:
        """Tell whether more documents or events can be read in the file, and it has no second name yet."""
        try:
            if self.path.stat().st_nlink > 1:
                return False
            with h5py.File(self.path, "r") as file:
                texts, streams = file.get("entry/documents/json"), file.get("entry/streams")
                groups = streams.values() if isinstance(streams, h5py.Group) else ()
                columns = [group.get("time") for group in groups]
                found = sum(len(times) for times in columns if isinstance(times, h5py.Dataset))
                return found > rows or (isinstance(texts, h5py.Dataset) and len(texts) > documents)
        except (OSError, RuntimeError, KeyError):
            return False

    def keep(self, name: str) -> Path:
        """Give the file a second, visible name beside it, which no other file has; raises OSError."""
        for number in range(1, 100):
            path = self.path.with_name(name if number == 1 else f"{Path(name).stem}_{number}{Path(name).suffix}")
            try:
                os.link(self.path, path)
            except FileExistsError:
                continue
            return path
        raise FileExistsError(f"every name like {name} is taken in {self.path.parent}")
