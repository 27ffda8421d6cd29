"""A run's points on their way into the catalogue: a table that grows with the run, and is put right at its end."""

import json
import math
import re
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bec_bluesky.documents import DocumentJournal, Point
from writers._tiled_names import StoredNames
from writers._tiled_server import TiledServer

if TYPE_CHECKING:
    from writers._tiled_run import Columns, RunTables

__all__ = ["RunPoints"]

_NAME = "points"
_BATCH = 1_000
"""Points sent at once."""
_EVERY = 1.0
"""Seconds between two batches, while a run goes on."""
_PATIENCE = 15.0
"""Seconds after the newest point for which a run that has ended waits for those that it lacks."""
_FIRST_PATIENCE = 5.0
"""Seconds for which it waits for a first one."""
_MOST_GAPS = 10_000
_REVISION, _MISSING = "point_revision", "point_missing"
_RESERVED = ("seq_num", "time")
_OTHERS = re.compile("^(baseline|interruptions|monitor.*|.*_monitor)$")
"""Streams that are never the main one."""


class RunPoints:
    """Takes a run's points in one thread, and writes them in another as a stream of the run that is marked as derived.

    The table only grows while the run goes on, so that a point that is published again is there twice. Before the stop
    document such a table is written anew, with the newest revision of each point, in order. The same happens when a
    column becomes wider or a signal is new. Points are kept on the disk; of each 16 bytes are in memory.
    """

    def __init__(self) -> None:
        self.name = _NAME
        """Of the stream: another one, if the run has a stream of its own with this name."""
        self._streams: set[str] = set()
        self._journal = DocumentJournal()
        self._indices, self._places = array("q"), array("q")
        """Of every point, in the order in which they came."""
        self._first = 0
        """Number of the first point of the present main stream."""
        self._facts: dict[str, Any] = {}
        self._last = 0
        self._gaps: set[int] = set()
        self._newest = 0.0
        self._data_keys: dict[str, dict[str, Any]] = {}
        self._columns: Columns = {}
        self._tables: RunTables | None = None
        self._names = StoredNames()
        self._descriptor = ""
        self._written = 0
        """Number of the first point that is not in the table."""
        self._put: dict[str, Any] = {}
        self._next = 0.0

    def take(self, point: Point) -> None:
        """Keep a point; those of a stream that was taken for the main one before do not count any more."""
        if point.stream != self._facts.get("stream"):
            self._first, self._last = len(self._indices), 0
            self._gaps.clear()
            self._facts = {"stream": point.stream}
        self._facts = {
            **self._facts,
            "positions": point.positions,
            "signals": point.signals,
            "units": {**self._facts.get("units", {}), **point.units},
            "joins": {**self._facts.get("joins", {}), **point.joins},
        }
        if point.index > self._last:
            self._gaps.update(range(max(self._last + 1, point.index - _MOST_GAPS), point.index))
            self._last = point.index
        self._gaps.discard(point.index)
        self._newest = time.monotonic()
        self._places.append(self._journal.size)
        self._journal.append("point", _row(point))
        self._indices.append(point.index)  # last of all: the other thread counts these

    def lacks(self, events: dict[str, int]) -> int:
        """Tell how many points are to come, of a run with so many events by stream; 0 if none has come."""
        if not len(self._indices):
            return 0
        return len(self._gaps) + max(0, events.get(self._facts["stream"], 0) - self._last)

    def lacks_all(self, events: dict[str, int]) -> bool:
        """Tell whether none has come of a run that should have some, if anybody bundles it."""
        return not len(self._indices) and any(number for stream, number in events.items() if not _OTHERS.search(stream))

    def awaits(self, events: dict[str, int], sealed_at: float, *, is_bundled: bool) -> bool:
        """Tell whether it is worth waiting for the points that the run lacks."""
        if is_bundled and self.lacks_all(events):
            return time.monotonic() < sealed_at + _FIRST_PATIENCE
        return self.lacks(events) > 0 and time.monotonic() < max(sealed_at, self._newest) + _PATIENCE

    def close(self) -> None:
        """Forget everything."""
        self._journal.close()

    # ── in the writer's thread ──

    def make_room(self, stream: str, server: TiledServer, run: "RunTables", run_uid: str) -> None:
        """Leave its name to a stream of the run itself."""
        self._streams.add(stream)
        if self.name != stream:
            return
        self.withdraw(server, run_uid)
        self.begin_again()
        self.name = next(name for n in range(2, 10**6) if (name := f"{_NAME}_{n}") not in self._streams)
        run.put_metadata({"derived_streams": [self.name]})

    def withdraw(self, server: TiledServer, run_uid: str) -> None:
        """Leave none in the catalogue, rather than some."""
        if self._tables is not None:
            self._drop(server, run_uid)

    def begin_again(self) -> None:
        """Forget what was written."""
        self._tables = None
        self._written = 0
        self._next = 0.0

    def advance(self, server: TiledServer, run: "RunTables", run_uid: str) -> None:
        """Append what has come, if it is time."""
        if len(self._indices) == self._written or time.monotonic() < self._next:
            return
        if self._written < self._first:  # of another stream
            self.withdraw(server, run_uid)
            self._data_keys, self._columns = {}, {}
        begin, end = max(self._first, self._written), len(self._indices)
        self._write(server, run, run_uid, range(begin, end), range(self._first, end))
        self._written = end
        self._next = time.monotonic() + _EVERY

    def finish(self, server: TiledServer, run: "RunTables", run_uid: str) -> None:
        """Write what is left; leave the newest revision of each point, in order."""
        end = len(self._indices)
        indices = np.array(self._indices[self._first : end])
        if (np.diff(indices) > 0).all():
            self._next = 0.0
            self.advance(server, run, run_uid)
        else:
            order = np.lexsort((np.arange(len(indices)), indices))
            newest = [self._first + int(number) for number in order[np.append(np.diff(indices[order]) > 0, True)]]
            self.withdraw(server, run_uid)
            self._write(server, run, run_uid, newest, newest)
        if self._tables is not None and self._put != self._facts:
            self._tables.put_facts(self.name, {_NAME: self._facts})

    def _write(
        self, server: TiledServer, run: "RunTables", run_uid: str, numbers: Sequence[int], everything: Sequence[int]
    ) -> None:
        """Append the points of these numbers; if they do not fit the table, write all of them into another one."""
        from writers._tiled_run import ColumnsChanged

        while True:
            try:
                for rows in self._read(numbers):
                    server.allow_operation()
                    self._append(run, run_uid, rows)
                return
            except ColumnsChanged:
                self._drop(server, run_uid)
                numbers = everything

    def _read(self, numbers: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        for begin in range(0, len(numbers), _BATCH):
            some = numbers[begin : begin + _BATCH]
            if isinstance(some, range):  # they follow each other
                yield [row for _, row in self._journal.read(self._places[some[0]], len(some))[0]]
            else:
                yield [self._journal.read(self._places[number], 1)[0][0][1] for number in some]

    def _append(self, run: "RunTables", run_uid: str, rows: list[dict[str, Any]]) -> None:
        from writers._tiled_run import ColumnsChanged

        is_wider = self._learn(rows)
        if self._tables is None:
            self._begin(run, run_uid, rows[0]["time"])
        elif is_wider:
            raise ColumnsChanged(self._tables.columns, {})
        assert self._tables is not None
        for row in rows:
            self._tables.event(self._names("event", self._event(row)))  # pyright: ignore[reportArgumentType]  # a dict all the same
        self._tables.flush()

    def _learn(self, rows: list[dict[str, Any]]) -> bool:
        """Note the data keys that are new, and tell whether there were any."""
        before = len(self._data_keys)
        for row in rows:
            for key in [key for key in row["data"] if key not in self._data_keys]:
                units = self._facts["units"].get(key)
                self._data_keys[key] = _data_key(row["data"][key]) | ({"units": units} if units else {})
        return len(self._data_keys) > before

    def _begin(self, run: "RunTables", run_uid: str, began: float) -> None:
        self._tables = run.beside(self._columns)
        self._names = StoredNames()
        self._descriptor = str(uuid.uuid4())
        self._put = self._facts
        descriptor = {
            "uid": self._descriptor,
            "name": self.name,
            "run_start": run_uid,
            "time": began,
            "data_keys": dict(self._data_keys),
            "configuration": {},
            "hints": {},
            "object_keys": {},
            _NAME: self._facts,
        }
        self._tables.descriptor(self._names("descriptor", descriptor))

    def _event(self, row: dict[str, Any]) -> dict[str, Any]:
        data, stamps = row["data"], row["timestamps"]
        return {
            "descriptor": self._descriptor,
            "seq_num": row["index"],
            "time": row["time"],
            "data": {key: data.get(key) for key in self._data_keys},
            "timestamps": {key: stamps.get(key, math.nan) for key in self._data_keys},
        }

    def _drop(self, server: TiledServer, run_uid: str) -> None:
        if self._tables is not None:
            self._columns = self._tables.columns
        server.delete(run_uid, self.name)
        self._tables = None


def _row(point: Point) -> dict[str, Any]:
    """Give a point as a row: its frames and what it lacks under names of their own."""
    frames = {
        f"{key}_frames_{which}": frame
        for key, of in point.frames.items()
        for which, frame in zip(("start", "stop"), of, strict=True)
    }
    data = {**point.data, **frames}
    stamps: dict[str, float] = dict(point.timestamps)
    for name in _RESERVED:
        if name in data:
            data[f"{name}_"] = data.pop(name)
            stamps[f"{name}_"] = stamps.pop(name, math.nan)
    own = {_REVISION: point.revision, _MISSING: json.dumps(point.missing) if point.missing else ""}
    stamps |= dict.fromkeys((*own, *frames), point.time)
    return {"index": point.index, "time": point.time, "data": data | own, "timestamps": stamps}


def _data_key(value: Any) -> dict[str, Any]:
    """Describe the values of a data key by its first one."""
    source = {"source": _NAME}
    if isinstance(value, list | tuple | np.ndarray):
        try:
            found = np.asarray(value)
        except ValueError:  # rows of unequal length
            return {"dtype": "string", "shape": []} | source
        dtype = found.dtype.str if found.dtype.kind in "biuf" else "<f8"
        return {"dtype": "array", "shape": list(found.shape), "dtype_numpy": dtype} | source
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"))
    dtype = next((name for kind, name in kinds if isinstance(value, kind)), "string")
    return {"dtype": dtype, "shape": []} | source
