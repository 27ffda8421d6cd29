"""Redis is lost while a run is written: its file is completed with what is known, and nobody else's is touched."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from bec_bluesky import embedded
from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, CURSORS, DOCUMENTS, FILES, RUNS, STORED
from bec_bluesky.documents import FileReady
from bec_bluesky.documents._lost import LOST, system_id
from bec_bluesky.messages.products import RunOpened
from bec_bluesky.settings import Settings
from bec_bluesky.testing import settings_in
from callbacks.bundler import ScanBundler
from tests.documents.feed_harness import feeding, publish, until
from tests.writers.nexus_harness import Documents, as_lists, recorded
from writers.nexus import NexusWriter, read_documents

SOON = 0.3
"""Seconds for which documents must be gone, here."""


def writer_in(root: Path, owner: str = "here:nexus") -> NexusWriter:
    writer = NexusWriter(directory=root, wait_for_files=0, wait_for_results=0)
    writer.owner = owner
    return writer


def killed_in_mid_run(root: Path, documents: Documents, told: Path, owner: str = "here:nexus") -> Path:
    """Have a process write documents, and kill it; give the part file that it leaves."""
    told.write_text(json.dumps(as_lists(documents)))
    code = f"""
import json, os, signal
from pathlib import Path
from writers.nexus import NexusWriter
writer = NexusWriter(directory={str(root)!r})
writer.owner = {owner!r}
for name, doc in json.loads(Path({str(told)!r}).read_text()):
    writer(name, doc)
for file in writer.open_runs.values():
    file.file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (part,) = root.rglob(".*.part")
    return part


async def lose(bus: Bus, *runs: str) -> None:
    """Lose what Redis knows of runs, as if it had been wiped."""
    await bus.delete(RUNS)
    for run in runs:
        await bus.delete(DOCUMENTS, run=run)


async def files_ready(bus: Bus) -> list[FileReady]:
    return [message for _, message in await bus.read(FILES) if isinstance(message, FileReady)]


async def file_of(bus: Bus, run: str) -> FileReady:
    async def ready() -> list[FileReady]:
        return [each for each in await files_ready(bus) if each.run_uid == run]

    await until(ready, 20.0)
    (message,) = await ready()
    return message


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def assert_cut_short(path: str, documents: Documents) -> None:
    """The file opens, has these documents and a stop document that says what became of the others."""
    *found, (name, stop) = list(read_documents(path))
    assert as_lists(found) == as_lists(documents)
    assert (name, stop["exit_status"], stop["reason"]) == ("stop", "fail", LOST)
    with h5py.File(path) as file:
        assert file["entry/run/exit_status"].asstr()[()] == "fail"
        assert file["entry/run/reason"].asstr()[()] == LOST
        assert LOST in list(file["entry/run/problems"].asstr()[()])
        assert file["entry/data"].attrs["signal"]


async def test_a_part_file_whose_documents_were_lost_is_completed_by_the_next_start(bus: Bus, tmp_path: Path) -> None:
    frames = [np.full((40, 40), number, np.uint16) for number in range(5)]
    documents = recorded(frames, dtype="array")[:-1]
    documents[1][1]["data_keys"]["x"]["dtype_numpy"] = "<u2"
    root = tmp_path / "files"
    killed_in_mid_run(root, documents, tmp_path / "told.json")
    async with feeding(bus, writer_in(root), "nexus", lost_after=SOON):
        ready = await file_of(bus, documents[0][1]["uid"])
    assert_cut_short(ready.path, documents)
    assert LOST in ready.problems
    with h5py.File(ready.path) as file:
        assert file["entry/streams/primary/x"].shape == (5, 40, 40)
        assert "resumed" in file["entry/run"]
    texts = [alarm.text for _, alarm in await bus.newest(ALARMS, 10)]
    assert any("nexus has closed it with what it had of it" in text for text in texts)
    assert any(LOST in text for text in texts)
    left = [path.name for path in root.rglob(".*") if path.is_file()]
    assert left == [], "no part, nothing set aside, no note; and it is not in the index of complete files"
    assert list((root / ".open").iterdir()) == []


