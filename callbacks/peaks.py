"""Live analysis of scans along one axis: centre, centre of mass, width, extremes, and a fitted peak or edge."""

import math
import time
from array import array
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bec_bluesky.documents import AnalysisResult, Document, Emit, RunCallback, RunSink
from callbacks import _peak
from callbacks._axes import RunAxes, is_number

__all__ = ["PeakAnalysis"]

_LARGEST_GAP = 100_000
"""Points that may be absent between two; seq_nums beyond that are no such points."""
_FIT_SHARE = 0.03
"""Share of the time that live fits may take."""


class PeakAnalysis(RunCallback):
    """Publish an AnalysisResult for every hinted scalar signal of a scan over numeric axes.

    Along one axis: center, fwhm, center_of_mass, max, max_position, min, min_position, and the fit of a Gaussian
    or, where that fits better, of an edge (`note` says so). Of grids: extremes and centre of mass along each axis,
    one result for each, no fit. Counts and axes that are no numbers give nothing. NaN and inf are left out; a
    point that is taken again replaces the earlier one. With several axes moved together `x` is the first of them.

    While the run goes on, results come at most `rate` times a second: from `tick()`, with a fit as long as fits
    take less than 3 % of the time; or, where nobody calls `tick()` (a bare RunEngine), by the documents' time
    and without a fit. The result of the stop document is `final` and has everything.
    """

    pace: ClassVar[float] = 0.05

    def __init__(
        self, *, emit: Emit | None = None, stream: str | None = None, rate: float = 5.0, fit: bool = True
    ) -> None:
        """Store the settings.

        Parameters
        ----------
        emit: takes the results.
        stream: name of the main stream, by default as ScanBundler chooses it.
        rate: results a second and signal while a run goes on; 0 for none but the final one.
        fit: whether to fit.
        """
        super().__init__(emit=emit)
        if rate < 0:
            raise ValueError(f"rate={rate} must not be negative; 0 publishes final results only")
        self._stream, self._fit = stream, fit
        self._interval = 1 / rate if rate else math.inf
        self._is_ticked = False
        self._next_fit = 0.0

    def open_run(self, start: Document) -> RunSink:
        """Watch every run; what has no numeric axis gives no result."""
        return _AnalysedRun(self, start, RunAxes(start, self._stream))

    def tick(self) -> None:
        """Publish what is new since the last result of each run."""
        self._is_ticked = True
        now = time.monotonic()
        for run in list(self.open_runs.values()):
            assert isinstance(run, _AnalysedRun)
            if run.is_new and self._is_due(run.last_tick, now):
                run.last_tick = now
                with_fit = self._fit and now >= self._next_fit
                run.publish(with_fit=with_fit)
                if with_fit:
                    end = time.monotonic()
                    self._next_fit = end + (end - now) / _FIT_SHARE

    def is_due_at(self, document_time: float, last: float) -> bool:
        """Tell whether a document's time calls for a result, because nobody ticks."""
        return not self._is_ticked and self._is_due(last, document_time)

    def _is_due(self, last: float, now: float) -> bool:
        return now - last >= self._interval < math.inf

    @property
    def fits(self) -> bool:
        """Whether final results have a fit."""
        return self._fit


class _Columns:
    """The numbers of the axes and signals by point; a point taken again replaces the earlier one."""

    def __init__(self, axes: Sequence[str], signals: Sequence[str]) -> None:
        self.axes, self.signals = list(axes), list(signals)
        self._columns = {key: array("d") for key in [*axes, *signals]}
        self._first: int | None = None
        self._length = 0

    def put(self, seq_num: int, data: Document) -> None:
        if self._first is None:
            self._first = seq_num
        row = seq_num - self._first
        if not 0 <= row < self._length + _LARGEST_GAP:
            return
        absent = row - self._length
        for key, column in self._columns.items():
            value = _number(data.get(key))
            if absent < 0:
                column[row] = value
            else:
                if absent:
                    column.extend([math.nan] * absent)
                column.append(value)
        self._length = max(self._length, row + 1)

    def pair(self, axis: str, signal: str) -> tuple[_peak.Array, _peak.Array]:
        """Give x and y of the points that have both."""
        # `copy`, because an array with a view on it cannot grow
        x, y = (np.frombuffer(self._columns[key], np.float64).copy() for key in (axis, signal))
        both = np.isfinite(x) & np.isfinite(y)
        return x[both], y[both]


