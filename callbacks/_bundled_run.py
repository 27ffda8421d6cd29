"""One run as the bundler sees it: documents in, points out."""

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from bec_bluesky.documents import Document, Emit, Point, RunProblem
from callbacks._axes import RunAxes, external_keys
from callbacks._frames import FrameRanges, frames_per_index
from callbacks._history import History, small_values
from callbacks._joins import JoinRules
from callbacks._keyed import KeyedStreams
from callbacks._open_point import MainStream, OpenPoint, Published

__all__ = ["BundledRun", "Limits"]

_NEVER_JOINED = ("baseline", "interruptions")


@dataclass(frozen=True)
class Limits:
    """How long points wait and how much is kept; see ScanBundler."""

    wait: float
    open_points: int
    history: int

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        if self.open_points < 1 or self.history < 1 or not self.wait >= 0:
            raise ValueError(
                f"open_points={self.open_points} and history={self.history} must be at least 1, "
                f"and wait={self.wait} not negative"
            )


class BundledRun:
    """Takes one run's documents and emits its points.

    Locked, because in a bare RunEngine monitored signals send their events from threads of their own.
    """

    def __init__(self, start: Document, stream: str | None, limits: Limits, rules: JoinRules, emit: Emit) -> None:
        self._run_uid: str = start["uid"]
        self._scan_id = int(start.get("scan_id") or 0)
        self._axes = RunAxes(start, stream)
        self._history = History(limits.history, rules.find)
        self._keyed = KeyedStreams(rules, limits.open_points)
        self._limits, self._emit = limits, emit
        self._lock = threading.RLock()
        self._clock = float(start.get("time") or 0.0)
        self._main: MainStream | None = None
        self._before = -math.inf
        """Time of the point before; to the first point belongs all that came until then."""
        self._descriptors: dict[str, str] = {}
        self._resources: dict[str, tuple[str, Any]] = {}
        self._units: dict[str, str] = {}
        self._new_units = False
        self._joins: dict[str, str] = {}
        self._keyed_shapes: dict[str, list[int]] = {}
        """{data key that comes as StreamDatum of a stream joined by point: shape}"""
        self._published = Published()
        self._open: dict[int, OpenPoint] = {}
        self._late: dict[int, OpenPoint] = {}
        self._unsettled: dict[str, deque[OpenPoint]] = {}
        """{signal: points that wait for a later update of it}"""
        self._has_complained = False

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

    # ── what comes ──

    def _descriptor(self, doc: Document) -> None:
        stream = doc.get("name", "primary")
        self._descriptors[doc["uid"]] = stream
        self._clock = max(self._clock, doc.get("time") or 0.0)
        if stream in _NEVER_JOINED:
            return
        units = {key: str(of["units"]) for key, of in doc["data_keys"].items() if of.get("units")}
        self._new_units |= any(self._units.get(key) != unit for key, unit in units.items())
        self._units = {**self._units, **units}
        if self._axes.is_main(doc):
            if self._main is None or self._main.name != stream:
                self._finish()
                self._main, self._published, self._new_units = MainStream(stream), Published(), bool(self._units)
            self._main.describe(doc, self._axes)
            self._join_frames()
        else:
            external = external_keys(doc)
            if self._keyed.describe(stream, doc, has_rows=len(external) < len(doc["data_keys"])):
                self._keyed_shapes |= {key: list(doc["data_keys"][key].get("shape") or ()) for key in external}
                self._join_frames()
            else:
                self._history.expect(stream, (key for key in doc["data_keys"] if key not in external))

    def _join_frames(self) -> None:
        """Have points wait for frames of streams that are joined by point, too."""
        if self._main is not None:
            for key in self._keyed_shapes:
                self._main.joined.setdefault(key, FrameRanges())

    def _event(self, doc: Document) -> None:
        self._row(
            self._descriptors[doc["descriptor"]],
            OpenPoint(doc["seq_num"], doc["time"], doc["data"], doc.get("timestamps") or {}, doc.get("uid", "")),
        )

    def _event_page(self, doc: Document) -> None:
        stream = self._descriptors[doc["descriptor"]]
        columns, stamps = doc["data"], doc.get("timestamps") or {}
        uids = doc.get("uid") or [""] * len(doc["seq_num"])
        for row, seq_num in enumerate(doc["seq_num"]):
            data = {key: column[row] for key, column in columns.items()}
            timestamps = {key: float(column[row]) for key, column in stamps.items()}
            self._row(stream, OpenPoint(int(seq_num), float(doc["time"][row]), data, timestamps, uids[row]))

    def _row(self, stream: str, point: OpenPoint) -> None:
        self._clock = max(self._clock, point.time)
        main = self._main
        if main is not None and stream == main.name:
            if not self._is_repeated(point):
                point.data, point.timestamps = small_values(point.data), dict(point.timestamps)
                self._take(main, point)
        elif stream in self._keyed:
            index = self._keyed.add(stream, point.index, point.data, point.timestamps)
            self._complete_at(index)
        elif stream not in _NEVER_JOINED:
            self._history.record(stream, point.time, point.data, point.timestamps)
            if self._unsettled:
                self._settle(point.data)
        if self._open:
            self._expire()

    def _is_repeated(self, point: OpenPoint) -> bool:
        if not point.uid:
            return False
        waiting = self._open.get(point.index)
        return self._published.has(point.index, point.uid) or (waiting is not None and waiting.uid == point.uid)

    def _stream_datum(self, doc: Document) -> None:
        main, stream = self._main, self._descriptors.get(doc["descriptor"])
        if main is None or (stream != main.name and (stream is None or stream not in self._keyed)):
            return
        key, chunk_shape = self._resources[doc["stream_resource"]]
        ranges = main.ranges_of(key)
        if ranges is None:
            return
        indices, seq_nums = doc["indices"], doc["seq_nums"]
        first, stop = seq_nums["start"], seq_nums["stop"]
        if stop <= first:  # composed outside a RunEngine, which numbers the points
            first, stop = indices["start"] + 1, indices["stop"] + 1
        if first < ranges.stop:
            for other in (*main.ranges.values(), *main.joined.values()):
                other.cut(first)
        shape = main.shapes.get(key) or self._keyed_shapes.get(key)
        frames = frames_per_index(shape, chunk_shape)
        ranges.add(first, stop, indices["start"] * frames, indices["stop"] * frames)
        if not main.has_events and stream == main.name:
            self._take_covered(main, min(of.stop for of in main.ranges.values()))
        for waiting in (self._open, self._late):
            for index in [index for index in waiting if first <= index < stop]:
                self._complete(main, waiting[index])

    # ── points that wait ──

    def _take(self, main: MainStream, point: OpenPoint) -> None:
        """Join a new point with what is there; publish it if that is all."""
        if point.index <= main.last:
            self._keyed.cut(point.index)
        main.last = point.index
        point.since, self._before = self._before, point.time
        point.uncertain = self._history.join(point.interval, point.data, point.timestamps)
        point.awaited = self._keyed.awaited()
        if not (main.ranges or main.joined or point.awaited or point.uncertain):
            self._publish(main, point)
            return
        spoiled = self._open.pop(point.index, None)
        if spoiled is not None:
            self._publish(main, spoiled)
        self._drop_late(point.index)
        self._open[point.index] = point
        for key in point.uncertain:
            self._unsettled.setdefault(key, deque(maxlen=2 * self._limits.open_points)).append(point)
        self._complete(main, point)
        if len(self._open) > self._limits.open_points:
            self._complain()
            self._give_up(main, next(iter(self._open)))

    def _complete_at(self, index: int) -> None:
        for waiting in (self._open, self._late):
            if self._main is not None and index in waiting:
                self._complete(self._main, waiting[index])

    def _complete(self, main: MainStream, point: OpenPoint) -> None:
        """Give a waiting point what has come; publish it once that is all."""
        for stream in list(point.awaited):
            if self._keyed.take(stream, point.index, point.data, point.timestamps):
                point.awaited.remove(stream)
                point.is_news = True
        for key, ranges in (*main.ranges.items(), *main.joined.items()):
            if key not in point.frames and (frames := ranges.take(point.index)) is not None:
                point.frames[key] = frames
                point.is_news = True
        if point.lacks(main):
            return
        self._open.pop(point.index, None)
        self._drop_late(point.index)
        if point.is_news or not point.was_published:
            self._publish(main, point)

    def _settle(self, data: Document) -> None:
        """Complete the points that waited for a later update of a signal."""
        for key in self._unsettled.keys() & data.keys():
            waiting = self._unsettled[key]
            while waiting and (waiting[0].is_gone or self._history.is_settled(key, waiting[0].time)):
                point = waiting.popleft()
                if not point.is_gone and self._main is not None:
                    self._look_up(point, key)
                    point.uncertain.remove(key)
                    self._complete(self._main, point)
            if not waiting:
                del self._unsettled[key]

    def _look_up(self, point: OpenPoint, key: str) -> None:
        found = self._history.look_up(key, point.interval)
        if found is not None and not (key in point.data and _is_same(point.data[key], found[0])):
            point.data[key], point.timestamps[key] = found
            point.is_news = True

    def _expire(self) -> None:
        while self._open and self._main is not None:
            point = next(iter(self._open.values()))
            if point.time + self._limits.wait > self._clock:
                return
            self._give_up(self._main, point.index)

    def _give_up(self, main: MainStream, index: int) -> None:
        """Publish a point as it is; it goes on waiting, to be published again."""
        point = self._open.pop(index)
        self._late[index] = point
        if len(self._late) > self._limits.open_points:
            self._drop_late(next(iter(self._late)))
        self._publish(main, point)

    def _drop_late(self, index: int) -> None:
        point = self._late.pop(index, None)
        if point is not None and point.was_published:
            point.is_gone = True

    def _take_covered(self, main: MainStream, stop: int | None) -> None:
        """Take the indices before `stop` (all, if None, as they are) that any data key has delivered."""
        while True:
            waiting = [of.first for of in main.ranges.values() if of.first is not None]
            if not waiting or (stop is not None and min(waiting) >= stop):
                return
            index = min(waiting)
            point = OpenPoint(index, self._clock, {}, {}, "")
            point.frames = {key: taken for key, of in main.ranges.items() if (taken := of.take(index)) is not None}
            if stop is not None:
                self._take(main, point)
                continue
            point.since = self._before
            point.uncertain = self._history.join(point.interval, point.data, point.timestamps)
            self._publish(main, point)

    def _finish(self) -> None:
        """Publish what waits, as it is."""
        main = self._main
        if main is None:
            return
        if not main.has_events or (self._published.nothing and not self._open):
            self._take_covered(main, None)
        for index in list(self._open):
            self._publish(main, self._open.pop(index))
        self._late.clear()
        self._unsettled.clear()

    # ── out ──

    def _publish(self, main: MainStream, point: OpenPoint) -> None:
        for key in point.uncertain:
            self._look_up(point, key)
        units, self._new_units = (self._units if self._new_units else {}), False
        joins = self._history.rules() if self._history.count != len(self._joins) else self._joins
        is_new, self._joins = joins is not self._joins, joins
        self._emit(
            Point(
                run_uid=self._run_uid,
                scan_id=self._scan_id,
                stream=main.name,
                index=point.index,
                time=point.time,
                data=dict(point.data) if point.uncertain or point.awaited else point.data,
                timestamps=dict(point.timestamps) if point.uncertain or point.awaited else point.timestamps,
                positions=main.positions,
                signals=main.signals,
                units=units,
                frames=dict(point.frames) if point.frames else {},
                revision=self._published.next_revision(point.index, point.uid),
                missing=point.missing(main),
                joins=joins if is_new else {},
            )
        )
        point.was_published, point.is_news = True, False

    def _complain(self) -> None:
        if not self._has_complained:
            self._has_complained = True
            text = (
                f"more than {self._limits.open_points} points wait for what belongs to them: they are given as they are"
            )
            self._emit(RunProblem(run_uid=self._run_uid, source="bundler", text=text))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | list) or isinstance(other, np.ndarray | list):
        return np.array_equal(one, other)
    return one is other or one == other
