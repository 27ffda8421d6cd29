"""The history on a real Redis: paged, and searched by its index and without it, with the same answers."""

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS_DONE
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages import encode
from bec_bluesky.messages.queue import ExitStatus, GetHistory, ItemDone, ItemResult, QueueItem
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._history_index import HistoryIndex
from bec_bluesky.settings import Settings


def done(name: str, status: ExitStatus = "completed", reason: str = "", **facts: Any) -> QueueItem:
    scan_id = facts.pop("scan_id", 1)
    result = ItemResult(exit_status=status, reason=reason, run_uids=[f"run-of-{name}"], scan_ids=[scan_id])
    return QueueItem(**{"item_id": name, "plan": "count", "state": "done", "result": result} | facts)


async def fill(bus: Bus, *items: QueueItem) -> None:
    for first in range(0, len(items), 1000):
        await bus.append_all(ITEMS_DONE, [ItemDone(item=item) for item in items[first : first + 1000]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.sqlite"


@pytest.fixture
def indexed(bus: Bus, file: Path) -> Iterator[HistoryReader]:
    reader = HistoryReader(bus, file)
    yield reader
    reader.close()


@pytest.fixture(params=["by its index", "by looking through it"])
def history(request: pytest.FixtureRequest, indexed: HistoryReader, bus: Bus) -> HistoryReader:
    return indexed if request.param == "by its index" else HistoryReader(bus, None)


async def found(history: HistoryReader, **asked: Any) -> list[str]:
    return [item.item_id for item in (await history.page(GetHistory(**asked))).items]


async def all_pages(history: HistoryReader, limit: int, **asked: Any) -> list[str]:
    seen: list[str] = []
    page = await history.page(GetHistory(limit=limit, **asked))
    while True:
        seen += [item.item_id for item in page.items]
        if page.next is None:
            return seen
        page = await history.page(GetHistory(limit=limit, before=page.next, **asked))


async def test_the_history_is_paged_newest_first_to_its_end(bus: Bus, history: HistoryReader) -> None:
    await fill(bus, *(done(f"i{number}") for number in range(7)))
    assert await all_pages(history, 3) == [f"i{number}" for number in reversed(range(7))]
    assert (await history.page(GetHistory(limit=3))).total == 7


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"before": "yesterday"}, "bad_cursor"),
        ({"limit": 0}, "bad_limit"),
        ({"status": "complete"}, "bad_status"),
        ({"scan_id": 2**63}, "bad_scan_id"),
    ],
)
async def test_what_no_history_has_is_refused(history: HistoryReader, asked: Any, code: str) -> None:
    with pytest.raises(RefusedError) as refused:
        await history.page(GetHistory(**asked))
    assert refused.value.code == code


async def test_the_history_is_searched_by_what_items_are_and_how_they_ended(bus: Bus, history: HistoryReader) -> None:
    await fill(
        bus,
        done("a", user="anna", sample="CuO", scan_id=11, args=[["det"], "samx", 1]),
        done("b", user="bert", sample="CuO", title="Edge", scan_id=12, queue="align"),
        done("c", "failed", "motor samy: limit", user="anna", scan_id=13, note='say "100 %" or ß'),
    )
    assert await found(history) == ["c", "b", "a"]
    assert await found(history, user="anna") == ["c", "a"]
    assert await found(history, user="anna", sample="CuO") == ["a"]
    assert await found(history, status="failed") == ["c"]
    assert await found(history, queue="align") == ["b"]
    assert await found(history, queue="main") == ["c", "a"]
    assert await found(history, plan="scan") == []
    assert await found(history, scan_id=12) == ["b"]
    assert await found(history, run_uid="run-of-c") == ["c"]
    assert await found(history, item_id="b") == ["b"]
    first = await history.page(GetHistory(user="anna", limit=1))
    assert first.next is not None
    assert await found(history, user="anna", before=first.next) == ["a"]