def _number(value: object) -> float:
    try:
        return float(value)  # pyright: ignore[reportArgumentType]: what is no number is what we want to hear
    except (TypeError, ValueError):
        return math.nan


class _AnalysedRun:
    """One run: its numbers, and when they last gave a result."""

    def __init__(self, analysis: PeakAnalysis, start: Document, axes: RunAxes) -> None:
        self._analysis = analysis
        self._run_uid: str = start["uid"]
        self._scan_id = int(start.get("scan_id") or 0)
        self._axes = axes
        self._columns: _Columns | None = None
        self._descriptors: set[str] = set()
        self._fits: dict[str, _peak.Fit | None] = {}
        self.is_new = False
        self.last_tick = -math.inf
        """Monotonic time of the tick that last gave a result."""
        self._last_document = -math.inf
        """Time of the document that last gave a result: another clock, which must not be compared with the former."""

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; a stop publishes the final results."""
        if name == "descriptor":
            self._describe(doc)
        elif name == "event" and doc["descriptor"] in self._descriptors:
            self._put(doc["seq_num"], doc["time"], doc["data"])
        elif name == "event_page" and doc["descriptor"] in self._descriptors:
            for row, seq_num in enumerate(doc["seq_num"]):
                data = {key: column[row] for key, column in doc["data"].items()}
                self._put(int(seq_num), doc["time"][row], data)
        elif name == "stop":
            self.publish(with_fit=self._analysis.fits, final=True)

    def _describe(self, doc: Document) -> None:
        before = self._axes.main
        if not self._axes.is_main(doc):
            return
        if self._axes.main != before:
            self._columns = None
            self._descriptors.clear()
        keys = doc["data_keys"]
        axes = [fields[0] for fields in self._axes.dimensions(doc)]
        signals = [key for key in self._axes.signals(doc) if is_number(keys[key])]
        if not axes or not signals or not all(is_number(keys[key]) for key in axes):
            return
        self._descriptors.add(doc["uid"])
        if self._columns is None:
            self._columns = _Columns(axes, signals)

    def _put(self, seq_num: int, at: float, data: Document) -> None:
        assert self._columns is not None
        self._columns.put(seq_num, data)
        self.is_new = True
        if self._analysis.is_due_at(at, self._last_document):
            self._last_document = at
            self.publish(with_fit=False)

    def publish(self, *, with_fit: bool, final: bool = False) -> None:
        """Emit a result for each axis and signal that has points."""
        columns = self._columns
        if columns is None:
            return
        self.is_new = False
        is_profile = len(columns.axes) == 1
        for signal in columns.signals:
            for axis in columns.axes:
                x, y = columns.pair(axis, signal)
                if not x.size:
                    continue
                if with_fit and is_profile:
                    self._fits[signal] = _peak.fit(x, y)
                self._emit(axis, signal, _peak.describe(x, y, is_profile=is_profile), x.size, final)

    def _emit(self, axis: str, signal: str, values: dict[str, float], count: int, final: bool) -> None:
        fitted = self._fits.get(signal)
        if len(self._columns.axes if self._columns else ()) > 1:
            note = "grid: extremes and centre of mass along this axis"
        elif fitted is not None and fitted.model == "edge":
            note = "edge: an error function fits better than a Gaussian"
        else:
            note = ""
        self._analysis.emit(
            AnalysisResult(
                run_uid=self._run_uid,
                scan_id=self._scan_id,
                analysis="peaks",
                x=axis,
                y=signal,
                values=values,
                points=count,
                final=final,
                fit=fitted.parameters if fitted is not None else {},
                note=note,
            )
        )
