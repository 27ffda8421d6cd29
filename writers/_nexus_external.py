"""Files that detectors wrote: linked from the run's file, and checked."""

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_checksum import checksum
from writers._nexus_stream import StreamTable, key_attributes
from writers._nexus_text import Names, encode, set_attributes, write_value

__all__ = ["ExternalFiles", "ExternalFrames"]

_OLD_DATASETS = {"AD_HDF5": "/entry/data/data", "AD_HDF5_SWMR": "/entry/data/data"}
"""Where areaDetector's file plug-in puts frames, by the `spec` of ophyd's resources."""
_MAPPED_ALONE = 250
"""Frames up to which each is mapped by itself, at 0.2 ms each: nexusformat (2.1) takes as many frames as there are
mappings. More of them, in one file, are linked, which pynxtools (0.16) cannot follow."""
_LEFT_OPEN = (
    "{path} is still open for writing, or its writer was killed: it is read with h5py.File(…, swmr=True) only, and so "
    "is this file where it shows it; once nothing writes it any more, `h5clear -s {path}` makes it readable for all"
)
_HDF5 = ("application/x-hdf5", "application/x-hdf5-swmr", "application/x-hdf")


class ExternalFrames:
    """What one stream resource promised: a dataset in a file, and which of its rows belong to the run."""

    def __init__(self, resource: Document) -> None:
        self.key = str(resource.get("data_key") or "")
        self.mimetype = str(resource.get("mimetype") or "")
        self.uri = str(resource.get("uri") or "")
        parameters = resource.get("parameters") or {}
        self.dataset = str(parameters.get("dataset") or parameters.get("path") or "")
        self.stream = ""
        """Known with the first stream datum."""
        self.first: int | None = None
        """The first index of all stream datums; None before the first."""
        self.frames = 0
        """One past the last index of all stream datums."""
        self.missing = 0
        """Indices that no stream datum had, though a later one came."""
        self.repeated = 0
        self.per_index = 1
        """Rows of the dataset for each index."""
        self.shape: tuple[int, ...] | None = None
        """Of what is linked, once it was looked at; None if it cannot be read."""
        self.dtype: np.dtype = np.dtype(np.float64)
        self.link: h5py.ExternalLink | h5py.Dataset | None = None
        """What stands in the stream's group for these frames; None if others of the same key stand for them."""

    @property
    def path(self) -> Path | None:
        """The file on this machine; None if the address is no file."""
        parsed = urlparse(self.uri)
        return Path(unquote(parsed.path)) if parsed.scheme in ("file", "") and parsed.path else None

    @property
    def is_hdf5(self) -> bool:
        """Whether it can be linked."""
        return self.mimetype in _HDF5 and self.path is not None and bool(self.dataset)

    @property
    def rows(self) -> tuple[int, int]:
        """The rows of the dataset that belong to the run: the first, and one past the last."""
        return (self.first or 0) * self.per_index, self.frames * self.per_index

    def extend(self, datum: Document) -> None:
        """Take the indices of a stream datum."""
        indices = datum.get("indices") or {}
        start, stop = int(indices.get("start", 0)), int(indices.get("stop", 0))
        if self.first is None:
            self.first = start
        elif start > self.frames:
            self.missing += start - self.frames
        elif start < self.frames:
            self.repeated += min(stop, self.frames) - start
        self.first = min(self.first, start)
        self.frames = max(self.frames, stop)

    def look(self) -> tuple[int, ...]:
        """Give the shape of the dataset as it is now; raises OSError or KeyError if it cannot be read."""
        assert self.path is not None
        shape, self.dtype = _look(self.path, self.dataset)
        return shape