async def test_a_run_that_is_open_when_redis_is_lost_is_closed_in_every_sink(bus: Bus, tmp_path: Path) -> None:
    documents = recorded([1.0, 2.0, 3.0])[:-1]
    writer = writer_in(tmp_path)
    bundler = ScanBundler()
    async with feeding(bus, writer, "nexus", lost_after=SOON), feeding(bus, bundler, "bundler", lost_after=SOON):
        uid = await publish(bus, documents)
        await until(lambda: len(writer.open_runs) == len(bundler.open_runs) == 1)
        await lose(bus, uid)
        ready = await file_of(bus, uid)
        await until(lambda: not bundler.open_runs)
        good = await publish(bus, recorded([7.0]))
        await until(lambda: bus.fields(STORED, run=good))
    assert_cut_short(ready.path, documents)


async def test_documents_that_come_after_all_make_a_file_of_their_own(bus: Bus, tmp_path: Path) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    writer = writer_in(tmp_path)
    async with feeding(bus, writer, "nexus", lost_after=SOON):
        uid = await publish(bus, documents[:-2])
        await until(lambda: writer.open_runs)
        await lose(bus, uid)
        first = await file_of(bus, uid)
        before = content(first.path)
        await publish(bus, documents)  # its worker had kept them
        await until(lambda: bus.fields(STORED, run=uid), 20.0)
        files = await files_ready(bus)
    assert content(first.path) == before, "nothing is overwritten"
    assert [message.run_uid for message in files] == [uid, uid]
    assert list(read_documents(files[1].path)) == documents
    assert writer.holds(uid)


async def test_a_part_file_of_an_announced_run_is_completed_by_the_next_start(bus: Bus, tmp_path: Path) -> None:
    documents = recorded([1.0, 2.0])[:-1]
    uid = documents[0][1]["uid"]
    killed_in_mid_run(tmp_path / "files", documents, tmp_path / "told.json")
    await bus.append(RUNS, RunOpened(run_uid=uid, scan_id=1, time=1.0))
    async with feeding(bus, writer_in(tmp_path / "files"), "nexus", lost_after=SOON):
        ready = await file_of(bus, uid)
    assert_cut_short(ready.path, documents)


async def test_a_run_of_which_nothing_is_left_is_forgotten(bus: Bus, tmp_path: Path) -> None:
    async def is_past_all() -> bool:
        cursor = await bus.field(CURSORS, "nexus")
        return cursor is not None and cursor.decode() == await bus.last_id(RUNS)

    async with feeding(bus, writer_in(tmp_path), "nexus", lost_after=SOON):
        await bus.append(RUNS, RunOpened(run_uid="ghost", scan_id=1, time=1.0))
        uid = await publish(bus, recorded([1.0]))
        await until(lambda: bus.fields(STORED, run=uid))
        await until(is_past_all)
    assert not await bus.newest(ALARMS)


def looks_at(writer: NexusWriter) -> list[float]:
    """Give a list that grows with each look for runs whose documents are lost."""
    looks: list[float] = []
    unfinished = writer.unfinished

    def noted() -> list[str]:
        looks.append(time.monotonic())
        return unfinished()

    writer.unfinished = noted
    return looks


