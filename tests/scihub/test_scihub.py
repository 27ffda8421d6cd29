"""The run log and its outbox: everything that happens to runs arrives, once, in order, also when the place is down."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import FILES, RUNS
from bec_bluesky.messages.products import FileGrowing, FileReady, RunClosed, RunOpened
from bec_bluesky.scihub import Entry, LogbookFile, SciHub
from bec_bluesky.settings import Settings


class Moody:
    """A place that refuses its first deliveries."""

    name = "moody"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.got: list[str] = []

    def deliver(self, entry: Entry) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("closed for lunch")
        self.got.append(entry.key)


@contextlib.asynccontextmanager
async def running(service: SciHub) -> AsyncIterator[SciHub]:
    task = asyncio.create_task(service.run())
    try:
        yield service
    finally:
        service.stop()
        await task


async def until(condition: Callable[[], object], timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def one_run(bus: Bus, uid: str) -> None:
    await bus.append(RUNS, RunOpened(run_uid=uid, scan_id=3, time=1.0, plan_name="scan", user="ann"))
    await bus.append(FILES, FileGrowing(run_uid=uid, scan_id=3, writer="nexus", path="/f.follow.h5", time=1.5))
    await bus.append(RUNS, RunClosed(run_uid=uid, time=2.0, exit_status="success", documents=5))
    file = FileReady(run_uid=uid, scan_id=3, writer="nexus", path="/f.nxs", size=1, time=2.0)
    moved = msgspec.structs.replace(file, path="/archive/f.nxs", moved_from="/f.nxs")
    for message in (file, file, moved):  # one may be told twice after a kill
        await bus.append(FILES, message)


async def test_a_run_and_its_file_are_in_the_log_and_in_the_logbook_once(settings: Settings, bus: Bus) -> None:
    logbook = settings.data_dir / "logbook.jsonl"

    def keys() -> list[str]:
        return [json.loads(line)["key"] for line in logbook.read_text().splitlines()] if logbook.exists() else []

    async with running(SciHub(settings)):
        await one_run(bus, "a")
        await until(lambda: len(keys()) == 3)
    async with running(SciHub(settings)):
        await one_run(bus, "b")
        await until(lambda: len(keys()) == 6)
    files = ["closed", "nexus:/archive/f.nxs", "nexus:/f.nxs"]
    assert sorted(keys()) == [f"{uid}:{file}" for uid in "ab" for file in files]
    with contextlib.closing(sqlite3.connect(settings.data_dir / "scihub.sqlite")) as log:
        rows = log.execute("SELECT uid, scan_id, plan, user, exit_status FROM runs ORDER BY uid").fetchall()
    assert rows == [("a", 3, "scan", "ann", "success"), ("b", 3, "scan", "ann", "success")]


async def test_what_a_place_refuses_is_delivered_later_in_order(settings: Settings, bus: Bus) -> None:
    place = Moody(refusals=2)
    async with running(SciHub(settings, [place])) as service:
        await bus.append(RUNS, RunClosed(run_uid="a", time=2.0, exit_status="fail", documents=1))
        await until(lambda: "closed for lunch" in service.note)
        await bus.append(RUNS, RunClosed(run_uid="b", time=3.0, exit_status="success", documents=1))
        await until(lambda: len(place.got) == 2)
    assert place.got == ["a:closed", "b:closed"]


def test_a_torn_line_is_cut_off_before_the_entry_is_written_again(tmp_path: Path) -> None:
    logbook = LogbookFile(tmp_path / "logbook.jsonl")
    first, second = Entry("a:closed", "run_closed", "a", {}), Entry("b:closed", "run_closed", "b", {})
    logbook.deliver(first)
    with (tmp_path / "logbook.jsonl").open("a") as file:
        file.write(second.to_json()[:10])
    logbook.deliver(second)
    logbook.deliver(second)
    assert (tmp_path / "logbook.jsonl").read_text().splitlines() == [first.to_json(), second.to_json()]
