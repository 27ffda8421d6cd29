"""Copies, moves and commands after a file is complete, and the room on its disk."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_bluesky.documents import FileReady, RunProblem
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import Documents, feed, recorded, with_frames
from writers import _file_steps, _nexus_run
from writers._disk import Room
from writers._nexus_checksum import checksum
from writers.nexus import NexusWriter, read_documents


class Made:
    """Writers with steps, and what they emit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.products: list[Any] = []
        self.writers: list[NexusWriter] = []

    def writer(self, *after: dict[str, Any], **options: Any) -> NexusWriter:
        options = {"wait_for_files": 0, "wait_for_results": 0} | options
        writer = NexusWriter(directory=self.root, emit=self.products.append, after=after, **options)
        writer.owner = "here:nexus"
        self.writers.append(writer)
        return writer

    def run(self, writer: NexusWriter, *values: float, **start: Any) -> str:
        documents = recorded(list(values) or [1.0, 2.0], **start)
        feed(writer, documents)
        assert writer._steps.wait()
        return documents[0][1]["uid"]

    @property
    def files(self) -> list[FileReady]:
        return [product for product in self.products if isinstance(product, FileReady)]

    @property
    def alarms(self) -> list[RunProblem]:
        return [product for product in self.products if isinstance(product, RunProblem)]


@pytest.fixture
def made(root: Path) -> Iterator[Made]:
    made = Made(root)
    yield made
    for writer in made.writers:
        writer.close()


def test_a_copy_has_the_same_content_and_a_move_is_announced(made: Made, tmp_path: Path) -> None:
    copies, archive = tmp_path / "copies", tmp_path / "archive"
    writer = made.writer({"copy_to": f"{copies}/{{proposal}}"}, {"move_to": f"{archive}/{{sample}}/raw"})
    uid = made.run(writer, proposal="p 1", sample="CuO")
    first, second = made.files
    copy, moved = copies / "p_1" / Path(first.path).name, archive / "CuO" / "raw" / Path(first.path).name
    assert (second.path, second.moved_from, second.run_uid) == (str(moved), first.path, uid)
    assert second.checksum == first.checksum
    assert copy.read_bytes() == moved.read_bytes()
    assert not Path(first.path).exists()
    assert made.alarms == []
    assert writer.holds(uid)
    assert made.writer().holds(uid), "the index has the new place"
    assert len(list(read_documents(moved))) == 5
    assert not list((made.root / ".after").iterdir())
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith(".part")]


def test_steps_are_done_in_order(made: Made, tmp_path: Path) -> None:
    append = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
    log = tmp_path / "log"
    note = {"command": [sys.executable, "-c", append, str(log), "{path}"]}
    made.run(made.writer(note, {"move_to": str(tmp_path / "there")}, note))
    first, second = made.files
    assert log.read_text().splitlines() == [first.path, second.path]


def test_another_disk_gets_a_copy_before_the_original_goes(made: Made) -> None:
    shared = Path("/dev/shm")  # another file system, if there is one
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == made.root.parent.stat().st_dev:
        pytest.skip("no other file system here")
    there = shared / f"bec-bluesky-test-{os.getpid()}"
    try:
        made.run(made.writer({"move_to": str(there)}))
        (path,) = there.iterdir()
        assert made.files[1].path == str(path)
        assert not Path(made.files[0].path).exists()
        assert made.files[1].checksum == made.files[0].checksum
    finally:
        shutil.rmtree(there, ignore_errors=True)


@pytest.mark.parametrize("step", ["copy_to", "move_to"])
def test_what_fails_is_tried_again_then_told_and_the_original_stays(made: Made, tmp_path: Path, step: str) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    later = tmp_path / "later"
    place = {step: str(tmp_path / "blocked" / "below"), "attempts": 3, "pause": 0.01}
    uid = made.run(made.writer(place, {"copy_to": str(later)}))
    (ready,) = made.files
    (alarm,) = made.alarms
    assert alarm.level == "error"
    assert f"of {Path(ready.path).name} failed" in alarm.text
    assert f"the file is at {ready.path}" in alarm.text
    assert Path(ready.path).is_file()
    assert not later.exists(), "what follows is not done"
    (tmp_path / "blocked").unlink()
    again = made.writer(place, {"copy_to": str(later)})  # after the next start
    again.tick()
    assert again._steps.wait()
    assert len(list(later.iterdir())) == 1
    assert again.holds(uid)


