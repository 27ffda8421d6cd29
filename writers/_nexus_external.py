"""Files that detectors wrote: linked from the run's file, and checked."""

import glob
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py

from bec_bluesky.documents import Document
from writers._nexus_stream import StreamTable, key_attributes
from writers._nexus_text import Names, encode, set_attributes, write_value

__all__ = ["ExternalFiles", "ExternalFrames"]

_OLD_DATASETS = {"AD_HDF5": "/entry/data/data", "AD_HDF5_SWMR": "/entry/data/data"}
"""Where areaDetector's file plug-in puts frames, by the `spec` of ophyd's resources."""
_HDF5 = ("application/x-hdf5", "application/x-hdf5-swmr", "application/x-hdf")


class ExternalFrames:
    """What one stream resource promised: a dataset in a file, and how many of its rows belong to the run."""

    def __init__(self, resource: Document) -> None:
        self.key = str(resource.get("data_key") or "")
        self.mimetype = str(resource.get("mimetype") or "")
        self.uri = str(resource.get("uri") or "")
        parameters = resource.get("parameters") or {}
        self.dataset = str(parameters.get("dataset") or parameters.get("path") or "")
        self.stream = ""
        """Known with the first stream datum."""
        self.frames = 0
        """One past the last index of all stream datums."""
        self.shape: tuple[int, ...] | None = None
        """Of the dataset, once it was looked at; None if it cannot be read."""
        self.link: h5py.ExternalLink | None = None

    @property
    def path(self) -> Path | None:
        """The file on this machine; None if the address is no file."""
        parsed = urlparse(self.uri)
        return Path(unquote(parsed.path)) if parsed.scheme in ("file", "") and parsed.path else None


class ExternalFiles:
    """The stream resources of one run."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root.resolve()
        self._folder = folder.resolve()
        self._by_uid: dict[str, ExternalFrames] = {}
        self._old: list[Document] = []
        self.problems: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._by_uid or self._old)

    def __iter__(self) -> Any:
        """Give every resource, in the order they came."""
        return iter(self._by_uid.values())

    def add(self, resource: Document) -> None:
        """Take a stream resource, or a resource of the older kind."""
        if "data_key" in resource:
            self._by_uid[resource["uid"]] = ExternalFrames(resource)
        else:
            self._old.append(resource)

    def extend(self, datum: Document, stream: str) -> None:
        """Take a stream datum: which rows there are now."""
        frames = self._by_uid.get(datum["stream_resource"])
        if frames is not None:
            frames.stream = stream or frames.stream
            frames.frames = max(frames.frames, int((datum.get("indices") or {}).get("stop", 0)))

    def link(self, streams: dict[str, StreamTable], listing: h5py.Group) -> None:
        """Link every dataset where its column would be, check it, and list the files in `/entry/external_files`."""
        names = Names()
        for frames in self:
            entry = listing.create_group(names[f"{frames.stream}_{frames.key}"])
            set_attributes(entry, {"NX_class": "NXnote", "uri": frames.uri, "frames": frames.frames})
            write_value(entry, "file_name", frames.uri)
            write_value(entry, "type", frames.mimetype)
            self._check(frames)
            stream = streams.get(frames.stream)
            if frames.link is not None and stream is not None:
                name = stream.names[frames.key]
                if name in stream.group:  # a second file of the same detector
                    name = stream.names[f"{frames.key} in {frames.uri}"]
                stream.group[name] = frames.link
                entry["data"] = frames.link
                attributes = key_attributes(frames.key, stream.data_keys.get(frames.key, {}))
                set_attributes(entry, {name: value for name, value in attributes.items() if name != "source"})
        for resource in self._old:
            self._link_old(resource, listing.create_group(names[str(resource.get("uid"))]))

    def _link_old(self, resource: Document, entry: h5py.Group) -> None:
        spec = str(resource.get("spec") or "")
        path = Path(str(resource.get("root") or "/")) / str(resource.get("resource_path") or "").lstrip("/")
        kwargs = resource.get("resource_kwargs")
        set_attributes(entry, {"NX_class": "NXnote", "spec": spec, "resource": resource.get("uid")})
        write_value(entry, "file_name", str(path))
        write_value(entry, "resource_kwargs", encode(kwargs or {}), {"encoding": "json"})
        dataset = _OLD_DATASETS.get(spec)
        if dataset is not None:
            entry["data"] = h5py.ExternalLink(self._name_of(path), dataset)
        if not path.exists() and not any(path.parent.glob(f"{glob.escape(path.name)}*")):  # some name many files
            self.problems.append(f"{spec or 'a resource'}: the file {path} is not there")
        elif dataset is not None:
            try:
                _shape(path, dataset)
            except (OSError, KeyError) as error:
                self.problems.append(f"{spec}: {dataset} in {path} cannot be read ({str(error)[:200]})")

    def _check(self, frames: ExternalFrames) -> None:
        path, what = frames.path, f"{frames.stream or 'no stream'}/{frames.key}"
        if frames.mimetype not in _HDF5 or path is None or not frames.dataset:
            self.problems.append(
                f"{what}: {frames.uri} ({frames.mimetype}) is named here, but only HDF5 files are linked"
            )
            return
        frames.link = h5py.ExternalLink(self._name_of(path), frames.dataset)
        if not path.is_file():
            self.problems.append(f"{what}: the file {path} is not there")
            return
        try:
            frames.shape = _shape(path, frames.dataset)
        except (OSError, KeyError) as error:
            self.problems.append(f"{what}: {frames.dataset} in {path} cannot be read ({str(error)[:200]})")
            return
        present = frames.shape[0] if frames.shape else 0
        if present < frames.frames:
            self.problems.append(f"{what}: {path} holds {present} frames of the {frames.frames} that were announced")

    def _name_of(self, path: Path) -> str:
        """Give a relative name if the file moves together with ours."""
        resolved = path.resolve()
        return os.path.relpath(resolved, self._folder) if resolved.is_relative_to(self._root) else str(resolved)


def _shape(path: Path, dataset: str) -> tuple[int, ...]:
    """Look at a dataset that its writer may have open still."""
    try:
        file = h5py.File(path, "r", swmr=True)
    except (OSError, ValueError):
        file = h5py.File(path, "r")
    with file:
        found = file[dataset]
        if not isinstance(found, h5py.Dataset):
            raise KeyError(f"{dataset} is no dataset")
        return tuple(found.shape)
