"""The events of a stream, as an NXsas file keeps them."""

from collections.abc import Iterable
from typing import Any

import h5py

from bec_bluesky.documents import Document
from writers._nexus_column import GrowingDataset
from writers._nexus_text import Names, set_attributes
from writers._nxsas_frames import FramesOfRun
from writers._tiled_column import Column

__all__ = ["BATCH_BYTES", "StreamColumns", "add_units"]

_BATCH = 500
"""Events in memory, at most."""
BATCH_BYTES = 16 * 2**20
"""Of arrays in events in memory, at most (and one page)."""


class StreamColumns:
    """The events of one stream, below `/bluesky/events/<stream>`."""

    def __init__(self, group: h5py.Group, frames: FramesOfRun) -> None:
        group.attrs["NX_class"] = "NXcollection"
        self.name = str(group.name).rpartition("/")[2]
        self.descriptors: dict[str, Document] = {}
        self.last_time = 0.0
        self._frames = frames
        self._groups = {part: group.create_group(part) for part in ("data", "timestamps")}
        for part in self._groups.values():
            part.attrs["NX_class"] = "NXcollection"
        self._columns: dict[tuple[str, str], GrowingDataset] = {}
        self._names = Names()
        self._waiting: dict[tuple[str, str], list[Any]] = {}
        self._rows = self._bytes = 0
        self._count = 0
        """Events so far."""
        for key in ("time", "seq_num"):
            self._columns["", key] = GrowingDataset(group, key, Column("number" if key == "time" else "integer"), {})

    def declare(self, descriptor: Document) -> None:
        self.descriptors[descriptor["uid"]] = descriptor
        for key, described in (descriptor.get("data_keys") or {}).items():
            name = self._names[key]
            if ("data", key) not in self._columns:
                attributes = {"units": described.get("units") or None, "data_key": key if key != name else None}
                column = Column.declared(dict(described))
                self._columns["data", key] = GrowingDataset(self._groups["data"], name, column, attributes)
                self._columns["timestamps", key] = GrowingDataset(
                    self._groups["timestamps"], name, Column("number"), {"units": "s"}
                )

    def append(self, page: Document) -> None:
        descriptor = self.descriptors[page["descriptor"]]
        for key, values in page["data"].items():
            described = descriptor["data_keys"].get(key) or {}
            is_outside = "external" in described
            if is_outside and sum(self._frames.add_event(key, value, descriptor) for value in values):
                continue
            if ("data", key) in self._columns:
                self._padded(("data", key)).extend(values)
                self._padded(("timestamps", key)).extend(page["timestamps"].get(key) or [None] * len(values))
                self._bytes += sum(getattr(value, "nbytes", 0) for value in values)
        for key in ("time", "seq_num"):
            self._waiting.setdefault(("", key), []).extend(page[key])
        self._rows += len(page["time"])
        self._count += len(page["time"])
        self.last_time = max(self.last_time, *page["time"])
        if self._rows >= _BATCH or self._bytes > BATCH_BYTES:
            self.flush()

    def _padded(self, where: tuple[str, str]) -> list[Any]:
        """Give what waits of a column, with None for the events that had no value of it."""
        values = self._waiting.setdefault(where, [])
        values += [None] * (self._count - self._columns[where].rows - len(values))
        return values

    def problems(self) -> Iterable[str]:
        """Say how what is stored differs from what came."""
        for (part, key), column in self._columns.items():
            if part == "data":
                yield from (f"{self.name}/{key}: {note}" for note in column.notes)

    def flush(self) -> None:
        for where, column in self._columns.items():
            if column.rows or where in self._waiting:
                self._padded(where)
        waiting, self._waiting = self._waiting, {}
        self._rows = self._bytes = 0
        for where, values in waiting.items():
            self._columns[where].append(values)


def add_units(kept: Any, descriptor: Document) -> None:
    """Give the configuration values their units, which stand beside them in the descriptor."""
    for device, configuration in (descriptor.get("configuration") or {}).items():
        for key, described in (configuration.get("data_keys") or {}).items():
            found = kept.get(f"configuration/{Names()[device]}/data/{Names()[key]}")
            if isinstance(found, h5py.Dataset):
                set_attributes(found, {"units": described.get("units") or None})
