"""What an operator hosts: callbacks on documents that also work when subscribed to a bare RunEngine."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Protocol

from bec_bluesky.documents._lost import lost_stop
from bec_bluesky.documents._mender import Document, DocumentMender
from bec_bluesky.messages.products import AnalysisResult, Point, Product, RunProblem

__all__ = ["Document", "Emit", "RunCallback", "RunSink"]

_ALARMS = 3
"""Problems of one run's documents that become alarms, at most."""
Emit = Callable[[Product], None]
"""Takes what a callback made of documents: a Point, an AnalysisResult, a FileReady."""


class RunSink(Protocol):
    """What a callback keeps for one run; it gets every document of that run, the start document first."""

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document."""
        ...


def _nobody(_: Product) -> None:
    """Take a product that nobody asked for."""


class RunCallback:
    """Base of callbacks and writers: subclass it and give `open_run`.

    One object serves any number of runs, one after the other or interleaved: `RE.subscribe(MyCallback())` works, and so
    does a document service, which calls it from one thread. A `stop` document ends a run and its sink is forgotten.

    What a sink gets is sound, as `DocumentMender` says: documents that are malformed or out of order are put right or
    left out, and that is told.

    event_model's RunRouter does the same by another way: it turns events into pages, runs a Filler for each run and
    keeps an entry for every stream resource for ever; here documents arrive as they were emitted.
    """

    pace: ClassVar[float] = 0.0
    """Seconds between two deliveries of documents by a document service, at least: each costs processor time, there and
    on Redis, that scans are short of. For what nobody waits for point by point."""
    required: ClassVar[bool] = False
    """Whether a run's documents must be kept until this callback has stored them."""
    is_offline: ClassVar[bool] = True
    """Whether it works without a running system, so that stored documents can be replayed through it anywhere."""
    mends_documents: ClassVar[bool] = True
    """Whether sinks get sound documents; else as they came, but for events before their descriptor, which wait."""
    wants_results: ClassVar[bool] = False
    """Whether a document service gives it, by `take_result`, what hosted analyses find in its open runs."""

    wants_points: ClassVar[bool] = False
    """Whether a document service gives it, by `take_point`, the points of its open runs."""

    outward_options: ClassVar[frozenset[str]] = frozenset()
    """Options by which it acts on more than its own files, as archives: a replay leaves them out unless asked."""

    owner: str = ""
    """Names the system and the entry of its profile for which this callback works; a document service sets it."""

    def __init__(self, *, emit: Emit | None = None) -> None:
        self.emit: Emit = emit or _nobody
        self._sinks: dict[str, RunSink] = {}
        self._menders: dict[str, DocumentMender] = {}
        self._complaints: dict[str, int] = {}
        self._one_at_a_time = threading.RLock()
        self._runs: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}

    def open_run(self, start: Document) -> RunSink | None:
        """Make what takes the documents of this run, its start document first; None to ignore the run."""
        raise NotImplementedError(f"{type(self).__name__} gives no open_run()")

    def holds(self, run_uid: str) -> bool:
        """Tell whether the sink already has this run complete, so that a restarted service need not feed it again.

        A run that is there only in part is fed again from its start document; the sink must make the same of it.
        """
        return False

    def is_stored(self, run_uid: str) -> bool:
        """Tell whether a run that got its stop document is safe in the sink; until then its documents are kept.

        Raise if it never will be: that becomes an alarm, and the documents stay on Redis.
        """
        return True

    def announcements(self, run_uid: str) -> Iterable[Product]:
        """Give anew what a run that the sink holds was announced with.

        A document service asks where it was killed after the run was stored and before Redis was told.
        """
        return ()

    def unfinished(self) -> Iterable[str]:
        """Give the runs of this owner that the sink has in part and that are not open here."""
        return ()

    def close_lost(self, run_uid: str) -> None:
        """End a run whose documents are gone, with what is known; if they come after all, `holds` must say no."""
        if run_uid in self._sinks:
            self.take(run_uid, "stop", lost_stop(run_uid, self._menders[run_uid].clock))

    def abandon(self, run_uid: str) -> None:
        """Let go of a run whose sink has failed, and call its `close()` if there is one; what it has is unfinished."""
        sink = self._sinks.get(run_uid)
        self._end_run(run_uid)
        if callable(close := getattr(sink, "close", None)):
            close()

    def complain(self, run_uid: str, problems: list[str]) -> None:
        """Say what is wrong with the documents of an open run; by itself, as a few alarms."""
        for text in problems:
            self._complaints[run_uid] = number = self._complaints.get(run_uid, 0) + 1
            if number <= _ALARMS:
                text = text if number < _ALARMS else f"{text}; what else is wrong with this run's documents is not told"
                self.emit(RunProblem(run_uid=run_uid, source=type(self).__name__, text=text))

    def take_result(self, result: AnalysisResult) -> None:
        """Take what an analysis found in a run that was given to `open_run` and is not stored yet."""

    def take_point(self, point: Point) -> None:
        """Take a point, or its next revision, of a run that was given to `open_run` and is not stored yet."""

    def tick(self) -> None:
        """Do what is due by time (flush); a document service calls it at least five times a second."""

    def close(self) -> None:
        """Let go of everything; open runs stay unfinished."""
        self._sinks.clear()
        self._menders.clear()
        self._complaints.clear()
        self._runs.clear()
        self._members.clear()

    @property
    def open_runs(self) -> Mapping[str, RunSink]:
        """The sinks of runs that have no stop document yet, by run uid."""
        return self._sinks

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document of any run."""
        run = str(doc["uid"]) if name == "start" else self._run_of(name, doc)
        if run is not None:
            self.take(run, name, doc)

    def take(self, run: str, name: str, doc: Document) -> None:
        """Take one document of a run whose uid is known; a document service knows it of every document."""
        if name == "start":
            self._begin_run(run, doc)
            return
        if (sink := self._sinks.get(run)) is None:
            if name == "stop":
                self._end_run(run)
            return
        try:
            with self._one_at_a_time:  # in a bare RunEngine, monitored signals send events from threads of their own
                self._mend_for(run, sink, name, doc)
        finally:
            if name == "stop":
                self._end_run(run)

    def _begin_run(self, run: str, start: Document) -> None:
        mender = DocumentMender(only_order=not self.mends_documents)
        ((name, start),) = mender("start", start)
        sink = self.open_run(start)
        if sink is not None:
            self._sinks[run], self._menders[run] = sink, mender
            self._complain_of(run, mender, 0)
            sink(name, start)

    def _mend_for(self, run: str, sink: RunSink, name: str, doc: Document) -> None:
        mender = self._menders[run]
        known = len(mender.problems)
        for part in mender(name, doc):
            if len(mender.problems) > known:  # before the stop document: a sink may have a place for them
                self._complain_of(run, mender, known)
                known = len(mender.problems)
            sink(*part)
        self._complain_of(run, mender, known)

    def _complain_of(self, run: str, mender: DocumentMender, known: int) -> None:
        if problems := mender.problems[known:]:
            self.complain(run, problems)

    def _end_run(self, run: str) -> None:
        self._sinks.pop(run, None)
        self._menders.pop(run, None)
        self._complaints.pop(run, None)
        for uid in self._members.pop(run, ()):
            self._runs.pop(uid, None)

    def _run_of(self, name: str, doc: Document) -> str | None:
        if doc.get("run_start") is not None:
            run = str(doc["run_start"])
            if name in ("descriptor", "resource", "stream_resource"):
                self._runs[str(doc["uid"])] = run
                self._members.setdefault(run, []).append(str(doc["uid"]))
            return run
        if name == "resource":  # event-model before 1.14 named no run: it can only belong to the one that is open
            run = self._only_run()
            if run is not None:
                self._runs[str(doc["uid"])] = run
                self._members.setdefault(run, []).append(str(doc["uid"]))
            return run
        parent = doc.get("descriptor") or doc.get("resource") or doc.get("stream_resource")
        run = None if parent is None else self._runs.get(str(parent))
        return self._only_run() if run is None else run

    def _only_run(self) -> str | None:
        """Give the run to which a document belongs that names none: where several are open, nobody can tell."""
        return next(iter(self._sinks)) if len(self._sinks) == 1 else None
