"""Reading back: the printed line is the executed line, and differences are found."""

from pathlib import Path

import h5py
import pytest

from bec_bluesky.cli._readback import FinishedRun, Way, check, find_in_file, ways
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages.products import Point, RunOpened


def a_run(path: str = "") -> FinishedRun:
    points = [
        Point(
            run_uid="u1",
            scan_id=3,
            stream="primary",
            index=index,
            time=0.0,
            data={"samx": float(index), "det": 0.1 * index},
            positions=["samx"],
            signals=["det"],
            frames={"cam-1": (2 * index - 2, 2 * index)},
        )
        for index in (1, 2, 3)
    ]
    return FinishedRun(RunOpened(run_uid="u1", scan_id=3, time=0.0), points=points, path=path)


def a_file(directory: Path) -> str:
    path = directory / "scan 3's.h5"
    with h5py.File(path, "w") as file:
        file["entry/streams/primary/samx"] = [1.0, 2.0, 3.0]
        file["entry/streams/primary/det"] = [0.1, 0.2, 0.1 * 3]
        file["entry/streams/primary/cam_1"] = [[[1, 2], [3, index]] for index in range(6)]
    return str(path)


def test_the_columns_of_a_run_are_found_in_its_file_and_read_by_the_printed_line(tmp_path: Path) -> None:
    run = a_run(a_file(tmp_path))
    found = find_in_file(run)
    assert found["cam-1"] == "/entry/streams/primary/cam_1"
    way = next(way for way in ways(run, "profile", found) if way.name == "h5py")
    columns = way.read()
    assert columns == {"samx": [1, 2, 3], "det": [0.1, 0.2, 0.1 * 3], "cam-1": [6, 7, 8, 9, 10, 11]}
    assert check(run, [(way, columns)]) == []


def test_a_file_that_lacks_a_column_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["entry/streams/primary/samx"] = [1.0, 2.0, 3.0]
    with pytest.raises(BecBlueskyError, match=r"x\.h5 lacks det, cam-1 in /entry/streams/primary"):
        find_in_file(a_run(str(tmp_path / "x.h5")))


def test_a_line_that_fails_gives_its_last_words() -> None:
    with pytest.raises(BecBlueskyError, match="the line for h5py failed: ZeroDivisionError"):
        Way("h5py", "1/0").read()


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"det": [0.1, 0.2, 0.31]}, "other det than the live points"),
        ({"det": [0.1, 0.2]}, "other det than the live points"),
        ({"cam-1": [1.0] * 5}, "5 of cam-1, the points name 6 frames"),
        ({"sum": []}, "no sum"),
    ],
)
def test_what_differs_from_the_points_is_named(columns: dict[str, list[float]], problem: str) -> None:
    (said,) = check(a_run(), [(Way("Tiled", ""), columns)])
    assert problem in said


def test_what_differs_between_two_ways_is_named() -> None:
    (said,) = check(a_run(), [(Way("Tiled", ""), {"cam-1": [1.0] * 6}), (Way("h5py", ""), {"cam-1": [2.0] * 6})])
    assert said == "h5py gives other cam-1 than Tiled in scan 3"
