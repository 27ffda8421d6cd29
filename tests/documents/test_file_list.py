"""The list of announced files: what it gives back, and what a kill may do to it."""

from pathlib import Path

from bec_bluesky.documents import FileList, FileReady, Product


def ready(run: str, path: str, **more: str) -> FileReady:
    return FileReady(run_uid=run, scan_id=1, writer="nexus", path=path, size=10, time=1.0, **more)  # pyright: ignore[reportArgumentType]


def test_files_are_noted_and_passed_on(tmp_path: Path) -> None:
    files = FileList(tmp_path / "files.jsonl")
    passed: list[Product] = []
    emit = files.noting(passed.append)
    first, other, entry = ready("run-a", "/1"), ready("run-b", "/2"), ready("run-a", "http://x", kind="catalogue")
    for product in (first, other, entry):
        emit(product)
    assert passed == [first, other, entry]
    assert files.of("run-a") == [first]
    assert FileList(tmp_path / "files.jsonl").of("run-b") == [other]
    assert files.of("run-c") == []


def test_a_file_that_is_announced_again_or_moved_is_given_once(tmp_path: Path) -> None:
    emit = FileList(tmp_path / "files.jsonl").noting(lambda _: None)
    emit(ready("run", "/1"))
    emit(ready("run", "/1"))
    emit(ready("run", "/archive/1", moved_from="/1"))
    assert [file.path for file in FileList(tmp_path / "files.jsonl").of("run")] == ["/archive/1"]


def test_a_line_that_a_kill_tore_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "files.jsonl"
    emit = FileList(path).noting(lambda _: None)
    emit(ready("run", "/1"))
    with path.open("ab") as file:
        file.write(b'{"type":"file_ready","run_uid":"ru')
    emit(ready("run", "/2"))
    assert [file.path for file in FileList(path).of("run")] == ["/1", "/2"]


def test_a_list_that_cannot_be_written_holds_up_nobody(tmp_path: Path) -> None:
    files = FileList(tmp_path / "missing" / "files.jsonl")
    passed: list[Product] = []
    files.noting(passed.append)(ready("run", "/1"))
    assert len(passed) == 1
    assert files.of("run") == []
