"""One run that is on its way into the catalogue: its documents, its results, its points, and how far they are."""

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from bec_bluesky.documents import AnalysisResult, Document, DocumentJournal, FileReady, Point, is_lost
from writers._tiled_names import StoredNames
from writers._tiled_points import RunPoints
from writers._tiled_server import ServerAbsent, TiledServer

if TYPE_CHECKING:
    from writers._tiled_run import Columns, RunTables

__all__ = ["PendingRun", "catalogued"]

_log = logging.getLogger(__name__)
_BATCH = 1_000
"""Documents written at once, at most."""
_LOADING = 15.0
"""Seconds within which Tiled's client is imported."""
_RESULTS_EVERY = 2.0
"""Seconds between two results of analyses, while a run goes on."""


class PendingRun:
    """Takes a run's documents in one thread, and writes them in another; `came` and `wake` are set for that one."""

    def __init__(
        self,
        start: Document,
        came: threading.Event,
        wake: threading.Event,
        is_loaded: threading.Event,
        *,
        owner: str = "",
    ) -> None:
        self.uid = str(start["uid"])
        self.scan_id = int(start.get("scan_id") or 0)
        self.journal = DocumentJournal()
        self.is_sealed = False
        """Whether its stop document is in the journal."""
        self.is_lost = False
        """Whether that says that the run's own was lost."""
        self.is_written = False
        self.failures = 0
        self.not_before = 0.0
        self.points = RunPoints()
        self.problem = ""
        """Why its points are not all in the catalogue."""
        self._events: dict[str, int] = {}
        self._owner = owner
        self._came = came
        self._wake = wake
        self._is_loaded = is_loaded
        self._place = 0
        self._is_there_already = False
        self._columns: Columns = {}
        self._tables: RunTables | None = None
        self._normalizer: Any = None
        self._names = StoredNames()
        self._results: dict[tuple[str, str, str], AnalysisResult] = {}
        """The newest of each analysis, x and y."""
        self._put: list[AnalysisResult] = []
        """Those that are in the catalogue."""
        self._next_put = 0.0
        self._sealed_at = 0.0

    def __call__(self, name: str, doc: Document) -> None:
        """Keep a document; the thread writes it."""
        self.journal.append(name, doc)
        if name == "stop":
            self.is_lost = is_lost(doc)
            self._events = doc.get("num_events") or {}
            self._sealed_at = time.monotonic()
            self.is_sealed = True
            self._wake.set()
            self._came.set()
            # once a process, if at all: a script may end now, and an interpreter that ends imports no more
            self._is_loaded.wait(_LOADING)
        elif not self._came.is_set():
            self._came.set()

    def take_result(self, result: AnalysisResult) -> None:
        """Keep what an analysis found; a final result is not replaced by an earlier one."""
        key = (result.analysis, result.x, result.y)
        before = self._results.get(key)
        if before is None or result.final or not before.final:
            self._results[key] = result

    def take_point(self, point: Point) -> None:
        """Keep a point; it is written with the next documents, or soon."""
        self.points.take(point)
        if not self._came.is_set():
            self._came.set()

    @property
    def is_without_points(self) -> bool:
        """Whether it has none, and should have."""
        return self.points.lacks_all(self._events)

    def awaits_products(self, patience: float, *, is_bundled: bool) -> bool:
        """Tell whether the run has ended, and points are to come, or for so many seconds an analysis' last word."""
        if not self.is_sealed:
            return False
        if self.points.awaits(self._events, self._sealed_at, is_bundled=is_bundled):
            return True
        results = list(self._results.values())
        if results and all(each.final for each in results):
            return False
        return time.monotonic() < self._sealed_at + patience

    def close(self) -> None:
        """Forget everything."""
        self.journal.close()
        self.points.close()

    def advance(self, server: TiledServer, *, without_stop: bool = False) -> None:
        """Write what has come; its stop document can be left for later.

        Raises what the server or the documents are to blame for, then `begin_again()`.
        """
        from writers._tiled_run import ColumnsChanged

        server.allow_operation()
        if self._tables is None:
            self._begin(server)
        end = self.journal.size  # what comes meanwhile waits for the next time: a flush costs the same for any number
        if time.monotonic() >= self._next_put:
            self._put_results()
        while self._place < end:
            server.allow_operation()
            documents, place = self.journal.read(self._place, _BATCH)
            if without_stop and documents[-1][0] == "stop":
                documents, place = self.journal.read(self._place, len(documents) - 1)
                if not documents:
                    break
            try:
                self._write(documents, server)
            except ColumnsChanged as change:
                _log.info("written again, since %s", change, extra={"run": self.uid})
                self.begin_again()
                self._columns = change.columns
                self._begin(server)
                continue
            self._place = place
            self.is_written = documents[-1][0] == "stop"
        if not self.is_written:
            self._put_points(server, is_last=False)

    def _put_points(self, server: TiledServer, *, is_last: bool) -> None:
        """Write points; what is wrong with them costs the run nothing else."""
        if self._tables is None or self._tables.root_node is None or self._is_there_already or self.problem:
            return
        put = self.points.finish if is_last else self.points.advance
        try:
            put(server, self._tables, self.uid)
        except (ServerAbsent, httpx.TransportError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever the server or upstream's writer makes of them
            self.problem = f"its points are not in the catalogue: {type(error).__name__}: {error}"
            _log.warning(self.problem, exc_info=error, extra={"run": self.uid})
            with contextlib.suppress(httpx.HTTPStatusError):
                self.points.withdraw(server, self.uid)
        if is_last and not self.problem and (lacking := self.points.lacks(self._events)):
            self.problem = f"{lacking} of its points did not come in time, and are not in the catalogue"

    def _put_results(self) -> None:
        if self._tables is None or self._is_there_already:
            return
        results = list(self._results.values())
        if results != self._put and self._tables.root_node is not None:
            self._tables.put_metadata({"results": [msgspec.to_builtins(each) for each in results]})
            self._put = results
            self._next_put = time.monotonic() + _RESULTS_EVERY

    def begin_again(self) -> None:
        """Forget what was written: the next `advance()` starts from the start document."""
        if self._tables is not None:
            self._columns = self._tables.columns
        self._tables = None
        self._place = 0
        self._put = []
        self.points.begin_again()
        self.problem = ""

    def _begin(self, server: TiledServer) -> None:
        from writers._tiled_run import QuickNormalizer, RunTables

        state = server.state(self.uid)
        self._is_there_already = state == "complete"
        if state == "partial":
            server.delete(self.uid)
        own = {"written_by": self._owner} if self._owner else {}
        self._tables = RunTables(server.client, self._columns, {"derived_streams": [self.points.name], **own})
        self._normalizer = QuickNormalizer()
        self._normalizer.subscribe(self._tables)

    def _write(self, documents: list[tuple[str, dict[str, Any]]], server: TiledServer) -> None:
        if self._is_there_already or self._tables is None:
            return
        for name, doc in documents:
            if name == "stop":  # it says that the run is complete: all else comes before
                self._tables.flush()
                self._put_results()
                self._put_points(server, is_last=True)
            elif name == "descriptor":
                self.points.make_room(str(doc.get("name")), server, self._tables, self.uid)
            self._normalizer(name, self._names(name, doc))
        self._tables.flush()

    def product(self, uri: str) -> FileReady:
        """Announce the run in the catalogue; `size` is that of its documents."""
        shapes: dict[str, list[int]] = {}
        if self._tables is not None:
            shapes = {stream: [rows] for stream, rows in self._tables.rows.items() if rows} | self._tables.frames
        return catalogued(uri, self.uid, self.scan_id, size=self.journal.size, shapes=shapes)


def catalogued(
    uri: str, run_uid: str, scan_id: int, *, size: int = 0, shapes: dict[str, list[int]] | None = None
) -> FileReady:
    """Announce a run in the catalogue; `size` is that of its documents, 0 where that is not known."""
    return FileReady(
        run_uid=run_uid,
        scan_id=scan_id,
        writer="tiled",
        path=f"{uri}/metadata/{run_uid}",
        size=size,
        time=time.time(),
        shapes=shapes or {},
        kind="catalogue",
    )
