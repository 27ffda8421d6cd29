"""Feeding a callback from documents on a real Redis: everything once, in order, also after a restart."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, CURSORS, DOCUMENTS, FILES, GIVEN_UP, POINTS, RESULTS, RUNS, STORED
from bec_bluesky.documents import Document, FileReady, Point, RunCallback, given_up_runs, leave_given_up
from bec_bluesky.messages import pack
from bec_bluesky.messages.products import AnalysisResult, RunClosed, RunOpened
from tests.documents.feed_harness import feeding, publish, run_documents, until


class Collector(RunCallback):
    """Keeps what it was given, emits a point an event, and fails when told to."""

    def __init__(self, *, emit: Any = None, fails_at: int | None = None) -> None:
        super().__init__(emit=emit)
        self.got: list[tuple[str, Document]] = []
        self.held: set[str] = set()
        self.fails_at = fails_at

    def open_run(self, start: Document) -> Callable[[str, Document], None]:
        def take(name: str, doc: Document) -> None:
            if name == "event" and doc["seq_num"] == self.fails_at:
                raise RuntimeError("told to fail")
            self.got.append((name, doc))
            if name == "event":
                self.emit(
                    Point(
                        run_uid=start["uid"],
                        scan_id=start["scan_id"],
                        stream="primary",
                        index=doc["seq_num"],
                        time=doc["time"],
                        data=dict(doc["data"]),
                    )
                )

        return take

    def holds(self, run_uid: str) -> bool:
        return run_uid in self.held

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.got]


async def test_every_document_arrives_once_in_order_and_points_are_numbered(bus: Bus) -> None:
    documents = run_documents(20)
    callback = Collector()
    async with feeding(bus, callback):
        uid = await publish(bus, documents)
        await until(lambda: bus.fields(STORED, run=uid))
    assert callback.names == [name for name, _ in documents]
    points = await bus.read(POINTS, run=uid)
    assert [(stream_id, point.index) for stream_id, point in points] == [(f"{n}-0", n) for n in range(1, 21)]
    assert 0 < await bus.redis.pttl(bus.key(DOCUMENTS, run=uid)) <= 3_600_000


async def test_documents_come_together_for_a_callback_that_has_a_pace_and_at_once_when_it_ends(bus: Bus) -> None:
    class Leisurely(Collector):
        pace = 3600.0

    documents = run_documents(20)
    callback, prompt = Leisurely(), Collector()
    async with feeding(bus, prompt, "prompt"):
        async with feeding(bus, callback):
            await publish(bus, documents[:1])
            await until(lambda: callback.got)
            await publish(bus, documents[1:], first=2)
            await until(lambda: len(prompt.got) == len(documents))
            assert callback.names == ["start"]
        assert callback.got == documents


async def test_a_restart_in_mid_run_feeds_it_again_and_points_stay_single(bus: Bus) -> None:
    documents = run_documents(10)
    first = Collector()
    async with feeding(bus, first):
        uid = await publish(bus, documents[:6])
        await until(lambda: len(first.got) == 6)
    second = Collector()
    async with feeding(bus, second):
        await publish(bus, documents[6:], first=7)
        await until(lambda: bus.fields(STORED, run=uid))
    assert second.names == [name for name, _ in documents]
    assert [point.index for _, point in await bus.read(POINTS, run=uid)] == list(range(1, 11))


async def test_a_run_that_the_sink_holds_is_not_fed_again(bus: Bus) -> None:
    callback = Collector()
    documents = run_documents(3)
    callback.held.add(documents[0][1]["uid"])
    async with feeding(bus, callback):
        uid = await publish(bus, documents)
        await until(lambda: bus.fields(STORED, run=uid))
    assert callback.got == []


class Announcing(Collector):
    """Holds runs, and says with which file."""

    asked = 0

    def announcements(self, run_uid: str) -> Iterable[FileReady]:
        self.asked += 1
        return [FileReady(run_uid=run_uid, scan_id=7, writer="announcing", path=f"/{run_uid}", size=1, time=1.0)]


async def test_a_run_whose_announcement_a_kill_kept_back_is_announced_once(bus: Bus) -> None:
    documents = run_documents(3)
    callback = Announcing()
    callback.held.add(documents[0][1]["uid"])
    async with feeding(bus, callback):
        uid = await publish(bus, documents)
        await until(lambda: bus.fields(STORED, run=uid))
    for stored in ({}, {"collector": True}):  # what a service finds that was killed later
        await bus.delete(STORED, run=uid)
        await bus.delete(CURSORS)
        await bus.put_fields(STORED, stored, run=uid)
        async with feeding(bus, callback):
            await until(lambda: bus.fields(STORED, run=uid))
            good = await publish(bus, run_documents(1))
            await until(lambda: bus.fields(STORED, run=good))  # noqa: B023  # awaited here
    assert [ready.path for _, ready in await bus.read(FILES)] == [f"/{uid}"]
    assert callback.asked == 2, "a run that was stored is not looked for again"


async def test_a_stored_run_is_not_fed_again_because_an_older_one_is_open(bus: Bus) -> None:
    await publish(bus, run_documents(2)[:-1])
    async with feeding(bus, Collector()):
        uid = await publish(bus, run_documents(2))
        await until(lambda: bus.fields(STORED, run=uid))
    again = Collector()
    async with feeding(bus, again):
        newer = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=newer))
    assert uid not in {doc["uid"] for name, doc in again.got if name == "start"}


async def test_a_closed_run_whose_documents_have_expired_is_not_waited_for(bus: Bus) -> None:
    await bus.append(RUNS, RunOpened(run_uid="gone", scan_id=1, time=1.0))
    await bus.append(RUNS, RunClosed(run_uid="gone", time=2.0, exit_status="success", documents=4))
    async with feeding(bus, Collector()):
        uid = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=uid))
    cursor = await bus.field(CURSORS, "collector")
    assert cursor is not None and cursor.decode() == (await bus.newest(RUNS))[0][0], "nothing holds it back"


async def test_a_callback_that_fails_loses_that_run_only_and_its_documents_are_kept(bus: Bus) -> None:
    callback = Collector(fails_at=2)
    async with feeding(bus, callback):
        bad = await publish(bus, run_documents(3))
        await until(lambda: bus.newest(ALARMS))
        good = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=good))
    assert not await bus.fields(STORED, run=bad)
    assert await bus.redis.pttl(bus.key(DOCUMENTS, run=bad)) == -1
    [(_, alarm)] = await bus.newest(ALARMS)
    assert alarm.run == bad and "told to fail" in alarm.text


async def test_runs_that_a_callback_gave_up_on_are_fed_again_by_its_next_start_one_after_the_other(bus: Bus) -> None:
    told: list[int] = []
    async with feeding(bus, Collector(fails_at=2), tell_given_up=told.append):
        uids = [await publish(bus, run_documents(3)) for _ in range(3)]
        await until(lambda: told[-1:] == [3])
    given_up = await bus.fields(GIVEN_UP, consumer="collector")
    assert given_up == dict.fromkeys(uids, b"RuntimeError: told to fail")
    await bus.redis.delete(bus.key(DOCUMENTS, run=uids[0]))
    callback = Collector()
    async with feeding(bus, callback, tell_given_up=told.append):
        new = await publish(bus, run_documents(1))
        await until(lambda: told[-1:] == [0])
        await until(lambda: bus.fields(STORED, run=new))
    assert told == [0, 1, 2, 3, 3, 2, 1, 0]
    starts = [doc["uid"] for name, doc in callback.got if name == "start"]
    assert sorted(starts) == sorted([*uids[1:], new]), "each once, and none whose documents are gone"
    first, second = (starts.index(uid) for uid in sorted(uids[1:]))
    assert first < second
    for uid in uids[1:]:
        assert await bus.fields(STORED, run=uid)
    assert await bus.fields(GIVEN_UP, consumer="collector") == {}


async def test_what_fails_again_is_given_up_again_and_what_nobody_requires_is_not(bus: Bus) -> None:
    told: list[int] = []
    for attempt in (1, 2):
        async with feeding(bus, Collector(fails_at=2), tell_given_up=told.append):
            if attempt == 1:
                await publish(bus, run_documents(3))
            await until(partial(_alarms, bus, attempt))
            await until(lambda: told[-1:] == [1])
    (left,) = await given_up_runs(bus)
    await leave_given_up(bus, left, {"collector", "another"})
    assert await given_up_runs(bus) == {}
    assert await bus.redis.ttl(bus.key(DOCUMENTS, run=left)) == -1, "another one may want them"
    told.clear()
    async with feeding(bus, Collector(), tell_given_up=told.append):
        await until(lambda: told)
    assert told == [0]
    optional = Collector(fails_at=1)
    async with feeding(bus, optional, "optional", required=frozenset()):
        await until(lambda: _alarms(bus, 3))
        await until(lambda: bus.field(CURSORS, "optional"))
    assert await bus.fields(GIVEN_UP, consumer="optional") == {}


async def test_a_run_that_was_stored_before_a_kill_is_not_given_up_any_more(bus: Bus) -> None:
    async with feeding(bus, Collector()):
        uid = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=uid))
    await bus.put_raw_field(GIVEN_UP, uid, "killed before it was taken out", consumer="collector")
    told: list[int] = []
    async with feeding(bus, Collector(), tell_given_up=told.append):
        await until(lambda: told[-1:] == [0])
    assert told == [1, 0]


async def test_a_run_that_is_fed_again_does_not_hold_the_cursor_at_what_is_no_id(bus: Bus) -> None:
    bad = await publish(bus, run_documents(1))

    class Slow(Collector):
        def is_stored(self, run_uid: str) -> bool:
            return run_uid != bad

    newest = (await bus.newest(RUNS))[0][0]
    await bus.put_raw_field(GIVEN_UP, bad, "killed before the cursor was stored", consumer="collector")
    await bus.delete(RUNS)
    slow = Slow()
    async with feeding(bus, slow):
        await until(lambda: "stop" in slow.names)
        good = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=good))
        await until(lambda: bus.field(CURSORS, "collector"))
    assert (await bus.field(CURSORS, "collector") or b"").decode() > newest
    async with feeding(bus, Collector()):
        newer = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=newer))
        await until(lambda: bus.fields(STORED, run=bad))


async def test_a_run_without_all_its_documents_is_alarmed_and_not_tried_again(bus: Bus) -> None:
    told: list[int] = []
    async with feeding(bus, Collector(), tell_given_up=told.append):
        uid = await publish(bus, run_documents(3)[:2])
        await bus.redis.xadd(bus.key(DOCUMENTS, run=uid), {"n": "stop", "d": pack({"run_start": uid})}, id="9-0")
        await until(lambda: _alarms(bus, 1))
        await until(lambda: bus.field(CURSORS, "collector"))
    assert told == [0]
    assert await bus.fields(GIVEN_UP, consumer="collector") == {}


async def _alarms(bus: Bus, number: int) -> bool:
    return len(await bus.newest(ALARMS, 10)) >= number


async def test_the_sink_of_a_run_that_failed_is_closed_and_forgotten(bus: Bus) -> None:
    class Sink:
        is_closed = False

        def __call__(self, name: str, doc: Document) -> None:
            if name == "event":
                raise RuntimeError("told to fail")

        def close(self) -> None:
            self.is_closed = True

    sink = Sink()

    class Failing(RunCallback):
        def open_run(self, start: Document) -> Sink:
            return sink

    callback = Failing()
    async with feeding(bus, callback):
        await publish(bus, run_documents(1)[:-1])
        await until(lambda: bus.newest(ALARMS))
        assert sink.is_closed
        assert not callback.open_runs


@pytest.mark.parametrize("kept", [3, 5])
async def test_a_run_that_lost_its_newest_documents_with_redis_ends_with_the_stop_it_was_given(
    bus: Bus, kept: int
) -> None:
    documents = run_documents(4)
    callback = Collector()
    async with feeding(bus, callback, lost_after=0.3):
        uid = await publish(bus, documents[:-1])
        await until(lambda: len(callback.got) == 6)
        await bus.delete(DOCUMENTS, run=uid)
        async with bus.redis.pipeline() as left:
            for number, (name, doc) in enumerate([*documents[:kept], documents[-1]], 1):
                left.xadd(bus.key(DOCUMENTS, run=uid), {"n": name, "d": pack(doc)}, id=f"{number}-0")
            await left.execute()
        await until(lambda: bus.fields(STORED, run=uid))
    assert callback.got == documents


async def test_a_run_with_a_gap_in_its_numbers_is_told_once(bus: Bus) -> None:
    documents = run_documents(5)
    callback = Collector()
    async with feeding(bus, callback):
        bad = await publish(bus, documents[:3])
        await until(lambda: len(callback.got) == 3)
        for number in (5, 7):
            name, doc = documents[number - 1]
            await bus.redis.xadd(bus.key(DOCUMENTS, run=bad), {"n": name, "d": pack(doc)}, id=f"{number}-0")
        await until(lambda: bus.newest(ALARMS))
        good = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=good))
        await publish(bus, documents[-1:], first=len(documents))
        good = await publish(bus, run_documents(1))
        await until(lambda: bus.fields(STORED, run=good))
    [(_, alarm)] = await bus.newest(ALARMS, 10)
    assert alarm.run == bad and "documents 4 to 4 are missing" in alarm.text


async def test_documents_are_kept_until_every_required_consumer_has_them(bus: Bus) -> None:
    one, other = Collector(), Collector()
    required = frozenset({"one", "other"})
    async with feeding(bus, one, "one", required=required):
        uid = await publish(bus, run_documents(2))
        await until(lambda: bus.fields(STORED, run=uid))
        assert await bus.redis.pttl(bus.key(DOCUMENTS, run=uid)) == -1
    async with feeding(bus, other, "other", required=required):

        async def expires() -> bool:
            return await bus.redis.pttl(bus.key(DOCUMENTS, run=uid)) > 0

        await until(expires)
    assert other.names == one.names


class Refusing(Collector):
    """Is never going to store anything."""

    def is_stored(self, run_uid: str) -> bool:
        raise ValueError("the sink does not take it")


async def test_a_run_that_a_sink_never_takes_is_told_and_its_documents_stay(bus: Bus) -> None:
    async with feeding(bus, Refusing()):
        uid = await publish(bus, run_documents(2))
        async with asyncio.timeout(10):
            while not await bus.redis.xlen(bus.key(ALARMS)):
                await asyncio.sleep(0.02)
    ((_, alarm),) = await bus.redis.xrange(bus.key(ALARMS))
    assert b"the sink does not take it" in alarm[b"m"]
    assert await bus.redis.ttl(bus.key(DOCUMENTS, run=uid)) == -1
    assert not await bus.redis.exists(bus.key(STORED, run=uid))


async def test_results_of_an_open_run_are_given_to_a_callback_that_wants_them(bus: Bus) -> None:
    class Wanting(Collector):
        wants_results = True

        def __init__(self) -> None:
            super().__init__()
            self.results: list[AnalysisResult] = []

        def take_result(self, result: AnalysisResult) -> None:
            self.results.append(result)

        def is_stored(self, run_uid: str) -> bool:
            return any(result.final for result in self.results)

    documents = run_documents(3)
    callback = Wanting()
    facts: dict[str, Any] = {"run_uid": documents[0][1]["uid"], "scan_id": 7, "analysis": "peaks", "x": "x", "y": "y"}
    facts |= {"points": 3}
    async with feeding(bus, callback):
        uid = await publish(bus, documents[:-1])
        await bus.append(RESULTS, AnalysisResult(**facts, values={"center": 1.0}, final=False), run=uid)
        await until(lambda: len(callback.results) == 1)
        await publish(bus, documents[-1:], first=len(documents))
        await until(lambda: callback.names[-1:] == ["stop"])
        await bus.append(RESULTS, AnalysisResult(**facts, values={"center": 2.0}, final=True), run=uid)
        await until(lambda: bus.fields(STORED, run=uid))
    assert [result.values["center"] for result in callback.results] == [1.0, 2.0]
