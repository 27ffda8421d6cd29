"""kill -9 of the document service at random times: every sink holds every document once, every file is told."""

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_model import compose_run
from tiled.client import from_uri

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DOCUMENTS, FILES, POINTS, SERVICES, STORED
from bec_bluesky.documents import FileReady, find_catalog
from bec_bluesky.messages import encode, pack, unpack
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.scan_server.worker import _append, close_lost_run
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from callbacks.bundler import points
from tests.patience import PATIENCE
from tests.writers.nexus_harness import as_lists
from writers.nexus import read_documents

PROFILE = """
[[hosted]]
name = "bundler"
use = "callbacks.bundler:ScanBundler"
process = "sinks"
[[hosted]]
name = "nexus"
use = "writers.nexus:NexusWriter"
process = "sinks"
options = { directory = "{files_dir}" }
[[hosted]]
name = "nxsas"
use = "writers.nxsas:NXsasWriter"
process = "sinks"
options = { directory = "{files_dir}/nxsas", tree = {} }
[[hosted]]
name = "tiled"
use = "writers.tiled:TiledWriter"
process = "sinks"
"""
SINKS = {"bundler", "nexus", "nxsas", "tiled"}
Documents = list[tuple[str, dict[str, Any]]]
OPEN_AT_ONCE = 3
PERIOD = 0.008
"""Seconds between two documents."""


