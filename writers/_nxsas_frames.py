"""Frames in detectors' own files, as datasets of the run's file: links, virtual datasets, or copies.

A virtual dataset may map each frame by itself: nexusformat takes as many frames as there are mappings (2.1).
Links are never followed here, since HDF5 would open the detector's file for writing.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py

from bec_bluesky.documents import Document

__all__ = ["Frames", "FramesOfRun"]

_OLD = {"AD_HDF5": "/entry/data/data", "AD_HDF5_SWMR": "/entry/data/data"}
"""Where areaDetector's file plug-in puts frames, by the `spec` of older resources."""

_MAPPED_ALONE = 1_000
"""Frames; with more of them a dataset of single mappings opens slowly."""


@dataclass
class _Piece:
    """Rows of one dataset in one file."""

    path: Path
    dataset: str
    begin: int
    end: int


@dataclass
class Frames:
    """What one data key has in files, in the order of the run."""

    key: str
    pieces: list[_Piece] = field(default_factory=list[_Piece])

    def add(self, path: Path, dataset: str, begin: int, end: int) -> None:
        """Take rows; those that go on where the last ones ended make one piece with them."""
        last = self.pieces[-1] if self.pieces else None
        if last is not None and (last.path, last.dataset, last.end) == (path, dataset, begin):
            last.end = end
        else:
            self.pieces.append(_Piece(path, dataset, begin, end))

    def write(self, group: h5py.Group, name: str, folder: Path, *, is_embedded: bool, problems: list[str]) -> None:
        """Make the dataset from what is there; a file that cannot be read is linked, since it may come late."""
        present = list(self._present(problems))
        if not present:
            if len(self.pieces) == 1 and not is_embedded:
                group[name] = h5py.ExternalLink(_relative(self.pieces[0].path, folder), self.pieces[0].dataset)
            return
        pieces = [piece for piece, _, _ in present]
        _, shape, dtype = present[0]
        whole = (sum(piece.end - piece.begin for piece in pieces), *shape[1:])
        if is_embedded:
            self._copy(group, name, pieces, whole, dtype)
        else:
            group.create_virtual_dataset(name, _layout(present, whole, folder))

    def _present(self, problems: list[str]) -> Iterator[tuple[_Piece, tuple[int, ...], Any]]:
        """Give the pieces that can be read, with shape and type of their dataset; say what cannot."""
        frame: tuple[int, ...] | None = None
        for piece in self.pieces:
            try:
                with _opened(piece.path) as file:
                    source: Any = file[piece.dataset]
                    shape, dtype = tuple(source.shape), source.dtype
            except (OSError, KeyError, AttributeError) as error:
                problems.append(f"{self.key}: {piece.dataset} in {piece.path} cannot be read ({str(error)[:150]})")
                continue
            if frame is not None and shape[1:] != frame:
                problems.append(f"{self.key}: the frames in {piece.path} are of another shape and were left out")
                continue
            frame = shape[1:]
            end = max(piece.begin, min(piece.end, shape[0]))
            if end < piece.end:
                problems.append(f"{self.key}: {piece.end - end} announced frames are not in {piece.path}")
            if end > piece.begin:
                yield _Piece(piece.path, piece.dataset, piece.begin, end), shape, dtype

    def _copy(self, group: h5py.Group, name: str, pieces: list[_Piece], shape: tuple[int, ...], dtype: Any) -> None:
        target = group.create_dataset(name, shape=shape, dtype=dtype, chunks=(1, *shape[1:]))
        row = 0
        for piece in pieces:
            with _opened(piece.path) as file:
                source: Any = file[piece.dataset]
                for number in range(piece.begin, piece.end):
                    target[row] = source[number]
                    row += 1