class ExternalFiles:
    """The stream resources of one run."""

    def __init__(self, root: Path, folder: Path, *, with_checksums: bool = False) -> None:
        self._root = root.resolve()
        self._folder = folder.resolve()
        self._with_checksums = with_checksums
        self._by_uid: dict[str, ExternalFrames] = {}
        self._old: list[Document] = []
        self.problems: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._by_uid or self._old)

    def __iter__(self) -> Iterator[ExternalFrames]:
        """Give every resource, in the order they came."""
        return iter(self._by_uid.values())

    def add(self, resource: Document) -> None:
        """Take a stream resource, or a resource of the older kind."""
        if "data_key" in resource:
            self._by_uid[resource["uid"]] = ExternalFrames(resource)
        else:
            self._old.append(resource)

    def extend(self, datum: Document, stream: StreamTable | None) -> None:
        """Take a stream datum: which rows there are now."""
        frames = self._by_uid.get(datum["stream_resource"])
        if frames is None:
            self.problems.append(f"stream datum {datum.get('uid')}: its stream resource never came")
            return
        frames.stream = frames.stream if stream is None else stream.name
        frames.extend(datum)

    def is_late(self, streams: Mapping[str, StreamTable], *, until_closed: bool) -> bool:
        """Tell whether a file is not there yet, lacks promised frames, or, `until_closed`, is open for writing."""
        for frames in self:
            if not frames.is_hdf5:
                continue
            try:
                shape = frames.look()
            except (OSError, KeyError):
                return True
            frames.per_index = _rows_per_index(shape, frames, streams)
            if (shape[0] if shape else 0) < frames.rows[1]:
                return True
            if until_closed and frames.path is not None and _is_open(frames.path):
                return True
        paths = [_old_path(resource) for resource in self._old]
        return any(not _is_there(path) or (until_closed and _is_open(path)) for path in paths)

    def link(self, streams: dict[str, StreamTable], listing: h5py.Group, *, says_open: bool) -> None:
        """Link every dataset where its column would be, check it, and list the files in `/entry/external_files`.

        `says_open`: a file that is open for writing was left so, and that is told.
        """
        names = Names()
        together: dict[tuple[str, str], list[ExternalFrames]] = {}
        entries: list[tuple[ExternalFrames, h5py.Group]] = []
        for frames in self:
            entries.append((frames, listing.create_group(names.another(f"{frames.stream}_{frames.key}"))))
            self._list(*entries[-1], streams)
            if frames.is_hdf5:
                together.setdefault((frames.stream, frames.key), []).append(frames)
        for (stream, _), parts in together.items():
            if stream in streams:
                self._place(streams[stream], parts)
        for frames, entry in entries:
            self._show(frames, entry, is_alone=len(together.get((frames.stream, frames.key), ())) == 1)
        for resource in self._old:
            self._link_old(resource, listing.create_group(names[str(resource.get("uid"))]))
        if says_open:
            paths = [frames.path for frames in self if frames.is_hdf5 and frames.path is not None]
            for path in dict.fromkeys([*paths, *map(_old_path, self._old)]):
                if _is_open(path):
                    self.problems.append(_LEFT_OPEN.format(path=path))

    def _list(self, frames: ExternalFrames, entry: h5py.Group, streams: Mapping[str, StreamTable]) -> None:
        set_attributes(entry, {"NX_class": "NXnote", "uri": frames.uri, "frames": frames.frames})
        write_value(entry, "file_name", frames.uri)
        write_value(entry, "type", frames.mimetype)
        self._check(frames, streams)
        if self._with_checksums and frames.is_hdf5 and frames.path is not None and frames.path.is_file():
            set_attributes(entry, {"checksum": checksum(frames.path)})
        if (stream := streams.get(frames.stream)) is not None:
            attributes = key_attributes(frames.key, stream.data_keys.get(frames.key, {}))
            set_attributes(entry, {name: value for name, value in attributes.items() if name != "source"})

    def _show(self, frames: ExternalFrames, entry: h5py.Group, *, is_alone: bool) -> None:
        """Show what one file has: the stream's dataset if that is of this file alone, else a link into the file."""
        if is_alone and isinstance(frames.link, h5py.Dataset):
            entry["data"] = frames.link
        elif frames.is_hdf5 and frames.path is not None:
            entry["data"] = h5py.ExternalLink(self.name_of(frames.path), frames.dataset)

    def _place(self, stream: StreamTable, parts: list[ExternalFrames]) -> None:
        """Let one dataset of the stream stand for all files of a detector: a virtual dataset of the rows of the run.

        What cannot be read (yet) is linked, since it may come later, and so are many frames in one file.
        """
        first, name = parts[0], stream.names[parts[0].key]
        assert first.path is not None
        known = [part for part in parts if part.shape]
        is_whole = len(parts) == 1 and (not first.shape or first.rows in ((0, first.shape[0]), (0, 0)))
        is_linked = is_whole and not 0 < first.rows[1] <= _MAPPED_ALONE
        if is_linked or not known or len({part.shape[1:] for part in known if part.shape}) > 1:
            first.link = stream.group[name] = h5py.ExternalLink(self.name_of(first.path), first.dataset)
            for part in parts[1:]:
                assert part.path is not None
                other = stream.names[f"{part.key} in {part.uri}"]
                part.link = stream.group[other] = h5py.ExternalLink(self.name_of(part.path), part.dataset)
            return
        frame = (known[0].shape or ())[1:]
        dtype = np.result_type(*(part.dtype for part in known))
        total = sum(part.rows[1] - part.rows[0] for part in parts)
        layout, at = h5py.VirtualLayout((total, *frame), dtype), 0
        for part in parts:
            assert part.path is not None
            begin, end = part.rows
            shape = part.shape or (end, *frame)
            present = max(0, min(end, shape[0]) - begin)
            source = h5py.VirtualSource(self.name_of(part.path), part.dataset, shape=shape, dtype=part.dtype)
            step = 1 if total <= _MAPPED_ALONE else max(1, present)
            for row in range(0, present, step):
                layout[at + row : at + row + step] = source[begin + row : begin + row + step]
            at += end - begin
        dataset = stream.group.create_virtual_dataset(name, layout, fillvalue=_nothing(dtype))
        set_attributes(dataset, key_attributes(first.key, stream.data_keys.get(first.key, {})))
        first.link, first.shape = dataset, (total, *frame)

    def _link_old(self, resource: Document, entry: h5py.Group) -> None:
        spec, path = str(resource.get("spec") or ""), _old_path(resource)
        kwargs = resource.get("resource_kwargs")
        set_attributes(entry, {"NX_class": "NXnote", "spec": spec, "resource": resource.get("uid")})
        write_value(entry, "file_name", str(path))
        write_value(entry, "resource_kwargs", encode(kwargs or {}), {"encoding": "json"})
        dataset = _OLD_DATASETS.get(spec)
        if dataset is not None:
            entry["data"] = h5py.ExternalLink(self.name_of(path), dataset)
        if not _is_there(path):
            self.problems.append(f"{spec or 'a resource'}: the file {path} is not there")
        elif dataset is not None:
            try:
                _look(path, dataset)
            except (OSError, KeyError) as error:
                self.problems.append(f"{spec}: {dataset} in {path} cannot be read ({str(error)[:200]})")

    def _check(self, frames: ExternalFrames, streams: Mapping[str, StreamTable]) -> None:
        path, what = frames.path, f"{frames.stream or 'no stream'}/{frames.key}"
        if frames.missing:
            self.problems.append(f"{what}: {frames.missing} frames are missing, by the indices of the stream datums")
        if frames.repeated:
            self.problems.append(f"{what}: {frames.repeated} frames were announced twice")
        if not frames.is_hdf5 or path is None:
            gone = "" if path is None or _is_there(path) else ", and is not there"
            self.problems.append(
                f"{what}: {frames.uri} ({frames.mimetype}) is named here, but only HDF5 files are linked{gone}"
            )
            return
        if not path.is_file():
            self.problems.append(f"{what}: the file {path} is not there")
            return
        try:
            frames.shape = frames.look()
        except (OSError, KeyError) as error:
            self.problems.append(f"{what}: {frames.dataset} in {path} cannot be read ({str(error)[:200]})")
            return
        frames.per_index = _rows_per_index(frames.shape, frames, streams)
        present, promised = frames.shape[0] if frames.shape else 0, frames.rows[1]
        if present < promised:
            self.problems.append(f"{what}: {path} holds {present} frames of the {promised} that were announced")

    def name_of(self, path: Path) -> str:
        """Give a relative name if the file moves together with ours."""
        resolved = path.resolve()
        return os.path.relpath(resolved, self._folder) if resolved.is_relative_to(self._root) else str(resolved)


