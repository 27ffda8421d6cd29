"""What an operator hosts: callbacks on documents that also work when subscribed to a bare RunEngine."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from bec_bluesky.messages.products import AnalysisResult, Product

__all__ = ["Document", "Emit", "RunCallback", "RunSink"]

Document = Mapping[str, Any]
"""An event-model document."""
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

    event_model's RunRouter does the same by another way: it turns events into pages, runs a Filler for each run and
    keeps an entry for every stream resource for ever; here documents arrive as they were emitted.
    """

    required: ClassVar[bool] = False
    """Whether a run's documents must be kept until this callback has stored them."""
    is_offline: ClassVar[bool] = True
    """Whether it works without a running system, so that stored documents can be replayed through it anywhere."""
    wants_results: ClassVar[bool] = False
    """Whether a document service gives it, by `take_result`, what hosted analyses find in its open runs."""

    def __init__(self, *, emit: Emit | None = None) -> None:
        self.emit: Emit = emit or _nobody
        self._sinks: dict[str, RunSink] = {}
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

    def take_result(self, result: AnalysisResult) -> None:
        """Take what an analysis found in a run that was given to `open_run` and is not stored yet."""

    def tick(self) -> None:
        """Do what is due by time (flush); a document service calls it at least five times a second."""

    def close(self) -> None:
        """Let go of everything; open runs stay unfinished."""
        self._sinks.clear()
        self._runs.clear()
        self._members.clear()

    @property
    def open_runs(self) -> Mapping[str, RunSink]:
        """The sinks of runs that have no stop document yet, by run uid."""
        return self._sinks

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document of any run."""
        if name == "start":
            sink = self.open_run(doc)
            if sink is not None:
                self._sinks[doc["uid"]] = sink
                sink(name, doc)
            return
        run = self._run_of(name, doc)
        if run is None or (sink := self._sinks.get(run)) is None:
            return
        if name != "stop":
            sink(name, doc)
            return
        try:
            sink(name, doc)
        finally:
            del self._sinks[run]
            for uid in self._members.pop(run, ()):
                self._runs.pop(uid, None)

    def _run_of(self, name: str, doc: Document) -> str | None:
        run = doc.get("run_start")
        if run is not None:
            if name in ("descriptor", "resource", "stream_resource"):
                self._runs[doc["uid"]] = run
                self._members.setdefault(run, []).append(doc["uid"])
            return run
        if name == "resource":  # event-model before 1.14 named no run: it can only belong to the one that is open
            run = next(iter(self._sinks)) if len(self._sinks) == 1 else None
            if run is not None:
                self._runs[doc["uid"]] = run
                self._members.setdefault(run, []).append(doc["uid"])
            return run
        parent = doc.get("descriptor") or doc.get("resource") or doc.get("stream_resource")
        return None if parent is None else self._runs.get(parent)