class FramesOfRun:
    """Takes the documents that tell of files: stream resources and datums, and the older resources and datums."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], Frames] = {}
        self._resources: dict[str, Document] = {}
        self._datums: dict[str, Document] = {}
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, Frames]]:
        """Give a stream's name and the frames of a data key of it."""
        for (stream, _), frames in self._streams.items():
            yield stream, frames

    def add_resource(self, resource: Document) -> None:
        """Take a (stream) resource."""
        self._resources[resource["uid"]] = resource

    def add_stream_datum(self, datum: Document, descriptor: Document) -> None:
        """Take the rows that a stream datum announces."""
        resource = self._resources.get(datum["stream_resource"])
        if resource is None:
            return
        key, uri = str(resource["data_key"]), urlparse(str(resource.get("uri") or ""))
        parameters = resource.get("parameters") or {}
        dataset = str(parameters.get("dataset") or parameters.get("path") or "")
        if uri.scheme not in ("file", "") or "hdf" not in str(resource.get("mimetype")) or not dataset:
            self._say(f"{key}: {resource.get('uri')} is no HDF5 file on this machine: its frames are not in this file")
            return
        shape = ((descriptor.get("data_keys") or {}).get(key) or {}).get("shape") or []
        rows = int(shape[0]) if len(shape) > 2 and shape[0] else 1  # frames of each index
        indices = datum.get("indices") or {}
        begin, end = int(indices.get("start", 0)) * rows, int(indices.get("stop", 0)) * rows
        self._frames(descriptor, key).add(Path(unquote(uri.path)), dataset, begin, end)

    def add_datums(self, page: Document) -> None:
        """Take a page of older datums."""
        for number, uid in enumerate(page["datum_id"]):
            kwargs = {key: values[number] for key, values in page["datum_kwargs"].items()}
            self._datums[uid] = {"resource": page["resource"], "kwargs": kwargs}

    def add_event(self, key: str, datum_id: Any, descriptor: Document) -> bool:
        """Take an event's value that stands for frames in a file; False if it stands for nothing that is known."""
        datum = self._datums.get(datum_id) if isinstance(datum_id, str) else None
        resource = None if datum is None else self._resources.get(datum["resource"])
        if datum is None or resource is None:
            return False
        dataset = _OLD.get(str(resource.get("spec")))
        if dataset is None:
            self._say(f"{key}: frames of the kind {resource.get('spec')!r} are not in this file")
            return True
        each = int((resource.get("resource_kwargs") or {}).get("frame_per_point") or 1)
        begin = int(datum["kwargs"].get("point_number", 0)) * each
        path = Path(str(resource.get("root") or "/")) / str(resource.get("resource_path") or "").lstrip("/")
        self._frames(descriptor, key).add(path, dataset, begin, begin + each)
        return True

    def _frames(self, descriptor: Mapping[str, Any], key: str) -> Frames:
        return self._streams.setdefault((str(descriptor.get("name") or "primary"), key), Frames(key))

    def _say(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _layout(
    present: list[tuple[_Piece, tuple[int, ...], Any]], whole: tuple[int, ...], folder: Path
) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout(shape=whole, dtype=present[0][2])
    row = 0
    for piece, shape, dtype in present:
        source = h5py.VirtualSource(_relative(piece.path, folder), piece.dataset, shape=shape, dtype=dtype)
        step = 1 if whole[0] <= _MAPPED_ALONE else piece.end - piece.begin
        for begin in range(piece.begin, piece.end, step):
            layout[row : row + step] = source[begin : begin + step]
            row += step
    return layout


def _opened(path: Path) -> h5py.File:
    """Open a file that its writer may have open still."""
    try:
        return h5py.File(path, "r", swmr=True)
    except (OSError, ValueError):
        return h5py.File(path, "r")


def _relative(path: Path, folder: Path) -> str:
    """Give a name that holds when both move together; on another file system, the whole path."""
    path, folder = path.resolve(), folder.resolve()
    return os.path.relpath(path, folder) if path.parts[:2] == folder.parts[:2] else str(path)