def test_a_command_that_fails_is_told_with_what_it_said(made: Made) -> None:
    code = "import sys; sys.stderr.write('no tape'); sys.exit(3)"
    made.run(made.writer({"command": [sys.executable, "-c", code], "attempts": 2, "pause": 0.01}))
    (alarm,) = made.alarms
    assert "exit code 3: no tape" in alarm.text


def test_a_file_that_is_there_is_not_overwritten(made: Made, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "000001_recorded.nxs").write_text("precious")
    made.run(made.writer({"move_to": str(there)}, template="{scan_id:06d}_{plan_name}.nxs"))
    assert (there / "000001_recorded.nxs").read_text() == "precious"
    assert "is not overwritten" in made.alarms[0].text
    assert Path(made.files[0].path).is_file()


def test_a_move_to_where_it_is_does_nothing(made: Made) -> None:
    made.run(made.writer({"move_to": str(made.root)}, template="{scan_id}.nxs"))
    (ready,) = made.files
    assert Path(ready.path).is_file()
    assert made.alarms == []


def test_a_file_with_links_is_not_moved_and_its_copy_is_told(made: Made, tmp_path: Path) -> None:
    made.root.mkdir()
    with h5py.File(made.root / "frames.h5", "w") as file:
        file["frames"] = np.ones((2, 4, 4))
    documents = with_frames(recorded([1.0, 2.0]), made.root / "frames.h5")
    writer = made.writer({"copy_to": str(tmp_path / "copies")}, {"move_to": str(tmp_path / "archive")})
    feed(writer, documents)
    assert writer._steps.wait()
    copied, refused = made.alarms
    assert "links lead to frames that are not there" in copied.text
    assert "links to files of detectors" in refused.text
    (ready,) = made.files
    with h5py.File(ready.path) as file:
        assert file["entry/streams/primary/eiger"][()].tolist() == np.ones((2, 4, 4)).tolist()