@pytest.mark.parametrize(
    ("text", "item_ids"),
    [
        ("EDGE", ["b"]),
        ("dg", ["b"]),
        ("edge scan of", ["b"]),
        ("of edge", ["b"]),
        ("edge samx", []),
        ("samx", ["a"]),
        ("samx cuo", ["a"]),
        ("LIMIT", ["c"]),
        ('"100', ["c"]),
        ("%", ["c"]),
        ("SS", ["c"]),
        ("cuo", ["b", "a"]),
        ("   ", ["c", "b", "a"]),
        ("ali\0gn", []),
        ("text:edge", []),
        ("edge OR samx", []),
    ],
)
async def test_all_words_are_found_whatever_their_case(
    bus: Bus, history: HistoryReader, text: str, item_ids: list[str]
) -> None:
    await fill(
        bus,
        done("a", user="anna", sample="CuO", args=[["det"], "samx", 1]),
        done("b", user="bert", sample="CuO", title="Scan of the Edge"),
        done("c", "failed", "limit", user="carl", note='say "100 %" or ß'),
    )
    assert await found(history, text=text) == item_ids


async def test_the_history_is_searched_between_times(bus: Bus, history: HistoryReader) -> None:
    for number in range(6):
        entry: Any = {"m": encode(ItemDone(item=done(f"i{number}")))}
        await bus.redis.xadd(bus.key(ITEMS_DONE), entry, id=f"{1_790_000_000_000 + number * 1000}-3")
    assert await found(history, since=1_790_000_003, plan="count") == ["i5", "i4", "i3"]
    assert await found(history, until=1_790_000_001, plan="count") == ["i1", "i0"]
    assert await found(history, since=1_790_000_001, until=1_790_000_003.5) == ["i3", "i2", "i1"]
    assert await found(history, since=9e10, plan="count") == []
    assert len(await found(history, until=9e10, plan="count")) == 6
    with pytest.raises(ValueError, match="since"):
        await found(history, since=float("inf"))


async def test_the_index_finds_what_looking_through_the_history_finds(bus: Bus, indexed: HistoryReader) -> None:
    chance = random.Random(4)
    words = ["edge", "Edge scan", "XANES", "ab", "a", "samx", "Øre", "50 %", "'; --", '"', "*", "sam"]
    users, plans, samples = ["anna", "bert", ""], ["count", "scan", "grid_scan"], ["CuO", "FeO", ""]
    statuses: list[ExitStatus] = ["completed", "failed", "aborted"]
    items = [
        done(
            f"{chance.getrandbits(40):010x}",
            chance.choice(statuses),
            plan=chance.choice(plans),
            user=chance.choice(users),
            sample=chance.choice(samples),
            title=" ".join(chance.choices(words, k=3)),
            args=chance.choices(words, k=2),
            scan_id=chance.randrange(50),
            queue=chance.choice(["", "align"]),
        )
        for _ in range(1500)
    ]
    await fill(bus, *items)
    looking = HistoryReader(bus, None)
    for _ in range(60):
        asked: dict[str, Any] = {
            "text": " ".join(chance.choices(words, k=chance.randrange(3))),
            "user": chance.choice([*users, ""]),
            "plan": chance.choice([*plans, "", ""]),
            "sample": chance.choice([*samples, "", ""]),
            "status": chance.choice([*statuses, "", ""]),
            "queue": chance.choice(["main", "align", ""]),
            "scan_id": chance.choice([None, None, None, chance.randrange(50)]),
        }
        assert await all_pages(indexed, 100, **asked) == await all_pages(looking, 1000, **asked), asked


