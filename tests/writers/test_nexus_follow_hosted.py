"""Reading a run while it grows, where a document service writes it and is killed in the middle."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DOCUMENTS, FILES, RUNS
from bec_bluesky.client import Client
from bec_bluesky.documents import FileGrowing, FileReady
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages import pack
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.settings import Settings
from tests.writers.nexus_harness import Documents, recorded
from writers.nexus import read_documents

PROFILE = """
title = "test"
[[hosted]]
name = "nexus"
use = "writers.nexus:NexusWriter"
process = "files"
options = { directory = "{files_dir}" }
"""


@pytest.fixture
def beamline(settings: Settings, tmp_path: Path) -> Settings:
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "profile.toml").write_text(PROFILE)
    return settings.with_(profile=profile)


@contextmanager
def document_service(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bec_bluesky.documents", "--process", "files"]
    process = subprocess.Popen(command, env=os.environ | settings.environment())
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def publish(bus: Bus, documents: Documents, first: int) -> None:
    uid = documents[0][1]["uid"]
    for number, (name, doc) in enumerate(documents[first:], first + 1):
        await bus.redis.xadd(bus.key(DOCUMENTS, run=uid), {"n": name, "d": pack(doc)}, id=f"{number}-0")


async def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


def growing_file(client: Client, uid: str) -> str:
    try:
        return client.growing_file(uid)
    except RefusedError:  # not yet
        return ""


def rows(path: Path) -> int:
    """Count the rows that somebody who opens the file now sees."""
    try:
        with h5py.File(path, "r", swmr=True) as file:
            return len(file["entry/streams/primary/seq_num"])
    except (FileNotFoundError, KeyError):  # not yet
        return 0


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_run_is_read_while_it_grows_also_after_a_kill_of_its_service(bus: Bus, beamline: Settings) -> None:
    documents = recorded([float(number) for number in range(300)])
    uid = documents[0][1]["uid"]
    await bus.append(RUNS, RunOpened(run_uid=uid, scan_id=1, time=1.0))
    with Client(beamline) as client, document_service(beamline) as service:
        await publish(bus, documents[:102], 0)
        await until(lambda: growing_file(client, uid))
        path = Path(growing_file(client, uid))
        await until(lambda: rows(path) == 100)
        with h5py.File(path, "r", swmr=True) as early:
            column = early["entry/streams/primary/x"]
            service.send_signal(signal.SIGKILL)
            assert await asyncio.to_thread(service.wait, 30) == -signal.SIGKILL
            assert rows(path) == 100
            with document_service(beamline):
                await publish(bus, documents[:202], 102)
                await until(lambda: rows(path) == 200)
                column.refresh()
                assert column[()].tolist() == list(range(100)), "who had it open keeps what was there"
                assert growing_file(client, uid) == str(path)
                await publish(bus, documents, 202)
                await bus.append(RUNS, RunClosed(run_uid=uid, time=2.0, exit_status="success", documents=303))
                await until(lambda: client.files(uid))
        (ready,) = client.files(uid)
        with pytest.raises(RefusedError, match="no file of run"):
            client.growing_file(uid)
    assert names_in(path.parent) == [Path(ready.path).name]
    assert [doc for _, doc in read_documents(ready.path)] == [doc for _, doc in documents]
    kinds = [type(message) for _, message in await bus.read(FILES)]
    assert kinds == [FileGrowing, FileGrowing, FileReady]
