"""Runs whose documents are gone, and files that a killed process did not announce or left torn."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.documents import FileReady
from bec_bluesky.documents._lost import LOST
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import feed, recorded
from writers._nexus_checksum import Checksums
from writers.nexus import NexusWriter, read_documents


class Starts:
    """Writers of one owner, each as after a start of its process, and what they emit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.products: list[Any] = []

    def start(self, **options: Any) -> NexusWriter:
        options = {"wait_for_files": 0, "wait_for_results": 0} | options
        writer = NexusWriter(directory=self.root, emit=self.products.append, **options)
        writer.owner = "here:nexus"
        writer.tick()
        return writer

    @property
    def files(self) -> list[FileReady]:
        return [product for product in self.products if isinstance(product, FileReady)]


@pytest.fixture
def starts(root: Path) -> Starts:
    return Starts(root)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_file_that_a_killed_process_did_not_announce_is_announced_by_the_next(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    uid = documents[0][1]["uid"]
    after = [{"copy_to": str(tmp_path / "copies")}]
    with monkeypatch.context() as patch:
        patch.setattr(Checksums, "of", lambda *_: Future())  # of a large file: killed before it was there
        killed = starts.start(after=after)
        if is_lost:
            feed(killed, documents[:3])
            killed.close_lost(uid)
        else:
            feed(killed, documents)
    assert starts.files == []
    writer = starts.start(after=after)
    assert writer.unfinished() == [uid]
    assert writer.unfinished() == [uid], "until that is announced"
    writer.close_lost(uid)
    (ready,) = starts.files
    assert (ready.run_uid, ready.problems) == (uid, [LOST] if is_lost else [])
    assert writer.unfinished() == []
    assert writer.holds(uid) != is_lost
    assert writer._steps.wait()
    assert len(list((tmp_path / "copies").iterdir())) == 1
    writer.close()
    writer = starts.start(after=after)
    assert writer.unfinished() == []
    feed(writer, documents)  # they come after all
    assert writer.holds(uid)
    assert len(starts.files) == 1 + is_lost
    assert len(list(read_documents(starts.files[-1].path))) == 6
    writer.close()


def test_a_file_that_was_not_announced_is_announced_once_when_its_run_is_fed_again(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = recorded([1.0, 2.0])
    with monkeypatch.context() as patch:
        patch.setattr(Checksums, "of", lambda *_: Future())
        feed(starts.start(), documents)
    writer = starts.start()
    assert writer.unfinished() == [documents[0][1]["uid"]]
    feed(writer, documents)
    assert writer.unfinished() == []
    assert len(starts.files) == 1
    writer.close()


def test_a_part_with_a_hole_is_closed_with_the_documents_before_it_and_kept(starts: Starts) -> None:
    documents = recorded([float(number) for number in range(3_000)])
    uid = documents[0][1]["uid"]
    killed = starts.start()
    feed(killed, documents[:-1])
    killed.close()
    (part,) = starts.root.rglob(".*.part")
    content = bytearray(part.read_bytes())
    heaps = [place for place in range(0, len(content), 8) if content[place : place + 4] == b"GCOL"]
    hole = heaps[len(heaps) // 2]
    content[hole : hole + 4_096] = bytes(4_096)  # a page that did not get to the disk before a power cut
    part.write_bytes(content)
    writer = starts.start()
    assert writer.unfinished() == [uid]
    writer.close_lost(uid)
    (ready,) = starts.files
    kept = next(starts.root.rglob("*_as_it_was.nxs"))
    assert any(f"is kept in {kept.name}" in problem for problem in ready.problems)
    assert kept.read_bytes() == content
    *found, stop = read_documents(ready.path)
    assert 1_000 < len(found) < 3_000
    assert [doc["uid"] for _, doc in found] == [doc["uid"] for _, doc in documents[: len(found)]]
    assert stop[1]["documents_lost"]
    assert writer.unfinished() == []
    assert not writer.open_runs
    writer.close()


def test_a_part_that_cannot_be_opened_stays_and_is_told(starts: Starts) -> None:
    documents = recorded([1.0, 2.0])
    killed = starts.start()
    feed(killed, documents[:3])
    killed.close()
    (part,) = starts.root.rglob(".*.part")
    part.write_bytes(b"no HDF5")
    writer = starts.start()
    with pytest.raises(SettingsError, match="cannot be read"):
        writer.close_lost(documents[0][1]["uid"])
    assert part.read_bytes() == b"no HDF5"
    assert not writer.open_runs
    writer.close()


@pytest.mark.parametrize("again", [1, 3])
def test_what_an_earlier_attempt_wrote_is_kept_if_less_comes_again(starts: Starts, again: int) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    uid = documents[0][1]["uid"]
    killed = starts.start()
    feed(killed, documents[:-1])
    killed.close()
    writer = starts.start()
    feed(writer, documents[: 2 + again])
    writer.close_lost(uid)
    (ready,) = starts.files
    kept = list(starts.root.rglob("*_as_it_was.nxs"))
    if again == 3:
        assert kept == []
        assert ready.problems == [LOST]
    else:
        assert [name for name, _ in read_documents(kept[0])] == [name for name, _ in documents[:-1]]
        assert any(f"is kept in {kept[0].name}" in problem for problem in ready.problems)
    assert len(list(read_documents(ready.path))) == again + 3
    writer.close()