async def test_pages_stay_where_they_are_while_new_items_come(bus: Bus, history: HistoryReader) -> None:
    await fill(bus, *(done(f"i{number}", user="anna") for number in range(6)))
    page = await history.page(GetHistory(limit=3, user="anna"))
    await fill(bus, done("new", user="anna"))
    assert await found(history, limit=3, user="anna", before=page.next) == ["i2", "i1", "i0"]
    assert await found(history, limit=1, user="anna") == ["new"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: b"no database " * 1000,
        lambda whole: whole[:4096] + b"\xff" * (len(whole) - 4096),
        lambda whole: b"",
    ],
    ids=["no database", "overwritten", "empty"],
)
def test_an_index_that_is_spoiled_is_made_anew(settings: Settings, file: Path, spoil: Callable[[bytes], bytes]) -> None:
    items = [done(f"i{number}", user="anna" if number == 7 else "bert") for number in range(600)]

    async def search(*new: QueueItem) -> list[str]:
        async with Bus(settings.redis_url or "", settings.beamline) as bus:
            await fill(bus, *new)
            reader = HistoryReader(bus, file)
            try:
                return await found(reader, user="anna") + await found(reader, user="anna", text="count")
            finally:
                reader.close()

    assert asyncio.run(search(*items)) == ["i7", "i7"]
    file.write_bytes(spoil(file.read_bytes()))
    assert asyncio.run(search()) == ["i7", "i7"]
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM items").fetchone() == (600,)


async def test_the_index_of_another_history_is_made_anew(bus: Bus, indexed: HistoryReader) -> None:
    await fill(bus, done("a", user="anna"), done("b", user="bert"))
    assert await found(indexed, user="anna") == ["a"]
    await bus.redis.delete(bus.key(ITEMS_DONE))
    assert await found(indexed, user="anna") == []
    await fill(bus, done("c", user="anna"))
    assert await found(indexed, user="anna") == ["c"]
    assert await found(indexed, user="bert") == []


async def test_two_readers_of_one_file_add_each_entry_once(bus: Bus, file: Path, indexed: HistoryReader) -> None:
    other = HistoryReader(bus, file)
    for number in range(4):
        await fill(bus, done(f"i{number}", user="anna"))
        for reader in (indexed, other) if number % 2 else (other, indexed):
            assert (await found(reader, user="anna", text="anna"))[0] == f"i{number}"
    assert await found(other, text="anna") == ["i3", "i2", "i1", "i0"]
    other.close()


def test_a_file_is_not_closed_under_a_call_of_another_thread(tmp_path: Path) -> None:
    for number in range(40):  # a connection closed in the midst of a call ends the process
        index = HistoryIndex(tmp_path / f"{number}.sqlite")
        caller = threading.Thread(target=index.last)
        caller.start()
        time.sleep(number * 2e-4)
        index.close()
        caller.join()
        index.close()


async def test_without_a_place_for_the_index_the_history_is_looked_through(bus: Bus) -> None:
    await fill(bus, done("a", user="anna"), done("b", user="bert"))
    for nowhere in (Path(__file__).parent, Path(__file__) / "below it"):  # a directory; below a file
        assert await found(HistoryReader(bus, nowhere), user="anna") == ["a"]


async def test_a_record_that_cannot_be_read_is_left_out(bus: Bus, history: HistoryReader) -> None:
    await fill(bus, done("a", user="anna"))
    await bus.redis.xadd(bus.key(ITEMS_DONE), {"m": b"\xc1 not ours"})
    await fill(bus, done("b", user="anna"))
    assert await found(history) == ["b", "a"]
    assert await found(history, user="anna") == ["b", "a"]


async def test_pages_and_searches_take_no_longer_in_a_long_history(bus: Bus, indexed: HistoryReader) -> None:
    async def quickest(**asked: Any) -> float:
        times: list[float] = []
        for _ in range(10):
            begin = time.perf_counter()
            await indexed.page(GetHistory(**asked))
            times.append(time.perf_counter() - begin)
        return min(times)

    searches: list[dict[str, Any]] = [{}, {"text": "needle"}, {"user": "zoe"}, {"text": "needle", "plan": "count"}]
    await fill(bus, done("first", user="zoe", title="needle"), *(done(f"i{number}") for number in range(100)))
    short = [await quickest(**asked) for asked in searches]
    await fill(bus, *(done(f"i{number}", title=f"title {number}") for number in range(20_000)))
    await indexed.page(GetHistory(user="zoe"))
    long = [await quickest(**asked) for asked in searches]
    assert [took < 5 * before + 0.005 for took, before in zip(long, short, strict=True)] == [True] * 4
