"""Writes each run into a NeXus/HDF5 file of its own, which opens with a plot."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import h5py

from bec_bluesky.documents import Document, Emit, RunCallback, RunSink
from writers._nexus_external import ExternalFiles
from writers._nexus_place import FileIndex, Place
from writers._nexus_run import RunFile
from writers._nexus_text import decode

__all__ = ["NexusWriter", "read_documents"]

_log = logging.getLogger(__name__)


class NexusWriter(RunCallback):
    """One file per run: `<directory>/<year>/<scan number>_<plan>.nxs`, never over another.

    The file grows under a hidden name, which ends in `.part`, and gets its own when the run has ended and all is on the
    disk. Deviations (values of mixed types, a detector's file that is not there) are said in the file at
    `/entry/run/problems`, and in the `FileReady` that is emitted.
    """

    required: ClassVar[bool] = True

    def __init__(self, *, emit: Emit | None = None, directory: str | Path) -> None:
        super().__init__(emit=emit)
        self._root = Path(directory).expanduser().absolute()
        self._index = FileIndex(self._root)

    def open_run(self, start: Document) -> RunSink | None:
        """Begin a file; None if the run has one already. Raises SettingsError if none can be written."""
        uid = str(start["uid"])
        if self.holds(uid):
            return None
        earlier = self.open_runs.get(uid)
        if isinstance(earlier, _Run):
            earlier.file.close()
        place = Place(self._root, start)
        if (published := place.find()) is not None:  # killed before the index had it
            self._index.add(uid, published)
            return None
        place.prepare(self._root)
        return _Run(self, RunFile(start, place, ExternalFiles(self._root, place.folder)))

    def holds(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there."""
        return self._index.find(run_uid) is not None

    def is_stored(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there."""
        return self.holds(run_uid)

    def tick(self) -> None:
        """Write what has been in memory for a second."""
        for run in self.open_runs.values():
            if isinstance(run, _Run):
                run.file.flush_if_due()

    def close(self) -> None:
        """Close the files of open runs; they keep their hidden names."""
        for run in self.open_runs.values():
            if isinstance(run, _Run):
                run.file.flush()
                run.file.close()
        super().close()

    def publish(self, file: RunFile) -> None:
        """Give a complete file its name, and announce it."""
        path = file.place.publish()
        self._index.add(str(file.start["uid"]), path)
        ready = file.announcement(str(path), path.stat().st_size)
        for problem in ready.problems:
            _log.warning("%s: %s", path.name, problem, extra={"run": ready.run_uid})
        self.emit(ready)


class _Run:
    """The sink of one run."""

    def __init__(self, writer: NexusWriter, file: RunFile) -> None:
        self.file = file
        self._writer = writer

    def __call__(self, name: str, doc: Document) -> None:
        self.file(name, doc)
        if name == "stop":
            self._writer.publish(self.file)


def read_documents(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the documents of the run in a file, as they were emitted."""
    with h5py.File(path, "r") as file:
        texts = file["entry/documents/json"]
        assert isinstance(texts, h5py.Dataset)
        for begin in range(0, len(texts), 1_000):
            for text in texts[begin : begin + 1_000]:
                name, doc = decode(text)
                yield name, doc
