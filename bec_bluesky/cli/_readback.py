"""Reading a run back in three ways: lines to copy, which are also executed and compared with the live points."""

import ast
import concurrent.futures
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages.products import AnalysisResult, Point, RunOpened

__all__ = ["Columns", "FinishedRun", "Way", "check", "find_in_file", "read_all", "ways"]

_TIMEOUT = 120.0
Columns = dict[str, list[float]]


@dataclass
class FinishedRun:
    """What was seen of a run while it was running, and where it was stored."""

    opened: RunOpened
    points: list[Point] = field(default_factory=list[Point])
    results: list[AnalysisResult] = field(default_factory=list[AnalysisResult])
    flight: tuple[str, float, float] | None = None
    """Axis, start and stop of a fly scan."""
    path: str = ""
    """Of its HDF5 file."""

    @property
    def newest_points(self) -> list[Point]:
        """The points in their order, each in its last revision."""
        latest = {(point.stream, point.index): point for point in self.points}
        return [latest[key] for key in sorted(latest)]

    @property
    def stream(self) -> str:
        """Name of the main stream."""
        return self.points[0].stream if self.points else "primary"

    @property
    def columns(self) -> Columns:
        """The axes and signals of the points, as far as they are numbers."""
        points = self.newest_points
        keys = list(dict.fromkeys([*points[0].positions, *points[0].signals])) if points else []
        columns = {key: [point.data.get(key) for point in points] for key in keys}
        return {
            key: [float(value) for value in column if isinstance(value, int | float)]
            for key, column in columns.items()
            if all(isinstance(value, int | float) for value in column)
        }

    @property
    def frame_counts(self) -> dict[str, int]:
        """How many frames of each detector the points name."""
        counts: dict[str, int] = {}
        for point in self.newest_points:
            for key, (first, stop) in point.frames.items():
                counts[key] = counts.get(key, 0) + stop - first
        return counts


@dataclass(frozen=True)
class Way:
    """One way to read a run, as a line for a shell."""

    name: str
    code: str

    @property
    def line(self) -> str:
        """The command to copy."""
        is_plain = not set(self.code) & set('"$`\\!')
        code = f'"{self.code}"' if is_plain else shlex.quote(self.code)  # easier on the eye where shells allow it
        return f"{shlex.quote(sys.executable)} -c {code}"

    def read(self) -> Columns:
        """Execute that very line; give the columns that it prints."""
        done = subprocess.run(
            self.line,
            shell=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
            raise BecBlueskyError(f"the line for {self.name} failed: {last[0]}")
        columns: Columns = ast.literal_eval(done.stdout.strip().splitlines()[-1])
        return columns


def ways(run: FinishedRun, profile: str, hdf5_paths: dict[str, str]) -> list[Way]:
    """Give the three ways; `hdf5_paths` maps each column to its place in the file. Frames are summed, each."""
    keys = tuple(hdf5_paths)
    uid, stream = run.opened.run_uid, run.stream
    # a column of numbers passes through the sum over each row unchanged
    show = "(a := {}).reshape(len(a), -1).sum(1).tolist()" if run.frame_counts else "{}.tolist()"
    stored = f"print({{k: {show.format('s[k].read()')} for k in {keys!r}}})"
    in_file = f"print({{k: {show.format('f[p][()]')} for k, p in {hdf5_paths!r}.items()}})"
    return [
        Way("Tiled", f"from tiled.client import from_profile as f; s = f({profile!r})[{uid!r}][{stream!r}]; {stored}"),
        Way("databroker", f"import databroker; s = databroker.catalog[{profile!r}][{uid!r}][{stream!r}]; {stored}"),
        Way("h5py", f"import h5py, hdf5plugin; f = h5py.File({run.path!r}); {in_file}"),
    ]


def find_in_file(run: FinishedRun) -> dict[str, str]:
    """Find the columns of a run in its HDF5 file: {data key: path of the dataset}; raises BecBlueskyError if one lacks.

    These are the numeric axes and signals of its points, and the detectors' frames.
    """
    import h5py

    group = f"/entry/streams/{run.stream}"
    wanted = list(dict.fromkeys([*run.columns, *run.frame_counts]))
    with h5py.File(run.path) as file:
        node = file.get(group)
        there = set(node) if isinstance(node, h5py.Group) else set[str]()
    names = {key: name for key in wanted for name in (key, re.sub(r"\W", "_", key)) if name in there}
    missing = [key for key in wanted if key not in names]
    if missing or not wanted:
        raise BecBlueskyError(f"{run.path} lacks {', '.join(missing) or 'every column'} in {group}")
    return {key: f"{group}/{name}" for key, name in names.items()}


def check(run: FinishedRun, readings: Sequence[tuple[Way, Columns]]) -> list[str]:
    """Compare what the ways gave with the points and with each other; give what differs, one sentence each."""
    problems: list[str] = []
    live, counts = run.columns, run.frame_counts
    first_way, first = readings[0]
    for way, columns in readings:
        for key, column in columns.items():
            if key in live and not _equal(column, live[key]):
                problems.append(f"{way.name} gives other {key} than the live points of scan {run.opened.scan_id}")
            elif key in counts and len(column) != counts[key]:
                problems.append(f"{way.name} gives {len(column)} of {key}, the points name {counts[key]} frames")
            elif not _equal(column, first.get(key, [])):
                problems.append(f"{way.name} gives other {key} than {first_way.name} in scan {run.opened.scan_id}")
            elif not column:
                problems.append(f"{way.name} gives no {key} in scan {run.opened.scan_id}")
    return problems


def _equal(one: list[float], other: list[float]) -> bool:
    """Compare to the last bits that a decimal text keeps."""
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12) for a, b in zip(one, other, strict=True)
    )


def read_all(all_ways: Sequence[Way]) -> list[Columns]:
    """Execute several lines, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(Way.read, all_ways))
