"""What callbacks and writers make of documents, and the announcements of runs."""

from typing import Any, Literal

from bec_bluesky.messages.common import Message

__all__ = ["AnalysisResult", "FileGrowing", "FileReady", "Point", "Product", "RunClosed", "RunOpened", "RunProblem"]


class RunOpened(Message, frozen=True, kw_only=True, tag="run_opened"):
    """A run was opened (stream `runs`); its documents are in `run:<uid>:documents`."""

    run_uid: str
    scan_id: int
    time: float
    plan_name: str = ""
    item_id: str = ""
    user: str = ""


class RunClosed(Message, frozen=True, kw_only=True, tag="run_closed"):
    """A run's stop document is in its stream; `documents` is how many there are."""

    run_uid: str
    time: float
    exit_status: str
    documents: int


class Point(Message, frozen=True, kw_only=True, tag="point"):
    """One logical scan point: everything that belongs together.

    Arrays of more than 1,000 elements are given by reference, not here.
    """

    run_uid: str
    scan_id: int
    stream: str
    index: int
    """Counts from 1 in its stream, as bluesky's `seq_num`."""
    time: float
    data: dict[str, Any]
    """{data key: value} of the event and of what was joined to it."""
    timestamps: dict[str, float] = {}
    positions: list[str] = []
    """Data keys of the scan's axes, slowest first."""
    signals: list[str] = []
    """Data keys of the hinted readings that are no axes."""
    units: dict[str, str] = {}
    """Given with the first point of a stream."""
    frames: dict[str, tuple[int, int]] = {}
    """{data key: (first, one past the last)} frame indices of this point in the detector's own file."""
    revision: int = 0
    missing: list[str] = []
    """What was awaited and did not come: data keys, or streams."""
    joins: dict[str, str] = {}
    """{data key: how it was joined by time, and by which clock}; given with the first point, and when more come."""


class AnalysisResult(Message, frozen=True, kw_only=True, tag="analysis_result"):
    """What an analysis found in a run, so far (`final` false) or at its end."""

    run_uid: str
    scan_id: int
    analysis: str
    x: str
    y: str
    values: dict[str, float]
    """center, center_of_mass, fwhm, … in the units of `x` and `y`; only finite numbers."""
    points: int
    final: bool
    fit: dict[str, float] = {}
    """Parameters of the fitted model, absent if no fit converged."""
    note: str = ""


class FileReady(Message, frozen=True, kw_only=True, tag="file_ready"):
    """A file is complete and closed."""

    run_uid: str
    scan_id: int
    writer: str
    path: str
    size: int
    """Bytes."""
    time: float
    shapes: dict[str, list[int]] = {}
    """{path in the file: shape} of what a person plots."""
    kind: Literal["file", "catalogue"] = "file"
    problems: list[str] = []
    """Deviations that are also said in the file."""
    checksum: str = ""
    """`sha256:` and 64 hexadecimal digits of the file's content; empty if nobody computed it."""
    moved_from: str = ""
    """Where it was when it was announced first, if it has been moved since."""


class FileGrowing(Message, frozen=True, kw_only=True, tag="file_growing"):
    """A file in which a run can be read while it goes on; it is gone when its writer's `FileReady` is there."""

    run_uid: str
    scan_id: int
    writer: str
    path: str
    time: float


class RunProblem(Message, frozen=True, kw_only=True, tag="run_problem"):
    """Something about a run that a person should know; it becomes an alarm."""

    run_uid: str
    source: str
    """Which callback or writer says it."""
    text: str
    level: Literal["info", "warning", "error"] = "warning"


Product = Point | AnalysisResult | FileGrowing | FileReady | RunProblem
