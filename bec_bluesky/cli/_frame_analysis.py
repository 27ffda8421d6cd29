"""Centre and width from frames, which live analysis does not see: the same analysis, fed from what was read back."""

from collections.abc import Sequence
from typing import Any

import msgspec

from bec_bluesky import plugins
from bec_bluesky.cli._readback import Columns, FinishedRun
from bec_bluesky.messages.products import AnalysisResult

__all__ = ["analyse_frames"]


def analyse_frames(run: FinishedRun, columns: Columns) -> AnalysisResult | None:
    """Give what the peak analysis finds in one number a frame, against the (fastest) axis; None if there is neither.

    In a step scan of several axes the frames with the same position on the fastest one are averaged. In a fly scan the
    axis is where the plan wanted the motor to be in the middle of each frame. The profile must be mounted.
    """
    signal = next((key for key in run.frame_counts if key.endswith("-sum")), next(iter(run.frame_counts), None))
    if signal is None or signal not in columns:
        return None
    values = columns[signal]
    axes = [axis for axis in run.newest_points[0].positions if len(columns.get(axis, ())) == len(values)]
    if axes:
        positions, values = _averaged(columns[axes[-1]], values)
        note = f"averaged over {', '.join(axes[:-1])}" if len(axes) > 1 else ""
        return _noted(_analyse(run, axes[-1], positions, signal, values), note)
    if run.flight is not None:
        axis, first, last = run.flight
        positions = [first + (last - first) * (index + 0.5) / len(values) for index in range(len(values))]
        return _noted(_analyse(run, axis, positions, signal, values), "against the planned position")
    return None


def _averaged(positions: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Average the values of equal positions; in rising order of positions."""
    by_position: dict[float, list[float]] = {}
    for position, value in zip(positions, values, strict=True):
        by_position.setdefault(round(position, 6), []).append(value)
    ordered = sorted(by_position)
    return ordered, [sum(by_position[position]) / len(by_position[position]) for position in ordered]


def _analyse(
    run: FinishedRun, axis: str, positions: list[float], signal: str, values: list[float]
) -> AnalysisResult | None:
    """Feed the profile's own peak analysis with documents of these two columns."""
    found: list[AnalysisResult] = []
    analysis: Any = plugins.load_object("callbacks.peaks:PeakAnalysis")(emit=found.append)
    key = {"dtype": "number", "shape": [], "source": "read back"}
    times = [run.opened.time] * len(values)
    analysis(
        "start",
        {
            "uid": run.opened.run_uid,
            "time": run.opened.time,
            "scan_id": run.opened.scan_id,
            "hints": {"dimensions": [[[axis], "primary"]]},
        },
    )
    descriptor = {
        "uid": "descriptor",
        "run_start": run.opened.run_uid,
        "time": run.opened.time,
        "name": "primary",
        "data_keys": {axis: key, signal: key},
        "hints": {signal: {"fields": [signal]}},
    }
    analysis("descriptor", descriptor)
    page = {
        "uid": [f"event {number}" for number in range(len(values))],
        "descriptor": "descriptor",
        "time": times,
        "seq_num": list(range(1, len(values) + 1)),
        "data": {axis: positions, signal: values},
        "timestamps": {axis: times, signal: times},
    }
    analysis("event_page", page)
    stop = {
        "uid": "stop",
        "run_start": run.opened.run_uid,
        "time": run.opened.time,
        "exit_status": "success",
        "num_events": {"primary": len(values)},
    }
    analysis("stop", stop)
    analysis.close()
    return next((result for result in found if result.final), None)


def _noted(result: AnalysisResult | None, note: str) -> AnalysisResult | None:
    if result is None:
        return None
    return msgspec.structs.replace(result, note="; ".join(filter(None, (note, result.note))))
