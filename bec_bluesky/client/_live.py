"""A run on the terminal: a table that grows with the points, a progress bar below it, results at the end."""

import contextlib
from collections.abc import Iterator
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bec_bluesky.client._follow import Event
from bec_bluesky.messages.products import AnalysisResult, FileReady, Point, RunClosed, RunOpened
from bec_bluesky.messages.queue import ItemDone, ScanServerStatus

__all__ = ["LiveView", "result_text"]

_NARROWEST = 11
_MOST_COLUMNS = 8
_UNHEARD_STATES = ("pausing", "paused", "stopping", "aborting", "halting")


class LiveView:
    """Shows events as they come; on anything but a terminal as plain lines, without a bar."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._table: _Table | None = None
        self._scan_ids: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._run_state = ""
        self._waits_for = ""
        self._suspended = ""
        self._row_count = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("waiting", total=None)
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while a question is asked."""
        if self._bar is not None:
            self._bar.stop()
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.start()

    def say(self, text: str, style: str = "") -> None:
        """Write a line."""
        self._console.print(text, style=style or None, markup=False)

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case RunOpened():
                self._open(event)
            case Point():
                self._point(event)
            case AnalysisResult():
                self._result(event)
            case RunClosed():
                self._close(event)
            case FileReady(kind="file"):
                self.say(f"  {event.writer}: {event.path}", "dim")
            case ScanServerStatus():
                self._progress(event)
            case ItemDone():
                self._done(event)
            case _:
                pass

    def _open(self, run: RunOpened) -> None:
        self._table = None
        self._scan_ids[run.run_uid] = run.scan_id
        self._counts[run.run_uid] = 0
        self.say(f"scan {run.scan_id}: {run.plan_name}  (run {run.run_uid[:8]})", "bold")
        self._describe(f"scan {run.scan_id}")

    def _point(self, point: Point) -> None:
        if self._table is None or not self._table.fits(point):
            self._table = _Table(point)
            for line in self._table.header():
                self.say(line, "bold")
        self.say(self._table.row(point))
        if point.revision == 0:
            self._row_count += 1
            self._counts[point.run_uid] = self._counts.get(point.run_uid, 0) + 1
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self._row_count)

    def _result(self, result: AnalysisResult) -> None:
        if result.final:
            self.say(f"  {result_text(result)}", "cyan")
        elif {"center", "fwhm"} <= result.values.keys():
            where = f"centre {result.values['center']:.4g}, FWHM {result.values['fwhm']:.4g}"
            self._describe(f"scan {result.scan_id}: {result.y} {where}")

    def _close(self, run: RunClosed) -> None:
        if run.exit_status != "success":
            self.say(f"scan {self._scan_ids.get(run.run_uid, 0)} closed: {run.exit_status}", "red")

    def _progress(self, status: ScanServerStatus) -> None:
        if status.run_state != self._run_state:
            self._run_state = status.run_state
            if status.run_state in _UNHEARD_STATES:
                self.say(f"{status.run_state}", "yellow")
        if status.waits_for != self._waits_for:
            self._waits_for = status.waits_for
            if status.waits_for:
                self.say(f"waits: {status.waits_for}", "yellow")
        if status.suspended != self._suspended:
            self.say(f"suspended: {status.suspended}" if status.suspended else "goes on", "yellow")
            self._suspended = status.suspended
        progress = status.progress
        if progress is None or self._bar is None or self._task is None:
            return
        self._bar.update(self._task, total=progress.expected, completed=max(progress.points, self._row_count))
        if progress.moving:
            moving = ", ".join(f"{device} {fraction:.0%}" for device, fraction in sorted(progress.moving.items()))
            self._describe(moving)

    def _done(self, done: ItemDone) -> None:
        result = done.item.result
        if result is None:
            return
        seconds = f" after {result.time_stop - result.time_start:.1f} s" if result.time_start else ""
        counts = "".join(f"; scan {self._scan_ids[uid]}: {count} points" for uid, count in self._counts.items())
        style = "green" if result.exit_status == "completed" else "red"
        self.say(f"{done.item.plan} {result.exit_status}{seconds}{counts}", style)

    def _describe(self, text: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)


class _Table:
    """The columns of one stream of points: axes, then signals, then frames."""

    def __init__(self, point: Point) -> None:
        self._of = (point.run_uid, point.stream)
        scalars = [key for key in [*point.positions, *point.signals] if _is_scalar(point.data.get(key))]
        if not scalars:
            scalars = [key for key, value in point.data.items() if _is_scalar(value)]
        self._keys = list(dict.fromkeys(scalars))[:_MOST_COLUMNS]
        self._frames = list(point.frames)[: max(0, _MOST_COLUMNS - len(self._keys))]
        units = point.units
        self._titles = [f"{key} [{units[key]}]" if units.get(key) else key for key in self._keys]
        self._titles += [f"{key} frames" for key in self._frames]
        self._widths = [max(_NARROWEST, len(title)) for title in self._titles]

    def fits(self, point: Point) -> bool:
        """Tell whether the point belongs into this table."""
        return self._of == (point.run_uid, point.stream)

    def header(self) -> list[str]:
        """Give the two lines above the rows."""
        titles = "  ".join(f"{title:>{width}}" for title, width in zip(self._titles, self._widths, strict=True))
        return [f"{'point':>6}  {titles}", "  ".join(["─" * 6, *("─" * width for width in self._widths)])]

    def row(self, point: Point) -> str:
        """Give the line of a point; a repeated one says which revision it is, an incomplete one what is missing."""
        cells = [_cell(point.data.get(key)) for key in self._keys]
        cells += [_frames(point.frames.get(key)) for key in self._frames]
        line = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True))
        again = f"  (revision {point.revision})" if point.revision else ""
        missing = f"  missing: {', '.join(point.missing)}" if point.missing else ""
        return f"{point.index:>6}  {line}{again}{missing}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _frames(span: tuple[int, int] | None) -> str:
    if span is None:
        return ""
    first, stop = span
    return str(first) if stop - first == 1 else f"{first}…{stop - 1}"


def result_text(result: AnalysisResult) -> str:
    """Say in one line what an analysis found."""
    shown = ("center", "center_of_mass", "fwhm", "max", "max_position")
    values = ", ".join(f"{name} {result.values[name]:.5g}" for name in shown if name in result.values)
    fit = ", ".join(f"{name} {value:.5g}" for name, value in result.fit.items() if name in ("center", "sigma", "fwhm"))
    text = f"{result.y} against {result.x}: {values}"
    if fit:
        text += f"; fit: {fit}"
    return f"{text} ({result.note})" if result.note else text
