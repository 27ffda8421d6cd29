"""One stream of a run as columns in `/entry/streams/<stream>`."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_column import GrowingDataset
from writers._nexus_documents import References, elements
from writers._nexus_text import Names, set_attributes
from writers._tiled_column import Column

__all__ = ["StreamTable", "key_attributes"]

_EPOCH = "1970-01-01T00:00:00+00:00"
"""What `time` and the timestamps count from, in seconds."""
_TIME = {"units": "s", "start": _EPOCH}
_LARGE = 1_000
"""Elements; an array with more is stored as a row of its column only, and the event's JSON refers to it."""


def key_attributes(key: str, data_key: Mapping[str, Any]) -> dict[str, Any]:
    """Give the attributes of a dataset that holds the values of a data key."""
    attributes = {
        "data_key": key,
        "units": data_key.get("units"),
        "precision": data_key.get("precision"),
        "source": data_key.get("source"),
        "object_name": data_key.get("object_name"),
        "enum_strs": data_key.get("enum_strs") or data_key.get("choices"),
        "lower_limit": data_key.get("lower_ctrl_limit"),
        "upper_limit": data_key.get("upper_ctrl_limit"),
        "dims": data_key.get("dims"),
    }
    limits = data_key.get("limits")
    for kind, limit in limits.items() if isinstance(limits, Mapping) else ():
        if isinstance(limit, Mapping):
            attributes[f"{kind}_low"] = limit.get("low")
            attributes[f"{kind}_high"] = limit.get("high")
    return attributes


