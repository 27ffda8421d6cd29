"""The documents of a run in its file, so that the run can be rebuilt from the file alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_column import GrowingDataset
from writers._nexus_text import decode, encode
from writers._tiled_column import Column

__all__ = ["DocumentLog", "References", "elements", "read_documents"]

References = dict[str, list[Any]]
"""{data key: [path of a dataset, row]} of an event, {data key: [path of a dataset, first row, rows]} of a page."""
_FORMAT = (
    "one JSON array [name, document] for each document, in the order they came; "
    "[name, document, references] where large arrays were taken out of an event: references is {data key: [path of a "
    "dataset in this file, row]}, and {data key: [path, first row, rows]} for an event_page; "
    "numpy arrays are lists, NaN and the infinities are NaN, Infinity and -Infinity"
)
_AT_ONCE = 1_000
"""Documents that are read at once."""


class DocumentLog:
    """Collects documents as JSON, and appends them to the dataset `json`."""

    def __init__(self, group: h5py.Group) -> None:
        self._dataset = GrowingDataset(group, "json", Column("string"), {"format": _FORMAT})
        self._waiting: list[str] = []

    @property
    def waiting(self) -> int:
        """Documents in memory."""
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Documents in the file."""
        return self._dataset.rows

    def append(self, name: str, doc: Document, references: References) -> None:
        """Keep a document as it is now, without the data that are rows of other datasets."""
        if references:
            kept = {key: None if key in references else value for key, value in doc["data"].items()}
            self._waiting.append(encode([name, {**doc, "data": kept}, references]))
        else:
            self._waiting.append(encode([name, doc]))

    def flush(self, *, is_last: bool = False) -> None:
        """Append what is in memory."""
        self._dataset.append(self._waiting, is_last=is_last and not self._dataset.rows)
        self._waiting = []


def elements(value: Any) -> int:
    """Count the elements of an array or of nested lists, whose rows are taken to be alike; 1 for anything else."""
    if isinstance(value, np.ndarray):
        return value.size
    return len(value) * elements(value[0]) if isinstance(value, list | tuple) and value else 1


def read_documents(path: str | Path, *, as_lists: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the documents of the run in a file, as they were emitted; arrays are lists, large ones only `as_lists`."""
    with h5py.File(path, "r") as file:
        texts = file["entry/documents/json"]
        assert isinstance(texts, h5py.Dataset)
        for text in _texts(texts):
            name, doc, *references = decode(text)
            for found in references:
                _put_back(doc["data"], file, found, as_lists=as_lists)
            yield name, doc


def _texts(dataset: h5py.Dataset) -> Iterator[Any]:
    """Read many texts at once, and one by one where that fails, so that all before a torn one are given."""
    for begin in range(0, len(dataset), _AT_ONCE):
        try:
            texts = dataset[begin : begin + _AT_ONCE]
        except (OSError, RuntimeError):
            texts = (dataset[row] for row in range(begin, min(begin + _AT_ONCE, len(dataset))))
        yield from texts


def _put_back(data: dict[str, Any], file: h5py.File, references: Mapping[str, Any], *, as_lists: bool) -> None:
    for key, (path, row, *rows) in references.items():
        dataset = file[path]
        assert isinstance(dataset, h5py.Dataset)
        found = dataset[row : row + (rows[0] if rows else 1)]
        if "encoding" in dataset.attrs:
            values = [decode(text) for text in found]
        else:
            values = found.tolist() if as_lists else list(found)
        data[key] = values if rows else values[0]
