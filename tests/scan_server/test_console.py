"""What is printed becomes texts of whole lines, and never more than Redis can take."""

from pathlib import Path

import pytest

from bec_bluesky.scan_server._console import BYTES_A_SECOND, LINES_A_SECOND, Tail


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.touch()
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def lines(texts: list[str]) -> list[str]:
    return "".join(texts).splitlines()


def test_a_line_comes_when_it_is_complete(file: Path) -> None:
    tail = Tail(file, "worker")
    append(file, "one\ntw")
    assert tail.read() == ["one\n"]
    append(file, "o\n")
    assert tail.read() == ["two\n"]
    append(file, "thr")
    assert tail.read() == []
    assert tail.read(is_last=True) == ["thr\n"]
    tail.close()


def test_a_bar_that_is_written_over_comes_as_it_looks_in_the_end(file: Path) -> None:
    tail = Tail(file, "worker")
    append(file, "\r 10 %\r 50 %\r100 %\nwindows\r\n")
    assert tail.read() == ["100 %\nwindows\n"]
    tail.close()


def test_lines_beyond_the_bound_are_left_out_and_counted(file: Path) -> None:
    tail = Tail(file, "worker")
    count = 3 * LINES_A_SECOND
    append(file, "".join(f"{number}\n" for number in range(count)))
    got = lines(tail.read(is_last=True))
    assert got[: 2 * LINES_A_SECOND] == [str(number) for number in range(2 * LINES_A_SECOND)]
    assert got[-1] == f"... {LINES_A_SECOND} lines were left out here: too much was printed at once"
    assert tail.output.endswith(f"\n{count - 1}\n")
    tail.close()


def test_bytes_beyond_the_bound_are_left_out_and_of_a_flood_its_beginning(file: Path) -> None:
    tail = Tail(file, "worker")
    append(file, ("x" * 999 + "\n") * 3000)
    texts = tail.read()
    append(file, ("y" * 999 + "\n") * 100)
    texts += tail.read(is_last=True)
    assert sum(map(len, texts)) < 2 * BYTES_A_SECOND + 1000
    assert max(map(len, texts)) <= 16 * 1024
    assert " bytes were left out here" in texts[0] and " lines were left out here" in texts[-1]
    tail.close()


def test_a_file_that_grows_without_end_is_emptied_and_followed_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bec_bluesky.scan_server._console._LARGEST_FILE", 1000)
    tail = Tail(file, "worker")
    append(file, "x" * 999 + "\n" + "y\n")
    assert lines(tail.read()) == ["x" * 999, "y"]
    assert file.stat().st_size == 0
    append(file, "z\n")
    assert tail.read() == ["z\n"]
    tail.close()


def test_what_one_source_prints_is_not_the_output_of_the_next(file: Path) -> None:
    tail = Tail(file, "")
    append(file, "start-up\n")
    assert tail.read() == []
    tail.begin("task")
    append(file, "mine\n")
    assert tail.read(is_last=True) == ["mine\n"]
    assert tail.output == "mine\n"
    tail.close()
