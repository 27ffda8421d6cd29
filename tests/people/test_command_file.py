"""The command log on disk: appended to, never rewritten, read from its end."""

import itertools
import os
import time
from pathlib import Path

import pytest

from bec_bluesky.messages.around_queue import Command
from bec_bluesky.people import CommandFile, Wanted

NEW_YEAR = time.mktime((2027, 1, 1, 0, 0, 0, 0, 0, -1))


def command(
    number: int, *, at: float = 0.0, user: str = "ann", verb: str = "add_item", outcome: str = "done"
) -> Command:
    asked = {"plan": "count", "note": f"number {number}"}
    return Command(time=at or 1e9 + number, verb=verb, user=user, asked=asked, outcome=outcome)


def notes(commands: object) -> list[str]:
    assert isinstance(commands, list)
    return [each.asked["note"] for each in commands]


def test_what_was_appended_comes_back_newest_first_however_long_the_file(tmp_path: Path) -> None:
    file = CommandFile(tmp_path, "b1")
    for start in range(0, 9_000, 1_000):
        file.append([command(start + number) for number in range(1_000)])
    newest = list(file.newest())
    assert notes(newest) == [f"number {number}" for number in reversed(range(9_000))]
    assert len({path.stat().st_size > 300_000 for path in tmp_path.iterdir()}) == 1


def test_commands_are_found_by_user_verb_time_words_and_outcome(tmp_path: Path) -> None:
    file = CommandFile(tmp_path, "b1")
    file.append(
        [
            command(0),
            command(1, user="bob"),
            command(2, verb="control_run abort"),
            command(3, outcome="refused"),
            command(4, outcome="failed"),
        ]
    )
    assert notes(list(file.newest(Wanted(user="bob")))) == ["number 1"]
    assert notes(list(file.newest(Wanted(verb="abort")))) == ["number 2"]
    assert notes(list(file.newest(Wanted(only_refused=True)))) == ["number 4", "number 3"]
    assert notes(list(file.newest(Wanted(text="NUMBER 2")))) == ["number 2"]
    assert notes(list(file.newest(Wanted(since=1e9 + 3)))) == ["number 4", "number 3"]
    assert notes(list(file.newest(Wanted(until=1e9 + 1)))) == ["number 1", "number 0"]


def test_each_year_and_each_beamline_has_a_file(tmp_path: Path) -> None:
    file, other = CommandFile(tmp_path, "b1"), CommandFile(tmp_path, "b1-b")
    file.append([command(1, at=NEW_YEAR - 1), command(2, at=NEW_YEAR + 1)])
    other.append([command(3, at=NEW_YEAR + 1)])
    assert {path.name for path in tmp_path.iterdir()} == {
        "commands-b1-2026.jsonl",
        "commands-b1-2027.jsonl",
        "commands-b1-b-2027.jsonl",
    }
    assert notes(list(file.newest())) == ["number 2", "number 1"]


def test_a_line_that_a_killed_writer_left_unfinished_costs_no_other(tmp_path: Path) -> None:
    file = CommandFile(tmp_path, "b1")
    file.append([command(1)])
    (path,) = tmp_path.iterdir()
    with path.open("ab") as broken:
        broken.write(b'{"type":"command","time":17')
    assert notes(list(file.newest())) == ["number 1"]
    file.append([command(2)])
    assert notes(list(file.newest())) == ["number 2", "number 1"]
    assert path.read_bytes().count(b"\n") == 3


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    file = CommandFile(tmp_path, "b1")
    file.append([command(1)])
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    child = os.fork()
    if child == 0:  # a limit on the size of files is what can be had of a full disk without being root
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
        try:
            file.append([command(2)])
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.stat().st_size == size
    file.append([command(3)])
    assert notes(list(file.newest())) == ["number 3", "number 1"]


@pytest.mark.parametrize("count", [1, 3])
def test_the_newest_are_read_without_reading_all(tmp_path: Path, count: int) -> None:
    file = CommandFile(tmp_path, "b1")
    file.append([command(number) for number in range(20)])
    assert len(list(itertools.islice(file.newest(), count))) == count
