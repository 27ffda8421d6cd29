"""Frames inside events: each a chunk, written as it comes, and what becomes of a large file at its end."""

import hashlib
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_bluesky.documents import FileReady
from tests.writers.nexus_harness import Documents, feed, recorded
from writers._nexus_sync import BackgroundSync
from writers.nexus import NexusWriter, read_documents

_ONE = {"dtype": "array", "dtype_numpy": "<u2", "shape": [256, 256], "source": "here"}


def with_frames(frames: list[Any], key: dict[str, Any] = _ONE) -> Documents:
    start, (_, descriptor), *_, stop = recorded([])
    documents: Documents = [start, ("descriptor", descriptor | {"data_keys": {"cam": key}, "hints": {}})]
    for number, frame in enumerate(frames, 1):
        event: dict[str, Any] = {"uid": f"e{number}", "descriptor": descriptor["uid"], "time": 1.0, "filled": {}}
        documents.append(("event", event | {"seq_num": number, "data": {"cam": frame}, "timestamps": {"cam": 1.0}}))
    return [*documents, stop]


def frame_of(value: int, dtype: str = "<u2") -> np.ndarray:
    return np.full((256, 256), value, dtype)


def tick_until(writer: NexusWriter, emitted: list[FileReady]) -> None:
    deadline = time.monotonic() + 60
    while not emitted:
        assert time.monotonic() < deadline
        writer.tick()
        time.sleep(0.01)


def test_a_frame_is_stored_as_it_was_when_it_came(writer: NexusWriter, emitted: list[FileReady]) -> None:
    buffer = frame_of(0)
    documents = with_frames([buffer] * 20)
    for number, (name, doc) in enumerate(documents):
        buffer[:] = number  # the device takes the next one into the same memory
        writer(name, doc)
    with h5py.File(emitted[0].path) as file:
        dataset = file["entry/streams/primary/cam"]
        assert dataset.chunks == (1, 256, 256)
        assert dataset[:, 5, 5].tolist() == list(range(2, 22))
        assert len(file["entry/streams/primary/timestamps/cam"]) == 20


@pytest.mark.parametrize(
    "others",
    [
        [frame_of(70_000, "<u4"), frame_of(5)],
        [frame_of(5), None, frame_of(6)],
        [np.full((200, 256), 3, "<u2"), frame_of(5)],
        [frame_of(5).tolist(), frame_of(6)],
        ["no frame", frame_of(6)],
        [frame_of(1)[::-1, ::2], frame_of(2)],
    ],
    ids=["type", "gap", "shape", "lists", "text", "stride"],
)
def test_frames_of_another_kind_between_others_change_none(
    writer: NexusWriter, emitted: list[FileReady], others: list[Any]
) -> None:
    frames = [frame_of(1), frame_of(2), *others, frame_of(9)]
    feed(writer, with_frames(frames))
    events = [doc for name, doc in read_documents(emitted[0].path) if name == "event"]
    assert [doc["seq_num"] for doc in events] == list(range(1, len(frames) + 1))
    for doc, frame in zip(events, frames, strict=True):
        stored = np.asarray(doc["data"]["cam"])
        if frame is None:
            assert doc["data"]["cam"] is None or np.isnan(stored).all()
        else:
            np.testing.assert_array_equal(stored, np.asarray(frame))


def test_a_large_file_has_its_name_at_once_and_is_announced_with_its_checksum(root: Path, emitted: list[Any]) -> None:
    frame = np.zeros((1024, 4096), "<u2")
    key = {"dtype": "array", "dtype_numpy": "<u2", "shape": list(frame.shape), "source": "here"}
    writer = NexusWriter(directory=root, emit=emitted.append, follow=False)
    writer.tick()
    documents = with_frames([frame] * 20, key)
    feed(writer, documents)
    (path,) = root.rglob("*.nxs")
    uid = documents[0][1]["uid"]
    feed(writer, documents)  # a service may be told of it again
    tick_until(writer, emitted)
    writer.tick()
    (ready,) = emitted
    assert ready.checksum == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert ready.size == path.stat().st_size > 20 * frame.nbytes
    assert writer.is_stored(uid)
    assert [each.suffix for each in path.parent.iterdir()] == [".nxs"]


def test_a_large_file_whose_writer_ends_meanwhile_is_announced_by_the_next(root: Path, emitted: list[Any]) -> None:
    frame = np.zeros((1024, 4096), "<u2")
    key = {"dtype": "array", "dtype_numpy": "<u2", "shape": list(frame.shape), "source": "here"}
    documents = with_frames([frame] * 20, key)
    first = NexusWriter(directory=root, emit=emitted.append, follow=False)
    first.tick()
    feed(first, documents)
    first.close()
    early = len(emitted)
    second = NexusWriter(directory=root, emit=emitted.append, follow=False)
    if not second.holds(documents[0][1]["uid"]):
        assert not early
        feed(second, documents)
    (ready,) = emitted
    assert ready.checksum == f"sha256:{hashlib.sha256(Path(ready.path).read_bytes()).hexdigest()}"
    assert second.holds(documents[0][1]["uid"])


def test_what_does_not_get_to_the_disk_in_the_background_is_told(tmp_path: Path) -> None:
    background = BackgroundSync(tmp_path / "gone")
    background.grown(2**30)
    with pytest.raises(FileNotFoundError):
        background.end()