@pytest.mark.parametrize("point", ["moved", "unlink"])
def test_a_move_that_a_kill_cut_short_is_completed_by_the_next_start(made: Made, tmp_path: Path, point: str) -> None:
    there = tmp_path / "there"
    code = f"""
import os, signal
from pathlib import Path
from tests.writers.nexus_harness import feed, recorded, with_frames
from writers import _file_steps, _nexus_run
from writers.nexus import NexusWriter
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
writer = NexusWriter(directory={str(made.root)!r}, after=[dict(move_to={str(there)!r})], wait_for_results=0)
writer.owner = "here:nexus"
if {point == "moved"}:
    writer._steps._moved = die
else:
    writer._steps._note_path = lambda job, old=writer._steps._note_path: old(job) if not job.done else die()
feed(writer, recorded([1.0, 2.0]))
writer._steps.wait()
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    writer = made.writer({"move_to": str(there)})
    writer.tick()
    assert writer._steps.wait()
    (path,) = there.iterdir()
    (ready,) = made.files
    assert ready.path == str(path)
    assert len(list(read_documents(path))) == 5
    assert not list(made.root.rglob("*.nxs"))
    assert not list((made.root / ".after").iterdir())


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({}, "exactly one"),
        ({"copy_to": "/a", "move_to": "/b"}, "exactly one"),
        ({"copy_to": "relative"}, "no absolute path"),
        ({"copy_to": "/a/{nonsense}"}, "no field 'nonsense'"),
        ({"copy_to": "/a/{sample}/../b"}, "relative path"),
        ({"copyto": "/a"}, "copyto"),
        ({"command": "rm"}, "array"),
        ({"copy_to": "/a", "attempts": 0}, "make no sense"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(root: Path, step: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        NexusWriter(directory=root, after=[step])


def test_little_room_is_told_when_a_run_begins_and_only_once(made: Made) -> None:
    writer = made.writer(warn_free=2**60)
    for _ in range(2):
        made.run(writer)
        writer.tick()
    (alarm,) = made.alarms
    assert "GB left, less than 1073741824.0 GB: make room" in alarm.text
    assert len(made.files) == 2, "it is an alarm, and no refusal"


def test_room_is_looked_for_again_and_told_again_after_there_was_some(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    room = Room(tmp_path, free * 2)
    assert room.shortage() is not None
    assert room.shortage() is None, "it was looked for just now"
    for least, is_told in ((free * 2, False), (0, False), (free * 2, True)):
        room._least, room._next_look = least, 0.0
        assert (room.shortage() is not None) == is_told


def lose(writer: NexusWriter, documents: Documents) -> str:
    """Write a run whose documents were lost after its first event."""
    uid = str(documents[0][1]["uid"])
    feed(writer, documents[:3])
    writer.close_lost(uid)
    return uid


def test_the_documents_of_a_lost_run_that_was_moved_are_taken_when_they_come_after_all(
    made: Made, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    writer = made.writer({"move_to": str(there)})
    documents = recorded([1.0, 2.0, 3.0])
    uid = lose(writer, documents)
    assert writer._steps.wait()
    assert not writer.holds(uid)
    feed(writer, documents)
    assert writer._steps.wait()
    assert writer.holds(uid)
    lost, complete = (file.path for file in made.files if file.moved_from)
    assert (Path(lost).stem, Path(complete).stem) == ("000001_recorded_lost", "000001_recorded")
    assert [len(list(read_documents(path))) for path in (lost, complete)] == [4, 6]
    assert {alarm.level for alarm in made.alarms} == {"warning"}, "that documents were lost"


def test_what_a_command_prints_may_be_anything(made: Made, tmp_path: Path) -> None:
    made.run(made.writer({"command": ["printf", "\\344"]}, {"copy_to": str(tmp_path / "copies")}))
    assert len(list((tmp_path / "copies").iterdir())) == 1
    assert made.alarms == []


def test_an_error_that_nobody_foresaw_is_told(made: Made, tmp_path: Path) -> None:
    made.run(made.writer({"command": ["a\0b"]}))
    (alarm,) = made.alarms
    assert alarm.level == "error"
    assert "null byte" in alarm.text
    assert Path(made.files[0].path).is_file()


def test_a_disk_that_refuses_hard_links_gets_a_copy(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if Path(source).suffix == ".nxs":  # as between two mounts of one disk
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    made.run(made.writer({"move_to": str(tmp_path / "there")}))
    first, second = made.files
    assert not Path(first.path).exists()
    assert checksum(Path(second.path)) == first.checksum == second.checksum
    assert made.alarms == []


def test_what_a_killed_copy_left_is_not_kept(made: Made, tmp_path: Path) -> None:
    there = tmp_path / "there"
    code = f"""
import errno
import os
from tests.writers.nexus_harness import feed, recorded
from writers import _file_steps, _nexus_run
from writers.nexus import NexusWriter
_file_steps.sync = lambda path: os._exit(9)
writer = NexusWriter(directory={str(made.root)!r}, after=[dict(copy_to={str(there)!r})], wait_for_results=0)
writer.owner = "here:nexus"
if list(writer._root.rglob("*.nxs")):
    writer.tick()
else:
    feed(writer, recorded([1.0, 2.0]))
writer._steps.wait()
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
        assert len(list(there.iterdir())) == 1
    writer = made.writer({"copy_to": str(there)})
    writer.tick()
    assert writer._steps.wait()
    (copy,) = there.iterdir()
    assert len(list(read_documents(copy))) == 5


