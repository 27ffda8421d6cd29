"""Scan points: everything that belongs to one logical point of a run, as one record."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bec_bluesky.documents import Document, Emit, Point, Product, RunCallback, RunProblem, RunSink
from callbacks._bundled_run import BundledRun, Limits
from callbacks._joins import JoinRules

__all__ = ["METADATA", "ScanBundler", "points"]

METADATA = "bundler"
"""Key of a start document under which a plan says how its run is bundled: `{"stream": …, "wait": …, "joins": {…}}`."""
_SLICE = 1_000


class ScanBundler(RunCallback):
    """Emit one Point for each logical scan point of a run's main stream.

    A point is an event (or a row of an event page) of the main stream; where the stream consists of
    StreamDatum only (fly scans) it is an index, as soon as every data key of the stream has delivered it.
    With it come

    - the frames that it has in detectors' files (`frames`), by seq_num. After a rewind these are the frames
      of the repeated attempt, never those of the spoiled one;
    - the rows of streams joined by point (`joins`, or a data key `point_id`);
    - every signal of another stream (monitors) by time, under its own data key: its last value, by its own
      timestamp, at or before the point's `time`, or what `joins` asks for. What the point read itself is not
      replaced. Baseline and interruptions stay out;
    - no arrays of more than 1,000 elements: `timestamps` tells that they were read, the document holds them.

    `time` is the event's; a point of StreamDatum only has none of its own, and bears the latest time of any
    document before it. A point is published when it is complete: it has its frames and its rows, and of each
    signal joined by a rule other than `last` a later update has come. One that waits too long is published as
    it is, with what is `missing`, and once more if that comes after all. A point taken again or published
    again has the same `index` and a higher `revision`; exactly by one if it is among the last 4,096 points,
    else by at least one. An event that comes twice counts once.

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
        joins: Mapping[str, Any] | None = None,
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
        joins: how signals and streams are joined, by their names or patterns of names: `{"ring_current":
            "linear", "mca_*": {"how": "mean", "tolerance": 5, "clock": "event"}, "panda": "point"}`. `how` is
            last, nearest, linear, mean, min, max, count, all, point or none.

        A plan may give stream, wait and joins for its run in its metadata, under "bundler"; those count first.
        Raises ValueError for settings that make no sense; what makes none in metadata is told as a RunProblem.
        """
        super().__init__(emit=emit)
        self._stream = stream
        self._limits = Limits(wait=wait, open_points=open_points, history=history)
        self._rules = JoinRules(joins or {})

    def open_run(self, start: Document) -> RunSink:
        """Bundle every run, as its plan asks for."""
        stream, limits, rules = self._stream, self._limits, self._rules
        try:
            asked = _asked(start)
            stream = asked.get("stream", stream)
            limits = Limits(asked.get("wait", limits.wait), limits.open_points, limits.history)
            rules = JoinRules(asked.get("joins", {}), over=rules)
        except ValueError as error:
            text = f"the metadata's {METADATA!r} is not heeded: {error}"
            self.emit(RunProblem(run_uid=str(start["uid"]), source="bundler", text=text))
        return BundledRun(start, stream, limits, rules, self.emit)


def _asked(start: Document) -> dict[str, Any]:
    """Give what the metadata asks for; raises ValueError if that is of another form."""
    asked = start.get(METADATA) or {}
    if not isinstance(asked, Mapping):
        raise ValueError(f"{asked!r} is no table")
    kinds = {"stream": str, "wait": int | float, "joins": Mapping}
    for name, value in asked.items():
        if name not in kinds:
            raise ValueError(f"there is no {name!r}: there are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name}={value!r} is of the wrong type")
    return dict(asked)


def points(
    documents: Iterable[tuple[str, Document]],
    *,
    stream: str | None = None,
    joins: Mapping[str, Any] | None = None,
    wait: float = 10.0,
) -> Iterator[Point]:
    """Give the points of stored documents: the same as live with the same settings, revisions included.

    The documents come in the order in which they were emitted; several runs may be interleaved. Points that
    still wait when the documents end without a stop document are given with what is missing.
    """
    made: deque[Product] = deque()
    bundler = ScanBundler(emit=made.append, stream=stream, joins=joins, wait=wait)
    for name, document in documents:
        for part in _slices(name, document):
            bundler(name, part)
            yield from _points_of(made)
    for run in bundler.open_runs.values():
        run("stop", {})
    yield from _points_of(made)


def _points_of(made: deque[Product]) -> Iterator[Point]:
    while made:
        product = made.popleft()
        if isinstance(product, Point):
            yield product


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