class StreamTable:
    """Collects events in memory and appends them column by column; columns are told by descriptors."""

    def __init__(self, group: h5py.Group, name: str) -> None:
        self.name = name
        self.group = group
        self.descriptors: list[Document] = []
        self.columns: dict[str, GrowingDataset] = {}
        """By data key; those whose data are in the event documents."""
        self.timestamps: dict[str, GrowingDataset] = {}
        self.names = Names("time", "seq_num", "timestamps")
        """Names of the datasets, by data key."""
        self._time = GrowingDataset(group, "time", Column("number"), _TIME)
        self._seq_num = GrowingDataset(group, "seq_num", Column("integer"), {})
        self._stamps = group.create_group("timestamps")
        self._stamps.attrs["NX_class"] = "NXcollection"
        self._newest: int | None = None
        """`seq_num` of the last event in the file."""
        self._missing = self._repeated = 0
        self._waiting: list[Document] = []
        self.waiting_bytes = 0
        """Of large arrays since the last `flush`, about."""
        self.has_pages = False
        """Whether events came in pages, as flyers give them."""
        set_attributes(group, {"NX_class": "NXcollection", "stream": name})

    @property
    def is_monitor(self) -> bool:
        """Whether these are the updates of a signal that bluesky monitored."""
        return self.name.endswith("_monitor")

    @property
    def is_aside(self) -> bool:
        """Whether this stands beside the scan's own data: baseline and monitors."""
        return self.name == "baseline" or self.is_monitor

    @property
    def label(self) -> str:
        """Name of its group."""
        return str(self.group.name).rpartition("/")[2]

    @property
    def rows(self) -> int:
        """Events in the file."""
        return self._time.rows

    @property
    def waiting(self) -> int:
        """Events in memory."""
        return len(self._waiting)

    @property
    def data_keys(self) -> dict[str, Mapping[str, Any]]:
        """Every data key that was declared, the first declaration of each."""
        keys: dict[str, Mapping[str, Any]] = {}
        for descriptor in self.descriptors:
            for key, data_key in descriptor.get("data_keys", {}).items():
                keys.setdefault(key, data_key)
        return keys

    def declare(self, descriptor: Document) -> None:
        """Take a descriptor of this stream."""
        self.descriptors.append(descriptor)
        for key, data_key in descriptor.get("data_keys", {}).items():
            if not str(data_key.get("external", "")).startswith("STREAM:") and key not in self.columns:
                self._add_column(key, data_key)

    def references(self, data: Mapping[str, Any]) -> References:
        """Give the rows that the large arrays of the next event will have."""
        row = self.rows + len(self._waiting)
        return {key: [self._path(key), row] for key, value in data.items() if elements(value) > _LARGE}

    def page_references(self, data: Mapping[str, Any]) -> References:
        """Give the rows that the large arrays of the next page of events will have."""
        row = self.rows + len(self._waiting)
        return {
            key: [self._path(key), row, len(values)]
            for key, values in data.items()
            if len(values) and elements(values[0]) > _LARGE
        }

    def append(self, event: Document, large: Collection[str]) -> None:
        """Take an event; it is in memory until `flush`, but for frames, which are written at once.

        `large` names the data that are large arrays.
        """
        if large:
            kept = {key: self._kept(key, value) for key in large if (value := event["data"].get(key)) is not None}
            event = {**event, "data": {**event["data"], **kept}}
        self._waiting.append(event)

    def _kept(self, key: str, value: Any) -> Any:
        """Write a frame, if all before it are; else copy it, since a device may fill the same array again."""
        self.waiting_bytes += value.nbytes if isinstance(value, np.ndarray) else 8 * elements(value)
        column = self.columns.get(key)
        if column is not None and column.rows == self.rows + len(self._waiting) and column.write_frame(value):
            return None
        return np.array(value) if isinstance(value, np.ndarray) else value

    def flush(self, *, is_last: bool = False) -> None:
        """Append what came to the datasets."""
        events, self._waiting = self._waiting, []
        self.waiting_bytes = 0
        if not events:
            return
        before = self.rows
        rows = [event["data"] for event in events]
        stamps = [event.get("timestamps") or {} for event in events]
        for key in {key: None for row in rows for key in row if key not in self.columns}:
            self._add_column(key, {})
        for key, column in self.columns.items():
            stamp = self.timestamps[key]
            if column.rows < before:  # a column that came late
                column.append([None] * (before - column.rows))
                stamp.append([None] * (before - stamp.rows))
            written = column.rows - before  # frames
            column.append([row.get(key) for row in rows[written:]], is_last=is_last)
            stamp.append([row.get(key) for row in stamps], is_last=is_last)
        self._time.append([_number(event.get("time")) for event in events], is_last=is_last)
        seq_nums = [_count(event.get("seq_num")) for event in events]
        self._seq_num.append(seq_nums, is_last=is_last)
        self._check(seq_nums)

    def _check(self, seq_nums: list[int]) -> None:
        """Count what is missing and what came twice."""
        steps = np.diff(seq_nums if self._newest is None else [self._newest, *seq_nums])
        self._missing += int((steps - 1)[steps > 1].sum())
        self._repeated += int((steps <= 0).sum())
        self._newest = seq_nums[-1]

    def problems(self) -> list[str]:
        """Say how what is stored differs from what came."""
        found = [f"{self.name}/{key}: {note}" for key, column in self.columns.items() for note in column.notes]
        if self._missing:
            found.append(f"{self.name}: {self._missing} events are missing, by their seq_num")
        if self._repeated:
            found.append(f"{self.name}: {self._repeated} events repeat a seq_num")
        return found

    def datasets(self) -> Iterator[tuple[str, GrowingDataset]]:
        """Give all that grows with the stream, by its path in the group; those of a data key in one order."""
        yield "seq_num", self._seq_num
        yield "time", self._time
        for key, column in self.columns.items():
            yield self.names[key], column
            yield f"timestamps/{self.names[key]}", self.timestamps[key]

    def seq_nums(self) -> np.ndarray:
        """Give `seq_num` of every row."""
        return np.array([], np.int64) if self._seq_num.dataset is None else self._seq_num.dataset[()]

    def times(self) -> np.ndarray:
        """Give the time of every row, seconds since 1970."""
        return np.array([], np.float64) if self._time.dataset is None else self._time.dataset[()]

    @property
    def moments(self) -> h5py.Dataset | None:
        """What `times` reads, for streams that are long."""
        return self._time.dataset

    def _path(self, key: str) -> str:
        return f"{self.group.name}/{self.names[key]}"

    def _add_column(self, key: str, data_key: Mapping[str, Any]) -> None:
        name = self.names[key]
        column = Column.declared(dict(data_key))
        self.columns[key] = GrowingDataset(self.group, name, column, key_attributes(key, data_key))
        self.timestamps[key] = GrowingDataset(self._stamps, name, Column("number"), _TIME | {"data_key": key})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
