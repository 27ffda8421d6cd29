"""Random kills of scan server and worker, and a Redis that does not answer: no item is lost, none runs twice."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.errors import BusError, NoReplyError, RefusedError
from bec_bluesky.messages.queue import (
    AddItem,
    GetHistory,
    GetQueue,
    ItemAccepted,
    Queue,
    ReleaseItem,
    RemoveItem,
    StartQueue,
)
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._store import QueueStore
from bec_bluesky.settings import Settings
from tests.patience import PATIENCE
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, process, serving

QUEUES = ("", "align")


def child_of(pid: int) -> int | None:
    """Give a worker of a scan server's process."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return None
    return children[0] if children else None


async def submit(client: Client, asked: list[str], accepted: list[str]) -> None:
    """Add items until cancelled; what was accepted must never be lost."""
    for number in range(10_000):
        title = f"t{number}"
        asked.append(title)
        with contextlib.suppress(NoReplyError, RefusedError):
            item = AddItem(plan="brief", title=title, kwargs={"note": ("x", "y", "both")[number % 3]})
            await client.ask(item, timeout=1.0, queue=QUEUES[number % 2])
            accepted.append(title)
        await asyncio.sleep(0.005)


async def keep_going(client: Client, removed: list[str], unsure: set[str]) -> None:
    """Start the queues whenever they have stopped; take out what is held: `unsure` if the answer was lost."""
    while True:
        for queue in QUEUES:
            with contextlib.suppress(NoReplyError, RefusedError):
                await client.ask(StartQueue(), timeout=1.0, queue=queue)
            with contextlib.suppress(NoReplyError, RefusedError):
                found: Queue = await client.ask(GetQueue(), timeout=1.0, queue=queue)
                for item in found.waiting:
                    if item.state == "held":
                        unsure.add(item.title)
                        removed.append((await client.ask(RemoveItem(item_id=item.item_id), timeout=1.0)).title)
                        unsure.discard(item.title)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
async def test_random_kills_lose_no_item_and_run_none_twice(
    settings: Settings, client: Client, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    log = tmp_path / "ran"
    log.touch()
    monkeypatch.setenv("SCRIPTED_WORKER_LOG", str(log))
    chance = random.Random(seed)
    asked: list[str] = []
    accepted: list[str] = []
    removed: list[str] = []
    unsure: set[str] = set()
    people = [
        asyncio.create_task(submit(client, asked, accepted)),
        asyncio.create_task(keep_going(client, removed, unsure)),
    ]
    for rounds in range(1, 5):
        async with process(settings, queues=("align",)) as scan_server:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(chance.uniform(0.3, 0.8))
                victim = child_of(scan_server.pid)
                if victim is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(chance.uniform(0.4, 1.0))
            async with asyncio.timeout(PATIENCE):
                while len(accepted) <= 13 * rounds:
                    await asyncio.sleep(0.05)
    for person in people:
        person.cancel()
    await asyncio.gather(*people, return_exceptions=True)
    store = QueueStore(bus, 0)
    loaded = await store.load(["align"])
    places: Counter[str] = Counter()
    for state in loaded.states.values():
        places.update(item.title for item in (*state.waiting, state.running) if item is not None)
    history = HistoryReader(bus, None)
    before = None
    while True:
        page = await history.page(GetHistory(limit=1000, before=before))
        places.update(item.title for item in page.items)
        before = page.next
        if before is None:
            break
    places.update(removed)
    assert loaded.problems == []
    assert set(accepted) <= set(places) | unsure, "an accepted item is lost"
    assert set(places) <= set(asked)
    assert [title for title, count in places.items() if count > 1] == []
    ran = Counter(log.read_text().split())
    assert ran, "the test did something"
    assert [item for item, count in ran.items() if count > 1] == []


async def test_a_redis_that_does_not_answer_for_a_while_is_waited_for(
    settings: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT)):
        for _ in range(200):
            await client.ask(AddItem(plan="brief"))
        await client.ask(StartQueue())
        await client.until_status(run_state="running")
        await bus.redis.client_pause(3500)  # longer than the bus waits for a reply
        with pytest.raises(BusError):
            await client.status()
        await client.until_ended(200)
        done = []
        before = None
        history = HistoryReader(bus, None)
        while True:
            page = await history.page(GetHistory(limit=100, before=before))
            done += [item.item_id for item in page.items]
            before = page.next
            if before is None:
                break
        assert len(done) == len(set(done)) == 200


async def test_a_held_item_runs_once_a_person_releases_it(settings: Settings, client: Client) -> None:
    async with process(settings) as first:
        accepted: ItemAccepted = await client.ask(AddItem(plan="wait", start=True))
        await client.until_status(scan_id=1)
        first.kill()
        await first.wait()
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        await client.ask(ReleaseItem(item_id=accepted.item.item_id))
        await client.ask(StartQueue())
        status = await client.until_status(scan_id=1)
        assert status.running is not None
        assert (status.running.item_id, status.running.held) == (accepted.item.item_id, "")
