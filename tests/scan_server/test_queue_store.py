"""The queue on a real Redis: atomic, durable, and owned by one scan server at a time."""

import asyncio
import time
from collections.abc import Callable

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS, ORDER, QUEUE, REQUESTS, SCAN_STATUS
from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.messages.queue import GetHistory, ItemResult, QueueItem, ScanServerStatus
from bec_bluesky.scan_server import _queue_events as q
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._ownership import Ownership
from bec_bluesky.scan_server._queue import QueueState, step
from bec_bluesky.scan_server._store import QueueStore


def item(name: str, **facts: object) -> QueueItem:
    return QueueItem(item_id=name, plan="count", **facts)  # pyright: ignore[reportArgumentType]


@pytest.fixture
async def store(bus: Bus) -> QueueStore:
    return QueueStore(bus, await Ownership(bus).take("at_once"))


async def stepped(store: QueueStore, state: QueueState, *events: q.Event) -> QueueState:
    """Carry out what of the commands concerns Redis."""
    for event in events:
        state, commands = step(state, event)
        for command in commands:
            if isinstance(command, q.Persist):
                await store.write(command.changes)
    return state


async def test_a_restart_finds_the_queue_as_it_was(store: QueueStore, bus: Bus) -> None:
    state = await stepped(
        store,
        QueueState(has_worker=True),
        q.Added(tuple(item(name, kwargs={"num": 3}) for name in "abc")),
        q.Added((item("front"),), q.Place(0)),
        q.Added((item("middle"),), q.Place(2)),
        q.Removed(("b",)),
        q.Started(),
    )
    successor = QueueStore(bus, await Ownership(bus).take("at_once"))
    loaded = (await successor.load()).states[""]
    assert [each.item_id for each in loaded.waiting] == ["a", "middle", "c"]
    assert (loaded.running, loaded.mode, loaded.revision) == (state.running, "running", state.revision)
    assert loaded.waiting == state.waiting


async def test_an_ended_item_moves_to_the_history_in_one_step(store: QueueStore, bus: Bus) -> None:
    result = ItemResult(exit_status="completed", run_uids=["u"], scan_ids=[4])
    await stepped(store, QueueState(has_worker=True), q.Added((item("a"),)), q.Started(), q.Ended("a", result))
    loaded = await store.load()
    assert (loaded.states[""].waiting, loaded.states[""].running, loaded.states[""].mode, loaded.history) == (
        (),
        None,
        "stopped",
        1,
    )
    page = await HistoryReader(bus, None).page(GetHistory(limit=10))
    assert [(each.item_id, each.state, each.result) for each in page.items] == [("a", "done", result)]
    assert await bus.redis.exists(bus.key(ITEMS), bus.key(ORDER)) == 0


async def test_an_earlier_scan_server_is_refused_whatever_it_writes(store: QueueStore, bus: Bus) -> None:
    state = await stepped(store, QueueState(), q.Added((item("a"),)))
    successor = QueueStore(bus, await Ownership(bus).take("at_once"))
    status = ScanServerStatus(time=time.time(), queue_state="stopped", run_state="idle", waiting=0)
    with pytest.raises(FencedError, match=r"another scan server took over the queue .its token is 2, this one's 1"):
        await stepped(store, state, q.Cleared())
    with pytest.raises(FencedError):
        await store.take_up("1-0")
    with pytest.raises(FencedError):
        await store.say(status)
    assert [each.item_id for each in (await successor.load()).states[""].waiting] == ["a"]
    assert await bus.get(SCAN_STATUS) is None


class LosesReplies(Bus):
    """A bus on which replies to scripts get lost after Redis carried them out."""

    losses = 0

    async def evaluate(self, script: str, keys: list[str], arguments: list[str | bytes | int]) -> object:
        reply = await super().evaluate(script, keys, arguments)
        if self.losses > 0:
            self.losses -= 1
            raise BusError("the reply was lost")
        return reply