def composed(number: int, chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the documents of a run with baseline, monitor and images, in the order of a RunEngine; some are aborted."""
    bundle = compose_run(
        metadata={"scan_id": number, "plan_name": "torture", "hints": {"dimensions": [[["motor"], "primary"]]}}
    )
    yield "start", dict(bundle.start_doc)
    scalar: Any = {"dtype": "number", "shape": [], "source": "here"}
    image: Any = {"dtype": "array", "shape": [40, 40], "source": "here", "dtype_numpy": "<u2"}
    has_images = chance.random() < 0.3
    keys: Any = {"motor": scalar, "det": scalar} | ({"image": image} if has_images else {})
    streams = {
        "baseline": bundle.compose_descriptor(name="baseline", data_keys={"ring": scalar}),
        "ring_monitor": bundle.compose_descriptor(name="ring_monitor", data_keys={"ring": scalar}),
        "primary": bundle.compose_descriptor(name="primary", data_keys=keys),
    }
    moment = float(bundle.start_doc["time"])
    for stream in streams.values():
        yield "descriptor", dict(stream.descriptor_doc)
    names = ["baseline", *chance.choices(["primary", "ring_monitor"], k=chance.choice([3, 40, 400])), "baseline"]
    for row, name in enumerate(names):
        data: dict[str, Any] = {"ring": 200.0 - row}
        if name == "primary":
            data = {"motor": row / 7, "det": chance.random()}
            data |= {"image": np.full((40, 40), row, np.uint16)} if has_images else {}
        stamps = dict.fromkeys(data, moment + row)
        yield (
            "event",
            dict(streams[name].compose_event(data=data, timestamps=stamps, time=moment + row, validate=False)),
        )
    is_aborted = chance.random() < 0.3
    yield "stop", dict(bundle.compose_stop(exit_status="abort" if is_aborted else "success"))


class Beam:
    """Takes several runs at a time, as the scan server's workers do; the first never gets its stop document."""

    def __init__(self, bus: Bus, chance: random.Random) -> None:
        self._bus = bus
        self._chance = chance
        self._open: dict[str, Iterator[tuple[str, dict[str, Any]]]] = {}
        self._last: Counter[str] = Counter()
        self.lost = ""
        """The run without a stop document."""
        self.uids: list[str] = []
        self.is_over = asyncio.Event()

    async def shine(self) -> None:
        """Take documents at a rate until it is over; then complete what is open."""
        while self._open or not self.is_over.is_set():
            if len(self._open) < OPEN_AT_ONCE and not self.is_over.is_set():
                await self._begin()
            else:
                await self._next(self._chance.choice(list(self._open)))
            if not self.is_over.is_set():
                await asyncio.sleep(PERIOD)

    async def _begin(self) -> None:
        documents = composed(len(self.uids) + 1, self._chance)
        name, start = next(documents)
        uid = str(start["uid"])
        self.uids.append(uid)
        self.lost = self.lost or uid
        self._open[uid] = documents
        await self._write(uid, name, start)

    async def _next(self, uid: str) -> None:
        name, doc = next(self._open[uid])
        if name == "stop":
            del self._open[uid]
            if uid == self.lost:
                return
        await self._write(uid, name, doc)

    async def _write(self, uid: str, name: str, doc: dict[str, Any]) -> None:
        before, opened, closed = self._last[uid], b"", b""
        if name == "start":
            opened = encode(RunOpened(run_uid=uid, scan_id=doc["scan_id"], time=doc["time"]))
        elif name == "stop":
            status = doc["exit_status"]
            closed = encode(RunClosed(run_uid=uid, time=doc["time"], exit_status=status, documents=before + 1))
        arguments = _append.arguments(0, before, opened, closed, [(name, pack(doc))])
        outcome, _ = await self._bus.evaluate(_append.SCRIPT, _append.keys(self._bus.beamline, uid), arguments)
        assert outcome == _append.APPENDED
        self._last[uid] += 1


@contextlib.asynccontextmanager
async def document_service(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the real process; it is ended in order when the block ends, unless it was killed."""
    arguments = ("-m", "bec_bluesky.documents", "--process", "sinks")
    with (settings.data_dir / "sinks.out").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=os.environ | settings.environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until(what: str, is_so: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until something is true; give it."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await is_so()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        pytest.fail(f"in {PATIENCE:g} s: {what}")


async def kill_often(bus: Bus, settings: Settings, chance: random.Random, kills: int, within: float) -> set[str]:
    """Kill the service at random moments within so many seconds; give the runs whose files were begun, not complete."""
    cut: set[str] = set()
    for _ in range(kills):
        async with document_service(settings) as process:

            async def beats(pid: int = process.pid) -> bool:
                beat = await bus.get(SERVICES, service="documents-sinks")
                return beat is not None and beat.pid == pid

            await until("the service does not beat", beats)
            await asyncio.sleep(chance.uniform(0.0, within))
            process.kill()
            await process.wait()
        begun = {path.name.rsplit(".", 2)[1] for path in settings.files_dir.glob("[0-9]*/.*.*")}
        cut |= begun - {stored_uid(path) for path in settings.files_dir.glob("[0-9]*/*.nxs")}
    return cut


def stored_uid(path: Path) -> str:
    with h5py.File(path) as file:
        return str(file["entry/entry_identifier"].asstr()[()])  # pyright: ignore[reportAttributeAccessIssue]  # a dataset


async def documents_of(bus: Bus, uid: str) -> Documents:
    entries: Any = await bus.redis.xrange(bus.key(DOCUMENTS, run=uid))
    return [(fields[b"n"].decode(), unpack(fields[b"d"])) for _, fields in entries]


async def torment(settings: Settings, seed: int, kills: int, within: float) -> None:
    chance = random.Random(seed)
    async with Bus(settings.redis_url or "", settings.beamline) as bus:
        beam = Beam(bus, chance)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(beam.shine())
            cut = await kill_often(bus, settings, chance, kills, within)
            beam.is_over.set()
        async with document_service(settings):
            others = [uid for uid in beam.uids if uid != beam.lost]
            await until_stored(bus, others)
            assert not await bus.fields(STORED, run=beam.lost)
            assert await close_lost_run(bus, beam.lost, "its worker died", token=0)
            await until_stored(bus, [beam.lost])
        runs = {uid: await documents_of(bus, uid) for uid in beam.uids}
        announced = [each for _, each in await bus.read(FILES, count=100_000) if isinstance(each, FileReady)]
        for uid, documents in runs.items():
            assert documents[-1][0] == "stop"
            await judge_points(bus, uid, documents)
            judge_files(uid, documents, [ready for ready in announced if ready.run_uid == uid], cut)
        await asyncio.to_thread(judge_catalogue, settings, runs)
        assert not list(settings.files_dir.rglob(".*.part"))
        assert not list(settings.files_dir.rglob(".*.before"))
        texts = [alarm.text for _, alarm in await bus.newest(ALARMS, 1_000)]
        assert texts == []


async def until_stored(bus: Bus, uids: list[str]) -> None:
    async def are_stored() -> bool:
        return all([set(await bus.fields(STORED, run=uid)) == SINKS for uid in uids])

    await until("some sinks do not have every run", are_stored)


async def judge_points(bus: Bus, uid: str, documents: Documents) -> None:
    """Each point is there once, in order, and all are what the offline function makes of the documents."""
    live: Any = await bus.redis.xrange(bus.key(POINTS, run=uid))
    assert [stream_id for stream_id, _ in live] == [f"{number}-0".encode() for number in range(1, len(live) + 1)]
    assert [fields[b"m"] for _, fields in live] == [encode(point) for point in points(documents)]


def judge_files(uid: str, documents: Documents, announced: list[FileReady], cut: set[str]) -> None:
    """The files open without tools, hold every document once, say whether they were resumed, and are announced."""
    assert {ready.writer for ready in announced} == {"nexus", "nxsas", "tiled"}
    (path,) = {ready.path for ready in announced if ready.writer == "nexus"}
    (scattering,) = {ready.path for ready in announced if ready.writer == "nxsas"}
    assert as_lists(list(read_documents(path))) == as_lists(documents)
    numbers = numbers_of(documents)
    with h5py.File(path) as file, h5py.File(scattering) as other:
        for stream, expected in numbers.items():
            assert file[f"entry/streams/{stream}/seq_num"][()].tolist() == expected
            assert other[f"bluesky/events/{stream}/seq_num"][()].tolist() == expected
        assert ("resumed" in file["entry/run"]) == (uid in cut)
        assert file["entry/run/exit_status"].asstr()[()] == documents[-1][1]["exit_status"]
        assert file["entry/run/reason"].asstr()[()] == documents[-1][1].get("reason", "")


def judge_catalogue(settings: Settings, runs: dict[str, Documents]) -> None:
    """The catalogue has every row once, and the stop document."""
    address = find_catalog(settings)
    assert address is not None
    catalog = from_uri(address.uri, api_key=address.api_key)
    try:
        for uid, documents in runs.items():
            stored: Any = catalog[uid]
            assert stored.metadata["stop"]["uid"] == documents[-1][1]["uid"]
            for stream, expected in numbers_of(documents).items():
                assert stored[stream]["seq_num"].read().tolist() == expected
    finally:
        catalog.context.http_client.close()


def numbers_of(documents: Documents) -> dict[str, list[int]]:
    """Give the numbers of the events of each stream that has some, in the order they came."""
    names = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    numbers: dict[str, list[int]] = {}
    for name, doc in documents:
        if name == "event":
            numbers.setdefault(names[doc["descriptor"]], []).append(doc["seq_num"])
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    return numbers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 21))])
async def test_kills_cost_no_sink_a_document_and_double_none(settings: Settings, tmp_path: Path, seed: int) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "profile.toml").write_text(PROFILE)
    settings = settings.with_(profile=profile, api_port=0)
    with running_api(settings):
        await torment(settings, seed, kills=2 if seed == 1 else 6, within=2.0 if seed == 1 else 4.0)
