"""Exports the scalars of a run as comma-separated values: one file for each stream, a row for each event.

suitcase-csv does the same for older versions of pandas; with pandas 3 its files are closed under it (0.3.0).
"""

import csv
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import event_model
import numpy as np

from bec_bluesky.documents import Document, DocumentMender, file_prefix

__all__ = ["Serializer", "export"]

_log = logging.getLogger(__name__)


def export(
    gen: Iterable[tuple[str, Document]], directory: str | Path, file_prefix: str = "{uid}-"
) -> dict[str, list[Path]]:
    """Write the streams of a run; give `{"stream_data": paths}`."""
    with Serializer(directory, file_prefix) as serializer:
        for name, document in gen:
            serializer(name, dict(document))
    for problem in serializer.problems:
        _log.warning("%s: %s", serializer.artifacts, problem)
    return serializer.artifacts


class Serializer(event_model.DocumentRouter):
    """Takes the documents of one run and writes `<file_prefix><stream>.csv`.

    The columns are `time` (seconds since 1970), `seq_num` and the data keys with one value an event. Arrays and what is
    in files of its own are left out. Events that are taken again after a pause are rows of their own, with the same
    `seq_num`. Raises FileExistsError: nothing is overwritten.
    """

    def __init__(self, directory: str | Path, file_prefix: str = "{uid}-") -> None:
        super().__init__()
        self._directory = Path(directory).expanduser()
        self._template = file_prefix
        self._prefix = ""
        self._mender = DocumentMender()
        self._tables: dict[tuple[str, tuple[str, ...]], _Table] = {}
        self._of_descriptor: dict[str, _Table] = {}

    @property
    def artifacts(self) -> dict[str, list[Path]]:
        """The files so far."""
        paths = [table.path for table in self._tables.values()]
        return {"stream_data": paths} if paths else {}

    @property
    def problems(self) -> list[str]:
        """What was wrong with the documents."""
        return self._mender.problems

    def __call__(self, name: str, doc: Any, validate: bool = False) -> Any:
        """Take one document; what is malformed is put right or left out."""
        for part in self._mender(name, doc):
            super().__call__(part[0], dict(part[1]), validate=validate)
        return name, doc

    def start(self, doc: Any) -> None:
        if self._prefix:
            raise ValueError("a Serializer takes one run: make another for the next")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._prefix = file_prefix(self._template, doc)

    def descriptor(self, doc: Any) -> None:
        stream, columns = str(doc.get("name") or "primary"), tuple(_columns(doc))
        if not columns:
            return
        table = self._tables.get((stream, columns))
        if table is None:
            number = sum(stream == other for other, _ in self._tables) + 1
            name = stream if number == 1 else f"{stream}_{number}"  # its columns have changed within the run
            table = self._tables[stream, columns] = _Table(self._path(name), columns)
        self._of_descriptor[doc["uid"]] = table

    def event_page(self, doc: Any) -> Any:
        table = self._of_descriptor.get(doc["descriptor"])
        if table is not None:
            table.append(doc)

    def stop(self, doc: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; harmless when repeated."""
        for table in self._tables.values():
            table.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except OSError:
            kind = OSError
            raise
        finally:
            if kind is not None:  # half a table must not look like a whole one
                for table in self._tables.values():
                    table.path.unlink(missing_ok=True)

    def _path(self, stream: str) -> Path:
        return self._directory / f"{self._prefix}{file_prefix('{stream}', {'stream': stream})}.csv"


class _Table:
    """One file of rows."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self._columns = columns
        self.file: TextIO = path.open("x", newline="", encoding="utf-8", errors="backslashreplace")
        self._writer = csv.writer(self.file, lineterminator="\n")
        self._writer.writerow(["time", "seq_num", *columns])

    def append(self, page: Document) -> None:
        data = [page["data"].get(column, ()) for column in self._columns]
        for row, (time, number) in enumerate(zip(page["time"], page["seq_num"], strict=True)):
            cells = [_cell(values[row]) if row < len(values) else "" for values in data]
            self._writer.writerow([time, number, *cells])


def _columns(descriptor: Document) -> Iterable[str]:
    for key, description in (descriptor.get("data_keys") or {}).items():
        if "external" not in description and int(np.prod(description.get("shape") or [1])) == 1:
            yield key


def _cell(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        values = np.asarray(value, dtype=object).ravel()
        return values[0] if values.size == 1 else json.dumps(value, default=_plain)
    if isinstance(value, Mapping):
        return json.dumps(value, default=_plain)
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