def _rows_per_index(shape: tuple[int, ...], frames: ExternalFrames, streams: Mapping[str, StreamTable]) -> int:
    """Tell how many rows each index has: a data key that has as many dimensions as the dataset says it first."""
    stream = streams.get(frames.stream)
    declared = list((stream.data_keys.get(frames.key, {}) if stream else {}).get("shape") or ())
    return int(declared[0]) if len(declared) == len(shape) > 1 and declared[0] and int(declared[0]) > 0 else 1


def _nothing(dtype: np.dtype) -> Any:
    return np.nan if dtype.kind == "f" else 0


def _old_path(resource: Document) -> Path:
    return Path(str(resource.get("root") or "/")) / str(resource.get("resource_path") or "").lstrip("/")


def _is_there(path: Path) -> bool:
    """Tell whether a file is there, or several whose names begin so."""
    return path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}*"))


def _is_open(path: Path) -> bool:
    """Tell whether a file can be read while it is written (SWMR), and in no other way."""
    for is_swmr in (False, True):
        try:
            h5py.File(path, "r", swmr=is_swmr).close()
        except (OSError, ValueError):
            continue
        return is_swmr
    return False


def _look(path: Path, dataset: str) -> tuple[tuple[int, ...], np.dtype]:
    """Look at a dataset that its writer may have open still."""
    try:
        file = h5py.File(path, "r", swmr=True)
    except (OSError, ValueError):
        file = h5py.File(path, "r")
    with file:
        found = file[dataset]
        if not isinstance(found, h5py.Dataset):
            raise KeyError(f"{dataset} is no dataset")
        return tuple(found.shape), found.dtype