async def test_a_write_whose_reply_is_lost_is_carried_out_once(settings: object, bus: Bus) -> None:
    async with LosesReplies(bus.address.url, bus.beamline) as lossy:
        store = QueueStore(lossy, await Ownership(bus).take("at_once"))
        lossy.losses = 3
        state = await stepped(store, QueueState(has_worker=True), q.Added((item("a"), item("b"))))
        lossy.losses = 2
        state = await stepped(store, state, q.Started())
        lossy.losses = 2
        await stepped(store, state, q.Ended("a", ItemResult(exit_status="completed")))
        loaded = await store.load()
    assert loaded.history == 1
    assert loaded.states[""].running == item("b", state="running")


async def test_a_full_redis_still_lets_items_be_taken_out(store: QueueStore, bus: Bus) -> None:
    state = await stepped(store, QueueState(), q.Added((item("a"), item("b"))))
    limit = (await bus.redis.config_get("maxmemory"))["maxmemory"]
    await bus.redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(BusError):
            await bus.put(SCAN_STATUS, ScanServerStatus(time=0.0, queue_state="stopped", run_state="idle", waiting=0))
        state = await stepped(store, state, q.Removed(("a",)))
    finally:
        await bus.redis.config_set("maxmemory", limit)
    assert (await store.load()).states[""].waiting == state.waiting


async def test_a_record_that_cannot_be_read_is_left_out_and_said(store: QueueStore, bus: Bus) -> None:
    await stepped(store, QueueState(), q.Added((item("a"), item("b"))))
    await bus.redis.hset(bus.key(ITEMS), "a", b"\xc1 not ours")  # pyright: ignore[reportGeneralTypeIssues]
    loaded = await store.load()
    assert [each.item_id for each in loaded.states[""].waiting] == ["b"]
    assert len(loaded.problems) == 1
    assert "queue item a cannot be read" in loaded.problems[0]


async def test_taken_up_requests_are_trimmed_and_unread_ones_never(store: QueueStore, bus: Bus) -> None:
    key = bus.key(REQUESTS)
    now = int(time.time() * 1000)
    for number in range(300):  # whole nodes of the stream are trimmed
        await bus.redis.xadd(key, {"m": b"old"}, id=f"{now - 2_000_000}-{number + 1}")
    await bus.redis.xadd(key, {"m": b"read"}, id=f"{now}-1")
    await bus.redis.xadd(key, {"m": b"unread"}, id=f"{now}-2")
    await store.take_up(f"{now}-1")
    assert await store.requests_read() == f"{now}-1"
    left = [fields[b"m"] for _, fields in await bus.redis.xrange(key)]
    assert left[-2:] == [b"read", b"unread"]
    assert len(left) < 150


async def test_two_owners_at_once_leave_one_consistent_queue(bus: Bus) -> None:
    async def add_until_fenced(prefix: str, is_enough: Callable[[int], bool]) -> int:
        store = QueueStore(bus, await Ownership(bus).take("at_once"))
        state = (await store.load()).states[""]
        count = 0
        while not is_enough(count):
            try:
                state = await stepped(store, state, q.Added((item(f"{prefix}{count}"),)))
            except FencedError:
                return count
            count += 1
        return count

    first = asyncio.create_task(add_until_fenced("first", lambda _: False))
    while not (await bus.redis.llen(bus.key(ORDER))) >= 20:  # pyright: ignore[reportGeneralTypeIssues]
        await asyncio.sleep(0.001)
    second = await add_until_fenced("second", lambda count: count == 20)
    accepted = await first
    loaded = await QueueStore(bus, 0).load()
    order = [each.item_id for each in loaded.states[""].waiting]
    assert order == [f"first{n}" for n in range(accepted)] + [f"second{n}" for n in range(second)]
    assert loaded.problems == []
    assert int(await bus.redis.hget(bus.key(QUEUE), "revision") or 0) == accepted + 20  # pyright: ignore[reportGeneralTypeIssues]