def test_after_a_change_of_the_profile_only_what_was_not_done_is_done(made: Made, tmp_path: Path) -> None:
    first, blocked, log = tmp_path / "first", tmp_path / "blocked", tmp_path / "log"
    blocked.write_text("a file where a folder should be")
    append = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    note = {"command": [sys.executable, "-c", append, str(log), "x"]}
    made.run(made.writer({"copy_to": str(first)}, note, {"copy_to": str(blocked), "attempts": 1}, note))
    assert log.read_text() == "x"
    shutil.rmtree(first)
    blocked.unlink()
    also = {"copy_to": str(tmp_path / "also")}
    again = made.writer(also, {"copy_to": str(blocked), "attempts": 3}, note, {"copy_to": str(first)}, note)
    again.tick()
    assert again._steps.wait()
    assert not first.exists(), "it was copied there"
    assert [len(list((tmp_path / name).iterdir())) for name in ("also", "blocked")] == [1, 1]
    assert log.read_text() == "xx"
    assert not list((made.root / ".after").iterdir())


def test_a_move_that_outlasts_its_writer_is_left_to_the_next_start(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, may_go_on = threading.Event(), threading.Event()

    def slow(*given: Any, **options: Any) -> None:
        copying.set()
        assert may_go_on.wait(30)
        copy(*given, **options)

    copy = _file_steps._copy
    monkeypatch.setattr(_file_steps, "_copy", slow)
    monkeypatch.setattr(_file_steps, "_CLOSING", 0.0)
    after = {"move_to": str(tmp_path / "there")}, {"copy_to": str(tmp_path / "copies")}
    writer = made.writer(*after)
    feed(writer, recorded([1.0, 2.0]))
    assert copying.wait(30)
    thread = writer._steps._thread
    assert thread is not None
    writer.close()
    may_go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    (ready,) = made.files
    assert Path(ready.path).is_file()
    assert not (tmp_path / "copies").exists()
    again = made.writer(*after)
    again.tick()
    assert again._steps.wait()
    assert made.files[1].moved_from == ready.path
    assert not Path(ready.path).exists()
    assert len(list((tmp_path / "copies").iterdir())) == 1


def test_a_move_is_announced_from_its_old_place_by_the_known_checksum(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    opened: list[Path] = []
    file_of = h5py.File

    def opening(name: Any, *given: Any, **options: Any) -> h5py.File:
        opened.append(Path(name))
        return file_of(name, *given, **options)

    monkeypatch.setattr(_nexus_run.h5py, "File", opening)
    monkeypatch.setattr(_nexus_run, "checksum", None)
    made.run(made.writer({"move_to": str(there)}))
    first, second = made.files
    assert checksum(Path(second.path)) == first.checksum == second.checksum
    assert (second.size, second.shapes) == (first.size, first.shapes)
    assert Path(first.path) in opened
    assert Path(second.path) not in opened


def test_a_command_that_changes_the_file_has_it_announced_by_its_new_checksum(made: Made, tmp_path: Path) -> None:
    code = "import sys, h5py; h5py.File(sys.argv[1], 'a').create_dataset('more', data=1)"
    made.run(made.writer({"command": [sys.executable, "-c", code, "{path}"]}, {"move_to": str(tmp_path / "there")}))
    first, second = made.files
    assert checksum(Path(second.path)) == second.checksum != first.checksum


def test_both_files_of_a_run_that_came_after_all_are_copied(made: Made, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.write_text("a file where the folder should be")
    after = {"copy_to": str(copies), "attempts": 1}
    writer = made.writer(after)
    documents = recorded([1.0, 2.0, 3.0])
    lose(writer, documents)
    feed(writer, documents)
    assert writer._steps.wait()
    copies.unlink()
    again = made.writer(after)
    again.tick()
    assert again._steps.wait()
    assert sorted(len(list(read_documents(path))) for path in copies.iterdir()) == [4, 6]
    assert not list((made.root / ".after").iterdir())
