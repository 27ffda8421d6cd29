"""Layouts: what an instrument adds to the tree of its files, by a YAML file or by a function."""

import importlib
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bec_bluesky.documents import Document
from bec_bluesky.errors import PlugInError, SettingsError
from writers._nexus_stream import StreamTable
from writers._nexus_text import set_attributes, write_value

__all__ = ["Layout", "LayoutRun", "load_layout"]

_KEPT = ("/entry/documents", "/entry/streams")
"""What no layout changes: from these the run can be rebuilt."""


@dataclass(frozen=True)
class LayoutRun:
    """What a layout works with: the file as the writer has made it, and the run."""

    entry: h5py.Group
    """`/entry` of the file, open for writing."""
    start: Document
    stop: Document
    streams: Mapping[str, StreamTable]

    def column(self, stream: str, key: str) -> h5py.Dataset | None:
        """Give the dataset of a data key, a row for each event; None if there is none."""
        table = self.streams.get(stream)
        found = None if table is None else table.group.get(table.names[key]) if key in table.data_keys else None
        return found if isinstance(found, h5py.Dataset) else None

    def points(self, stream: str = "primary") -> Iterator[dict[str, Any]]:
        """Give {data key: value} for each event of a stream; frames in files of detectors are not among them."""
        table = self.streams.get(stream)
        columns = {} if table is None else {key: c.dataset for key, c in table.columns.items() if c.dataset is not None}
        for row in range(table.rows if table is not None else 0):
            yield {key: dataset[row] for key, dataset in columns.items()}


Layout = Callable[[LayoutRun], "list[str] | None"]
"""Changes the tree; gives sentences that are to be told as problems of the file, if there are any."""


class _Field(BaseModel):
    """One field: a value, or where to find it."""

    model_config = ConfigDict(extra="forbid")

    value: Any = None
    start: str | None = Field(None, description="dotted path in the start document, e.g. sample.name")
    stop: str | None = Field(None, description="dotted path in the stop document")
    column: str | None = Field(None, description="STREAM/KEY: the whole column, by a link")
    first: str | None = Field(None, description="STREAM/KEY: its first value")
    last: str | None = Field(None, description="STREAM/KEY: its last value")
    link: str | None = Field(None, description="path of something in the file, e.g. /entry/instrument/det/data")
    units: str | None = None
    attributes: dict[str, Any] = {}
    optional: bool = Field(False, description="say nothing if it cannot be found")

    @model_validator(mode="after")
    def _has_one_source(self) -> "_Field":
        told = [name for name in ("start", "stop", "column", "first", "last", "link") if getattr(self, name)]
        told += ["value"] if self.value is not None else []
        if len(told) != 1:
            raise ValueError(f"one of value, start, stop, column, first, last and link, here: {told or 'none'}")
        for name in ("column", "first", "last"):
            if (where := getattr(self, name)) is not None and where.count("/") != 1:
                raise ValueError(f"{name}: {where!r} is not STREAM/KEY")
        return self


