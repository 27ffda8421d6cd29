"""Scan points: everything that belongs to one logical point of a run, as one record."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.documents import Document, Emit, Point, Product, RunCallback, RunSink
from callbacks._axes import RunAxes, external_keys
from callbacks._frames import FrameRanges, frames_per_index
from callbacks._history import History, small_values

__all__ = ["ScanBundler", "points"]

_RING = 4_096
_SLICE = 1_000


class ScanBundler(RunCallback):
    """Emit one Point for each logical scan point of a run's main stream.

    A point is an event (or a row of an event page) of the main stream; where the stream consists of
    StreamDatum only (fly scans) it is an index, as soon as every data key of the stream has delivered it.
    With it come

    - the frames that it has in detectors' files (`frames`), by seq_num. After a rewind these are the frames
      of the repeated attempt, never those of the spoiled one;
    - every signal of another stream (monitors) by time: its last value, by its own timestamp, at or before
      the point's `time`, under its own data key. What the point read itself is not replaced. Baseline and
      interruptions stay out;
    - no arrays of more than 1,000 elements: `timestamps` tells that they were read, the document holds them.

    `time` is the event's; a point of StreamDatum only has none of its own, and bears the latest time of any
    document before it. A point taken again has the same `index` and a higher `revision`; exactly by one if it
    is among the last 4,096 points, else by at least one. An event that comes twice counts once.

    Memory does not grow with the run: it holds open points, 4,096 indices, and the last updates of each
    monitored signal. Everything depends on the documents alone, so stored ones give the same points
    (`points()`).
    """

    def __init__(
        self,
        *,
        emit: Emit | None = None,
        stream: str | None = None,
        wait: float = 10.0,
        open_points: int = 1_000,
        history: int = 4_096,
    ) -> None:
        """Store the settings.

        Parameters
        ----------
        emit: takes the points.
        stream: name of the main stream; by default the one that the plan's dimensions name, else "primary",
            else the first that is neither baseline nor a monitor.
        wait: seconds, by the documents' time, that an event waits for the frames promised by its descriptor;
            then the point is published with what is `missing`, and once more (a higher revision) if the
            frames come after all.
        open_points: how many events may wait; beyond that the oldest is published as it is.
        history: updates kept for each monitored signal, so that pages of past events find what was true at
            their time.
        """
        super().__init__(emit=emit)
        if open_points < 1 or history < 1 or wait < 0:
            raise ValueError(
                f"open_points={open_points} and history={history} must be at least 1, and wait={wait} not negative"
            )
        self._stream, self._wait, self._open_points, self._history = stream, wait, open_points, history

    def open_run(self, start: Document) -> RunSink:
        """Bundle every run."""
        joins = _Joins(RunAxes(start, self._stream), History(self._history))
        return _BundledRun(start, joins, self.emit, self._wait, self._open_points)


def points(documents: Iterable[tuple[str, Document]], *, stream: str | None = None) -> Iterator[Point]:
    """Give the points of stored documents: the same as live, revisions included.

    The documents come in the order in which they were emitted; several runs may be interleaved. Points that
    still wait when the documents end without a stop document are given with what is missing.
    """
    made: deque[Product] = deque()
    bundler = ScanBundler(emit=made.append, stream=stream)
    for name, document in documents:
        for part in _slices(name, document):
            bundler(name, part)
            while made:
                yield _as_point(made.popleft())
    for run in bundler.open_runs.values():
        run("stop", {})
    yield from map(_as_point, made)


def _as_point(product: Product) -> Point:
    assert isinstance(product, Point)
    return product


def _slices(name: str, document: Document) -> Iterator[Document]:
    """Cut a StreamDatum of very many indices, so that its points need not be held all at once."""
    if name != "stream_datum":
        yield document
        return
    indices, seq_nums = document["indices"], document["seq_nums"]
    count = indices["stop"] - indices["start"]
    if count <= _SLICE or seq_nums["stop"] - seq_nums["start"] != count:
        yield document
        return
    for begin in range(0, count, _SLICE):
        end = min(begin + _SLICE, count)
        yield {
            **document,
            "indices": {"start": indices["start"] + begin, "stop": indices["start"] + end},
            "seq_nums": {"start": seq_nums["start"] + begin, "stop": seq_nums["start"] + end},
        }


@dataclass(slots=True)
class _Joins:
    """What a run's points are joined with, and how its data keys are told apart."""

    axes: RunAxes
    history: History


