"""Feeding a callback from documents on a real Redis: everything once, in order, also after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import event_model

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DOCUMENTS, POINTS, RESULTS, RUNS, STORED
from bec_bluesky.documents import Document, Point, RunCallback
from bec_bluesky.documents._feed import Feed
from bec_bluesky.documents._publish import Publisher
from bec_bluesky.messages import pack
from bec_bluesky.messages.products import AnalysisResult, RunClosed, RunOpened


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


def run_documents(events: int) -> list[tuple[str, dict[str, Any]]]:
    """Compose a small valid run."""
    run = event_model.compose_run(metadata={"scan_id": 7})
    stream = run.compose_descriptor(
        name="primary", data_keys={"det": {"source": "test", "dtype": "number", "shape": []}}
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for number in range(1, events + 1):
        event = stream.compose_event(data={"det": float(number)}, timestamps={"det": 1.0}, seq_num=number)
        documents.append(("event", event))
    documents.append(("stop", run.compose_stop()))
    return documents


async def publish(bus: Bus, documents: list[tuple[str, dict[str, Any]]], *, first: int = 1) -> str:
    uid = documents[0][1]["uid"] if first == 1 else documents[-1][1].get("run_start", "")
    if first == 1:
        await bus.append(RUNS, RunOpened(run_uid=uid, scan_id=7, time=1.0))
    for number, (name, doc) in enumerate(documents, first):
        await bus.redis.xadd(bus.key(DOCUMENTS, run=uid), {"n": name, "d": pack(doc)}, id=f"{number}-0")
    if documents[-1][0] == "stop":
        await bus.append(RUNS, RunClosed(run_uid=uid, time=2.0, exit_status="success", documents=len(documents)))
    return uid


@contextlib.asynccontextmanager
async def feeding(bus: Bus, callback: Collector, name: str = "collector") -> AsyncIterator[Feed]:
    async def alarm(text: str, **extra: Any) -> None:
        from bec_bluesky.messages.common import Alarm

        await bus.append(ALARMS, Alarm(time=1.0, service=name, text=text, run=extra.get("run")))

    publisher = Publisher(bus, asyncio.get_running_loop(), alarm)
    callback.emit = publisher.emit
    feed = Feed(name, callback, bus, publisher, required=frozenset({name}), alarm=alarm)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        await feed.finish()
        await task


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


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


async def test_documents_are_kept_until_every_required_consumer_has_them(bus: Bus) -> None:
    one, other = Collector(), Collector()
    required = frozenset({"one", "other"})
    async with feeding(bus, one, "one") as feed:
        feed._required = required
        uid = await publish(bus, run_documents(2))
        await until(lambda: bus.fields(STORED, run=uid))
        assert await bus.redis.pttl(bus.key(DOCUMENTS, run=uid)) == -1
    async with feeding(bus, other, "other") as feed:
        feed._required = required

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
