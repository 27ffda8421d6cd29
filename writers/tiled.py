"""Writes runs into a Tiled catalogue, live, without ever holding up whoever feeds it."""

import atexit
import contextlib
import importlib
import logging
import threading
import time
import weakref
from typing import Any, ClassVar

import httpx

from bec_bluesky.documents import (
    AnalysisResult,
    Document,
    Emit,
    FileReady,
    Point,
    RunCallback,
    RunProblem,
    RunSink,
    find_catalog,
)
from bec_bluesky.errors import BecBlueskyError, SettingsError
from writers._tiled_left import LeftRuns
from writers._tiled_pending import PendingRun, catalogued
from writers._tiled_server import ServerAbsent, TiledServer, is_key

__all__ = ["RunNotTakenError", "TiledWriter"]

_log = logging.getLogger(__name__)
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_LINGER = 2.0
"""Seconds without a run after which the thread ends; the next run starts another."""
_REMEMBERED = 10_000
_ATTEMPTS = 6
"""How often a run is tried that the server answers for, but does not take; with the pauses between, half a minute."""


class RunNotTakenError(BecBlueskyError):
    """The server answers and does not take a run, however often it is tried."""


class TiledWriter(RunCallback):
    """Puts each run into a Tiled catalogue: live, complete, and once.

    A thread of its own writes what comes, at most once in `flush_every` seconds. A server that is absent is waited for:
    the documents of every unfinished run are kept, and a run whose writing broke off is deleted and written again from
    its start document. A run that is complete in the catalogue is left alone.

    In a document service the run's points become a stream "points" beside its own (see `RunPoints`), and what analyses
    find becomes metadata. A run that ended waits `wait_for_results` seconds for these, for its first point five seconds
    (once, if nobody bundles runs), and for more of them as long as they keep coming. A bare RunEngine makes none.

    Subscribed to a bare RunEngine it needs nothing else; `wait()` returns when everything is written. At the end of the
    process it is given `patience` seconds for what is left.
    """

    pace: ClassVar[float] = 0.05
    required: ClassVar[bool] = True
    wants_results: ClassVar[bool] = True
    wants_points: ClassVar[bool] = True
    is_offline: ClassVar[bool] = False

    def __init__(
        self,
        uri: str = "",
        api_key: str = "",
        *,
        flush_every: float = 0.2,
        patience: float = 5.0,
        wait_for_results: float = 0.2,
        emit: Emit | None = None,
    ) -> None:
        """Take the server's address, such as `http://127.0.0.1:8265/tiled`; none: what the settings say.

        `emit` is called from the writer's thread.
        """
        super().__init__(emit=emit)
        self._uri = uri
        self._key = api_key
        self._flush_every = flush_every
        self._patience = patience
        self._wait_for_results = wait_for_results
        self._is_ticked = False
        self._lock = threading.Condition()
        self._came = threading.Event()
        """A document came."""
        self._wake = threading.Event()
        """What is there is written at once."""
        self._is_loaded = threading.Event()
        self._waiting: dict[str, PendingRun] = {}
        self._written: dict[str, None] = {}
        self._refused: dict[str, str] = {}
        """{run: why it was given up}"""
        self._thread: threading.Thread | None = None
        self._server: TiledServer | None = None
        self._is_warm = False
        self._is_closing = False
        self._delay = _FIRST_DELAY
        self._not_before = 0.0
        self._is_bundled = True
        """Whether the runs of this system get points: yes, until one does not."""
        self._left = LeftRuns()

    def open_run(self, start: Document) -> RunSink | None:
        """Take a run, unless all its documents are here already."""
        uid = str(start["uid"])
        if not is_key(uid):
            raise RunNotTakenError(f"{uid!r} cannot be the key of a run in the catalogue: import it under another uid")
        with self._lock:
            known = self._waiting.get(uid)
            if uid in self._written or (known is not None and known.is_sealed):
                return None
            self._refused.pop(uid, None)  # fed again: another attempt
            if known is not None:
                known.close()
            if not self._waiting:
                self._not_before = 0.0
            run = PendingRun(start, self._came, self._wake, self._is_loaded, owner=self.owner)
            self._waiting[uid] = run
            self._left.came(uid)
        self._start_thread()
        return run

    def holds(self, run_uid: str) -> bool:
        """Tell whether the catalogue has the run with its stop document; no, if it does not answer."""
        with self._lock:
            if run_uid in self._written:
                return True
            if run_uid in self._waiting or not is_key(run_uid):
                return False
        try:
            with contextlib.closing(self._find_server()) as server:
                return server.state(run_uid) == "complete"
        except (ServerAbsent, httpx.HTTPError):
            return False

    def is_stored(self, run_uid: str) -> bool:
        """Tell whether the run is in the catalogue, and announced; raises RunNotTakenError if it never will be."""
        if run_uid in self._refused:
            raise RunNotTakenError(self._refused[run_uid])
        return self.holds(run_uid)

    def announcements(self, run_uid: str) -> list[FileReady]:
        """Announce the run in the catalogue once more; raises ServerAbsent if that does not answer."""
        with contextlib.closing(self._find_server()) as server:
            return [catalogued(server.uri, run_uid, server.scan_id(run_uid))]

    def take_result(self, result: AnalysisResult) -> None:
        """Take what an analysis found, for the run's metadata."""
        with self._lock:
            run = self._waiting.get(result.run_uid)
            if run is not None:
                run.take_result(result)

    def take_point(self, point: Point) -> None:
        """Take a scan point, for the run's stream of points."""
        with self._lock:
            self._is_bundled = True
            run = self._waiting.get(point.run_uid)
            if run is not None:
                run.take_point(point)

    def unfinished(self) -> list[str]:
        """Give the runs that earlier processes of this owner left in the catalogue without a stop document.

        Asks nobody: the thread does, once, when the server answers. Until then there are none.
        """
        if not self.owner:
            return []
        with self._lock:
            if self._left.is_known:
                return self._left.besides(self._waiting)
        self._start_thread()
        return []

    def close_lost(self, run_uid: str) -> None:
        """End a run whose documents are gone, with what the catalogue has of it; as soon as the server answers."""
        with self._lock:
            is_left = self._left.lose(run_uid)
        if is_left:
            self._start_thread()
            self._hurry()
        else:
            super().close_lost(run_uid)

    def tick(self) -> None:
        """Load Tiled's client before the first run needs it."""
        self._is_ticked = True
        if not self._is_warm:
            self._start_thread()

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait until every run that ended is in the catalogue.

        False if that took longer than `timeout` seconds, or if a run was given up.
        """
        self._hurry()
        with self._lock:
            is_done = self._lock.wait_for(lambda: not any(run.is_sealed for run in self._waiting.values()), timeout)
            return is_done and not self._refused

    def close(self) -> None:
        """Write what is here, for up to `patience` seconds, and let go."""
        thread = self._thread
        if thread is not None:
            self._is_closing = True
            self._hurry()
            thread.join(self._patience)
        with self._lock:
            left = list(self._waiting.values())
            self._waiting.clear()
        for run in left:
            run.close()
        if any(run.is_sealed for run in left):
            _log.warning("not in the catalogue: %s", ", ".join(run.uid for run in left if run.is_sealed))
        super().close()

    def _hurry(self) -> None:
        self._wake.set()
        self._came.set()

    def _start_thread(self) -> None:
        with self._lock:
            self._is_warm = True
            if self._thread is None:
                self._is_closing = False
                self._thread = threading.Thread(target=self._work, name="tiled-writer", daemon=True)
                self._thread.start()
                _to_close.add(self)

    # ── in the thread ──

    def _work(self) -> None:
        """Write what comes, until there has been nothing for a while or `close()`."""
        try:
            importlib.import_module("writers._tiled_run")
            self._is_loaded.set()
            busy = time.monotonic()
            began = 0.0
            while True:
                self._came.wait(self._flush_every)  # not for ever: what was put off comes by itself
                self._wake.wait(max(0.0, began + self._flush_every - time.monotonic()))
                self._came.clear()
                self._wake.clear()
                began = time.monotonic()
                is_closing = self._is_closing
                with self._lock:
                    runs = list(self._waiting.values())
                if runs or (self._has_errands() and not is_closing):
                    busy = time.monotonic()
                    self._advance(runs, is_closing=is_closing)
                with self._lock:
                    is_idle = not self._waiting and time.monotonic() - busy > _LINGER
                    if is_closing or is_idle:
                        self._thread = None
                        return
        except ImportError:
            _log.exception("nothing can be written into Tiled")
        finally:
            self._is_loaded.set()
            if self._server is not None:
                self._server.close()
                self._server = None
            self._thread = None

    def _advance(self, runs: list[PendingRun], *, is_closing: bool) -> None:
        now = time.monotonic()
        if now < self._not_before and not is_closing:
            return
        try:
            server = self._server = self._server or self._find_server().connect()
        except (ServerAbsent, httpx.HTTPError) as error:
            self._lose_server(error)
            return
        if not is_closing and not self._do_errands(server):
            return
        for run in runs:
            if run.not_before > now and not is_closing:
                continue
            is_early = not is_closing and self._is_ticked and self._awaits_products(run)
            try:
                run.advance(server, without_stop=is_early)
            except Exception as error:  # noqa: BLE001  # whatever the server or upstream's writer makes of a run
                run.begin_again()
                if server.has_gone(error):
                    self._lose_server(error)
                    return
                self._put_off(run, error)
            else:
                self._delay = _FIRST_DELAY
                if run.is_written:
                    self._finish(run, server)

    def _awaits_products(self, run: PendingRun) -> bool:
        return run.awaits_products(self._wait_for_results, is_bundled=bool(self.owner) and self._is_bundled)

    def _has_errands(self) -> bool:
        return bool(self.owner) and self._left.has_errands

    def _do_errands(self, server: TiledServer) -> bool:
        """Find the runs that earlier processes left, and close those that are lost; False if the server went away."""
        if not self._has_errands():
            return True
        try:
            if not self._left.is_known:
                found = server.unfinished(self.owner)
                with self._lock:
                    self._left.found(found - self._waiting.keys() - self._written.keys())
            self._left.settle(server, self.emit)
        except Exception as error:  # noqa: BLE001  # whatever a server of somebody else's makes of it
            if server.has_gone(error):
                self._lose_server(error)
                return False
            _log.warning("it is not known which runs were left open in the catalogue: %s", error, exc_info=error)
            self._left.found(set())
        return True

    def _find_server(self) -> TiledServer:
        if self._uri:
            return TiledServer(self._uri, self._key)
        try:
            address = find_catalog()
        except SettingsError as error:  # as good as absent, until somebody mends it
            raise ServerAbsent(str(error)) from error
        if address is None:
            raise ServerAbsent("no Tiled server of this data directory answers: `bec-bluesky up` starts one")
        return TiledServer(address.uri, address.api_key)

    def _lose_server(self, error: Exception) -> None:
        level = logging.WARNING if self._waiting and self._delay == _FIRST_DELAY else logging.DEBUG
        _log.log(level, "%s; the documents are kept until it does", error)
        if self._server is not None:
            self._server.close()
            self._server = None
        self._not_before = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _LONGEST_DELAY)

    def _put_off(self, run: PendingRun, error: Exception) -> None:
        """Try it again later: what the server could not do now it may do soon; but not for ever."""
        run.failures += 1
        run.not_before = time.monotonic() + 0.5 * 2**run.failures
        text = f"the catalogue did not take the run in {run.failures} attempts: {type(error).__name__}: {error}"
        if run.failures < _ATTEMPTS:
            _log.warning("%s; it is tried again", text, extra={"run": run.uid})
            return
        _log.error("%s; it is given up", text, exc_info=error, extra={"run": run.uid})
        _remember(self._refused, run.uid, text)
        self._forget(run)

    def _finish(self, run: PendingRun, server: TiledServer) -> None:
        if run.is_without_points and self._is_bundled and self.owner:
            self._is_bundled = False
            text = "no points of this run came, and they are not waited for again before some come of another run"
            self.emit(RunProblem(run_uid=run.uid, source="tiled", text=text, level="info"))
        if run.problem:
            self.emit(RunProblem(run_uid=run.uid, source="tiled", text=run.problem))
        self.emit(run.product(server.uri))
        if not run.is_lost:
            _remember(self._written, run.uid, None)
        self._forget(run)

    def _forget(self, run: PendingRun) -> None:
        with self._lock:
            if self._waiting.get(run.uid) is run:
                del self._waiting[run.uid]
            self._lock.notify_all()
        run.close()


def _remember(among: dict[str, Any], uid: str, value: Any) -> None:
    among[uid] = value
    while len(among) > _REMEMBERED:
        del among[next(iter(among))]


_to_close: "weakref.WeakSet[TiledWriter]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Give a script that subscribed a writer to its own RunEngine its last rows."""
    for writer in list(_to_close):
        writer.close()