@dataclass(slots=True)
class _Stream:
    """What the bundler knows of the main stream, from its latest descriptor."""

    name: str
    positions: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    """Of the data keys that come as StreamDatum."""
    has_events: bool = True
    ranges: dict[str, FrameRanges] = field(default_factory=dict)

    def describe(self, descriptor: Document, axes: RunAxes) -> None:
        keys = descriptor["data_keys"]
        external = external_keys(descriptor)
        self.positions, self.signals = axes.positions(descriptor), axes.signals(descriptor)
        self.shapes = {key: list(keys[key].get("shape") or ()) for key in external}
        self.has_events = len(external) < len(keys)
        self.ranges = {key: self.ranges.get(key) or FrameRanges() for key in external}


@dataclass(slots=True)
class _OpenPoint:
    """A point that is not complete."""

    index: int
    time: float
    data: dict[str, Any]
    timestamps: dict[str, float]
    uid: str
    frames: dict[str, tuple[int, int]] = field(default_factory=dict)


class _Published:
    """Which indices were published lately, how often, and from which event."""

    def __init__(self) -> None:
        self._ring: list[tuple[int, int, str]] = [(-1, 0, "")] * _RING
        self._last = -1
        self._rewinds = 0

    @property
    def nothing(self) -> bool:
        """Whether nothing was published yet."""
        return self._last == -1

    def has(self, index: int, uid: str) -> bool:
        """Tell whether this very event was published."""
        slot = self._ring[index % _RING]
        return slot[0] == index and slot[2] == uid

    def next_revision(self, index: int, uid: str) -> int:
        """Note that this index is published now and give its revision."""
        if index <= self._last:
            self._rewinds += 1
        self._last = index
        before, revision, _ = self._ring[index % _RING]
        if before == index:
            revision += 1
        else:  # a slot overtaken by a later index: it was published long ago, no more often than we went back
            revision = self._rewinds if before > index else 0
        self._ring[index % _RING] = (index, revision, uid)
        return revision