class _Group(BaseModel):
    """One group, which is made if it is not there."""

    model_config = ConfigDict(extra="forbid")

    nx_class: str | None = Field(None, alias="class", pattern=r"^NX[a-zA-Z_]+$")
    attributes: dict[str, Any] = {}
    fields: dict[str, _Field] = {}

    @field_validator("fields", mode="before")
    @classmethod
    def _plain_values(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        return {name: field if isinstance(field, Mapping) else {"value": field} for name, field in fields.items()}


class _Text(BaseModel):
    """A layout file."""

    model_config = ConfigDict(extra="forbid")

    when: dict[str, str | list[str]] = Field({}, description="only for runs whose start document fits these patterns")
    groups: dict[str, _Group] = {}
    default: str | None = Field(None, description="name of the NXdata group in /entry that opens first")

    @field_validator("groups")
    @classmethod
    def _safe_paths(cls, groups: dict[str, _Group]) -> dict[str, _Group]:
        for path in groups:
            if posixpath.normpath(path) != path or not path.startswith("/entry") or path.startswith(_KEPT):
                raise ValueError(f"{path!r}: a path below /entry is needed, and not in {' or '.join(_KEPT)}")
        return groups


def load_layout(where: str) -> Layout:
    """Read a layout: the path of a YAML file, or `module:function`. Raises SettingsError or PlugInError."""
    if not where.endswith((".yaml", ".yml")):
        return _load_function(where)
    from ruamel.yaml import YAML, YAMLError

    loader: Any = YAML(typ="safe", pure=True)
    try:
        text = _Text.model_validate(loader.load(Path(where).expanduser().read_text(encoding="utf-8")) or {})
    except (OSError, YAMLError) as error:
        raise SettingsError(f"layout {where}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = " → ".join(map(str, first["loc"]))
        raise SettingsError(f"layout {where}: {place}: {first['msg']}") from None
    return _Declared(Path(where).name, text)


def _load_function(where: str) -> Layout:
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None) if module and name else None
    except Exception as error:  # here a process meets a plug-in
        raise PlugInError(f"layout {where}: {module} could not be imported ({error!r})") from error
    if not callable(found):
        raise PlugInError(f"layout {where!r}: give the path of a .yaml file, or module:function")
    return cast(Layout, found)


class _Declared:
    """A layout from a YAML file."""

    def __init__(self, name: str, text: _Text) -> None:
        self._name = name
        self._text = text

    def __call__(self, run: LayoutRun) -> list[str]:
        """Add what the file says; what cannot be found is told."""
        if not self._fits(run.start):
            return []
        problems: list[str] = []
        for path, group in self._text.groups.items():
            target = run.entry.file.require_group(path)
            set_attributes(target, ({"NX_class": group.nx_class} if group.nx_class else {}) | group.attributes)
            if "NX_class" not in target.attrs:
                set_attributes(target, {"NX_class": "NXcollection"})
            for name, field in group.fields.items():
                if not _put(run, target, name, field) and not field.optional:
                    problems.append(f"layout {self._name}: {path}/{name} has nothing to show")
        if self._text.default is not None:
            if self._text.default in run.entry:
                set_attributes(run.entry, {"default": self._text.default})
            else:
                problems.append(f"layout {self._name}: there is no /entry/{self._text.default} to open first")
        return problems

    def _fits(self, start: Document) -> bool:
        for key, patterns in self._text.when.items():
            value = str(_found(start, key))
            if not any(fnmatchcase(value, each) for each in ([patterns] if isinstance(patterns, str) else patterns)):
                return False
        return True


def _found(document: Document, path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _put(run: LayoutRun, group: h5py.Group, name: str, field: _Field) -> bool:
    """Write one field, in place of one that is there; False if there is nothing to write."""
    value, target = field.value, None
    if field.start is not None or field.stop is not None:
        value = _found(run.start, field.start) if field.start is not None else _found(run.stop, field.stop or "")
    elif (where := field.column or field.first or field.last) is not None:
        stream, key = where.split("/")
        dataset = run.column(stream, key)
        if dataset is None or not len(dataset):
            return False
        target = dataset if field.column is not None else None
        value = None if target is not None else _one(dataset, 0 if field.first is not None else -1)
        field = field if field.units or target is not None else field.model_copy(update={"units": _units(dataset)})
    elif field.link is not None:
        if field.link not in run.entry.file:
            return False
        _replace(group, name)
        group[name] = h5py.SoftLink(field.link)
        return True
    if target is None and value is None:
        return False
    _replace(group, name)
    if target is not None:
        group[name] = target
        set_attributes(target, {"target": target.name} if "target" not in target.attrs else {})
    else:
        write_value(group, name, value, {"units": field.units} | field.attributes)
    return True


def _replace(group: h5py.Group, name: str) -> None:
    if group.get(name, getlink=True) is not None:
        del group[name]


def _one(dataset: h5py.Dataset, row: int) -> Any:
    if h5py.check_string_dtype(dataset.dtype):
        return dataset.asstr()[row]
    return np.asarray(dataset[row]).tolist()


def _units(dataset: h5py.Dataset) -> str | None:
    units = dataset.attrs.get("units")
    return None if units is None else str(units)