async def test_time_without_an_answer_of_redis_does_not_make_a_run_lost(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server = embedded.find_or_start(settings, with_parent=True)
    assert server.pid is not None
    writer = writer_in(tmp_path / "files")
    looks = looks_at(writer)
    documents = recorded([1.0, 2.0])
    try:
        # looks are a second apart, and Redis is away for longer than the five after which a run is lost
        async with (
            Bus(server.url, settings.beamline) as bus,
            feeding(bus, writer, "nexus", lost_after=5.0),
        ):
            uid = await publish(bus, documents[:-1])
            await until(lambda: writer.open_runs)
            await lose(bus, uid)
            seen = len(looks)
            await until(lambda: len(looks) > seen + 1)
            os.kill(server.pid, signal.SIGSTOP)
            gone = time.monotonic()
            await until(lambda: time.monotonic() > gone + 6.0)
            os.kill(server.pid, signal.SIGCONT)
            seen = len(looks)
            await until(lambda: len(looks) > seen + 1)
            assert list(writer.open_runs) == [uid]
            await publish(bus, documents)
            ready = await file_of(bus, uid)
    finally:
        embedded.stop(settings)
    assert list(read_documents(ready.path)) == documents


async def test_a_slow_run_is_not_closed(bus: Bus, tmp_path: Path) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    writer = writer_in(tmp_path)
    async with feeding(bus, writer, "nexus", lost_after=SOON):
        uid = await publish(bus, documents[:-1])
        looks = looks_at(writer)
        await until(lambda: len(looks) > 10)  # each a fifth of the time after which a lost run is closed
        assert list(writer.open_runs) == [uid]
        await publish(bus, documents[-1:], first=len(documents))
        ready = await file_of(bus, uid)
    assert list(read_documents(ready.path)) == documents


@pytest.mark.parametrize("owner", ["there:nexus", ""])
async def test_what_others_write_is_not_closed(bus: Bus, tmp_path: Path, owner: str) -> None:
    root = tmp_path / "files"
    part = killed_in_mid_run(root, recorded([1.0])[:-1], tmp_path / "told.json", owner)
    mine = killed_in_mid_run(tmp_path / "mine", recorded([2.0])[:-1], tmp_path / "told.json")
    before = part.read_bytes()
    other, own = writer_in(root), writer_in(tmp_path / "mine")
    async with feeding(bus, other, "nexus", lost_after=SOON), feeding(bus, own, "mine", lost_after=SOON):
        await until(lambda: not mine.exists(), 20.0)
    assert part.read_bytes() == before


async def test_what_cannot_be_read_stays_and_is_told_once(bus: Bus, tmp_path: Path) -> None:
    part = killed_in_mid_run(tmp_path / "files", recorded([1.0])[:-1], tmp_path / "told.json")
    part.write_bytes(b"no HDF5")
    mine = killed_in_mid_run(tmp_path / "mine", recorded([2.0])[:-1], tmp_path / "told.json")
    async with feeding(bus, writer_in(tmp_path / "files"), "nexus", lost_after=SOON):
        await until(lambda: bus.newest(ALARMS), 20.0)
        async with feeding(bus, writer_in(tmp_path / "mine"), "mine", lost_after=SOON):
            await until(lambda: not mine.exists(), 20.0)
    texts = [alarm.text for _, alarm in await bus.newest(ALARMS, 10)]
    assert len([text for text in texts if f"{part} cannot be read" in text and "it stays" in text]) == 1
    assert part.read_bytes() == b"no HDF5"


async def test_what_is_only_in_the_columns_of_a_torn_part_is_kept(bus: Bus, tmp_path: Path) -> None:
    documents = recorded([1.0, 2.0, 3.0])[:-1]
    root = tmp_path / "files"
    part = killed_in_mid_run(root, documents, tmp_path / "told.json")
    with h5py.File(part, "r+") as file:
        file["entry/documents/json"].resize(len(documents) - 1, axis=0)
    async with feeding(bus, writer_in(root), "nexus", lost_after=SOON):
        ready = await file_of(bus, documents[0][1]["uid"])
    assert_cut_short(ready.path, documents[:-1])
    (kept,) = root.rglob("*_as_it_was.nxs")
    assert any(kept.name in problem for problem in ready.problems)
    with h5py.File(kept) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 2.0, 3.0]


def test_a_system_has_one_lasting_name(settings: Settings) -> None:
    assert system_id(settings) == system_id(settings)
    assert system_id(settings) != system_id(settings.with_(beamline="another"))


def test_threads_that_start_together_give_a_system_one_name(settings: Settings) -> None:
    file = settings.data_dir / "system.id"
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(100):
        file.write_text("")  # as a killed process leaves it
        barrier = threading.Barrier(4)

        def name(barrier: threading.Barrier = barrier) -> str:
            barrier.wait(10.0)
            return system_id(settings)

        with ThreadPoolExecutor(4) as threads:
            (found,) = {each.result() for each in [threads.submit(name) for _ in range(4)]}
        assert found.removeprefix(f"{settings.beamline}:") == file.read_text() != ""