class _BundledRun:
    """One run: documents in, points out.

    Locked, because in a bare RunEngine monitored signals send their events from threads of their own.
    """

    def __init__(self, start: Document, joins: _Joins, emit: Emit, wait: float, open_points: int) -> None:
        self._run_uid: str = start["uid"]
        self._scan_id = int(start.get("scan_id") or 0)
        self._joins, self._emit, self._wait, self._limit = joins, emit, wait, open_points
        self._lock = threading.RLock()
        self._clock = float(start.get("time") or 0.0)
        self._main: _Stream | None = None
        self._descriptors: dict[str, str] = {}
        self._resources: dict[str, tuple[str, Any]] = {}
        self._units: dict[str, str] = {}
        self._new_units = False
        self._published = _Published()
        self._open: dict[int, _OpenPoint] = {}
        self._late: dict[int, _OpenPoint] = {}

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document and emit the points that it completes."""
        with self._lock:
            if name == "event":
                self._event(doc)
            elif name == "event_page":
                self._event_page(doc)
            elif name == "stream_datum":
                self._stream_datum(doc)
            elif name == "descriptor":
                self._descriptor(doc)
            elif name == "stream_resource":
                parameters = doc.get("parameters") or {}
                self._resources[doc["uid"]] = doc["data_key"], parameters.get("chunk_shape")
            elif name == "stop":
                self._finish()

    def _descriptor(self, doc: Document) -> None:
        stream = doc.get("name", "primary")
        self._descriptors[doc["uid"]] = stream
        self._clock = max(self._clock, doc.get("time") or 0.0)
        if stream in ("baseline", "interruptions"):
            return
        units = {key: str(of["units"]) for key, of in doc["data_keys"].items() if of.get("units")}
        self._new_units |= any(self._units.get(key) != unit for key, unit in units.items())
        self._units = {**self._units, **units}
        if not self._joins.axes.is_main(doc):
            return
        if self._main is None or self._main.name != stream:
            self._finish()
            self._main, self._published, self._new_units = _Stream(stream), _Published(), bool(self._units)
        self._main.describe(doc, self._joins.axes)

    def _event(self, doc: Document) -> None:
        self._row(
            self._descriptors[doc["descriptor"]],
            _OpenPoint(doc["seq_num"], doc["time"], doc["data"], doc.get("timestamps") or {}, doc.get("uid", "")),
        )

    def _event_page(self, doc: Document) -> None:
        stream = self._descriptors[doc["descriptor"]]
        columns, stamps = doc["data"], doc.get("timestamps") or {}
        uids = doc.get("uid") or [""] * len(doc["seq_num"])
        for row, seq_num in enumerate(doc["seq_num"]):
            data = {key: column[row] for key, column in columns.items()}
            timestamps = {key: float(column[row]) for key, column in stamps.items()}
            self._row(stream, _OpenPoint(int(seq_num), float(doc["time"][row]), data, timestamps, uids[row]))

    def _row(self, stream: str, point: _OpenPoint) -> None:
        self._clock = max(self._clock, point.time)
        main = self._main
        if main is None or stream != main.name:
            if stream not in ("baseline", "interruptions"):
                self._joins.history.record(point.time, point.data, point.timestamps)
        elif not self._is_repeated(point):
            point.data, point.timestamps = small_values(point.data), dict(point.timestamps)
            self._joins.history.join(point.time, point.data, point.timestamps)
            if main.ranges:
                self._await_frames(main, point)
            else:
                self._publish(main, point)
        if self._open:
            self._expire()

    def _is_repeated(self, point: _OpenPoint) -> bool:
        if not point.uid:
            return False
        waiting = self._open.get(point.index)
        return self._published.has(point.index, point.uid) or (waiting is not None and waiting.uid == point.uid)

    def _await_frames(self, main: _Stream, point: _OpenPoint) -> None:
        spoiled = self._open.pop(point.index, None)
        if spoiled is not None:
            self._publish(main, spoiled)
        self._late.pop(point.index, None)
        self._open[point.index] = point
        self._complete(main, point)
        if len(self._open) > self._limit:
            self._give_up(main, next(iter(self._open)))

    def _complete(self, main: _Stream, point: _OpenPoint) -> None:
        """Publish a waiting point once it has all its frames."""
        for key, ranges in main.ranges.items():
            if key not in point.frames:
                frames = ranges.take(point.index)
                if frames is None:
                    return
                point.frames[key] = frames
        self._open.pop(point.index, None)
        self._late.pop(point.index, None)
        self._publish(main, point)

    def _expire(self) -> None:
        while self._open and self._main is not None:
            point = next(iter(self._open.values()))
            if point.time + self._wait > self._clock:
                return
            self._give_up(self._main, point.index)

    def _give_up(self, main: _Stream, index: int) -> None:
        point = self._open.pop(index)
        self._late[index] = point
        if len(self._late) > self._limit:
            del self._late[next(iter(self._late))]
        self._publish(main, point)

    def _stream_datum(self, doc: Document) -> None:
        main = self._main
        if main is None or self._descriptors.get(doc["descriptor"]) != main.name:
            return
        key, chunk_shape = self._resources[doc["stream_resource"]]
        ranges = main.ranges.get(key)
        if ranges is None:
            return
        indices, seq_nums = doc["indices"], doc["seq_nums"]
        first, stop = seq_nums["start"], seq_nums["stop"]
        if stop <= first:  # composed outside a RunEngine, which numbers the points
            first, stop = indices["start"] + 1, indices["stop"] + 1
        if first < ranges.stop:
            for other in main.ranges.values():
                other.cut(first)
        frames = frames_per_index(main.shapes[key], chunk_shape)
        ranges.add(first, stop, indices["start"] * frames, indices["stop"] * frames)
        if not main.has_events:
            self._publish_covered(main, min(of.stop for of in main.ranges.values()))
        for waiting in (self._open, self._late):
            for index in [index for index in waiting if first <= index < stop]:
                self._complete(main, waiting[index])

    def _publish_covered(self, main: _Stream, stop: int | None) -> None:
        """Publish the indices before `stop` (all, if None) that any data key has delivered."""
        while True:
            waiting = [of.first for of in main.ranges.values() if of.first is not None]
            if not waiting or (stop is not None and min(waiting) >= stop):
                return
            index = min(waiting)
            frames = {key: taken for key, of in main.ranges.items() if (taken := of.take(index)) is not None}
            point = _OpenPoint(index, self._clock, {}, {}, "", frames)
            self._joins.history.join(point.time, point.data, point.timestamps)
            self._publish(main, point)

    def _finish(self) -> None:
        """Publish what waits, as it is."""
        main = self._main
        if main is None:
            return
        if not main.has_events or (self._published.nothing and not self._open):
            self._publish_covered(main, None)
        for index in list(self._open):
            self._publish(main, self._open.pop(index))
        self._late.clear()

    def _publish(self, main: _Stream, point: _OpenPoint) -> None:
        units, self._new_units = (self._units if self._new_units else {}), False
        self._emit(
            Point(
                run_uid=self._run_uid,
                scan_id=self._scan_id,
                stream=main.name,
                index=point.index,
                time=point.time,
                data=point.data,
                timestamps=point.timestamps,
                positions=main.positions,
                signals=main.signals,
                units=units,
                frames=dict(point.frames) if point.frames else {},
                revision=self._published.next_revision(point.index, point.uid),
                missing=[key for key in main.ranges if key not in point.frames] if main.ranges else [],
            )
        )
