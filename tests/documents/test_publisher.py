"""What callbacks make, on a real Redis: in order, each once, whatever happens in the middle of a batch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, FILES, LATEST_POINT, POINTS, RESULTS
from bec_bluesky.documents._publish import Publisher
from bec_bluesky.errors import BusError
from bec_bluesky.messages.products import AnalysisResult, FileReady, Point, RunProblem
from bec_bluesky.settings import Settings
from tests.documents.feed_harness import until


def point(index: int, run: str = "u") -> Point:
    return Point(run_uid=run, scan_id=1, stream="primary", index=index, time=1.0, data={"det": float(index)})


def result(count: int) -> AnalysisResult:
    return AnalysisResult(run_uid="u", scan_id=1, analysis="peaks", x="x", y="y", values={}, points=count, final=False)


@contextlib.asynccontextmanager
async def publishing(bus: Bus) -> AsyncIterator[Publisher]:
    """Publish while the block lasts, and no longer: what waits then is lost, as by a kill."""

    async def alarm(text: str, **_: Any) -> None:
        await bus.redis.xadd(bus.key(ALARMS), {"text": text})

    publisher = Publisher(bus, asyncio.get_running_loop(), alarm)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def points_of(bus: Bus, run: str = "u") -> list[tuple[str, int]]:
    return [(stream_id, each.index) for stream_id, each in await bus.read(POINTS, run=run)]


def numbered(last: int) -> list[tuple[str, int]]:
    return [(f"{number}-0", number) for number in range(1, last + 1)]


async def test_products_that_are_emitted_at_once_keep_their_order_in_every_stream(bus: Bus) -> None:
    async with publishing(bus) as publisher:
        for number in range(1, 451):
            publisher.emit(point(number))
            publisher.emit(point(number, "other" if number % 3 else "third"))
            if number % 50 == 0:
                publisher.emit(result(number))
                publisher.emit(FileReady(run_uid="u", scan_id=1, writer="w", path=f"/{number}", size=1, time=1.0))
        publisher.emit(RunProblem(run_uid="u", source="test", text="the end"))
        await publisher.drained()
    assert await points_of(bus) == numbered(450)
    assert [index for _, index in await points_of(bus, "other")] == [n for n in range(1, 451) if n % 3]
    assert [each.points for _, each in await bus.read(RESULTS, run="u")] == list(range(50, 451, 50))
    assert [each.path for _, each in await bus.read(FILES)] == [f"/{number}" for number in range(50, 451, 50)]
    assert await bus.get(LATEST_POINT) == point(450, "third")
    assert await bus.redis.xlen(bus.key(ALARMS)) == 1


async def test_points_that_wait_go_in_few_round_trips(bus: Bus) -> None:
    async with publishing(bus) as publisher:
        before = (await bus.redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        for number in range(1, 101):
            publisher.emit(point(number))
        await publisher.drained()
        after = (await bus.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert await points_of(bus) == numbered(100)
    assert after - before <= 3


@pytest.mark.parametrize("there", [1, 3, 6])
async def test_a_publisher_that_is_fed_again_repeats_no_point_and_puts_the_newest(bus: Bus, there: int) -> None:
    async with publishing(bus) as publisher:
        for number in range(1, there + 1):
            publisher.emit(point(number))
        await publisher.drained()
    await bus.delete(LATEST_POINT)  # as if killed in between
    async with publishing(bus) as publisher:
        for number in range(1, 7):
            publisher.emit(point(number))
        await publisher.drained()
        assert await bus.get(LATEST_POINT) == point(6)
        publisher.emit(point(7))
        await publisher.drained()
    assert await points_of(bus) == numbered(7)


async def test_the_newest_point_is_not_an_old_one_while_a_run_is_fed_again(bus: Bus) -> None:
    async with publishing(bus) as publisher:
        for number in range(1, 6):
            publisher.emit(point(number))
        await publisher.drained()
    async with publishing(bus) as publisher:
        for number in range(1, 4):
            publisher.emit(point(number))
        await publisher.drained()
    assert await bus.get(LATEST_POINT) == point(5)
    assert await points_of(bus) == numbered(5)


async def test_a_place_in_the_middle_that_another_point_took_leaves_out_that_one_only(bus: Bus) -> None:
    async with publishing(bus) as publisher:
        publisher.emit(point(1))
        await publisher.drained()
        await bus.append_at(POINTS, 2, point(99), run="u")
        for number in range(2, 5):
            publisher.emit(point(number))
        await publisher.drained()
        publisher.emit(point(5))
        await publisher.drained()
    assert await points_of(bus) == [("1-0", 1), ("2-0", 99), ("3-0", 3), ("4-0", 4), ("5-0", 5)]


async def test_a_batch_that_a_full_redis_refuses_is_published_once_when_there_is_room(bus: Bus) -> None:
    limit = str((await bus.redis.config_get("maxmemory"))["maxmemory"])
    async with publishing(bus) as publisher:
        publisher.emit(point(1))
        await publisher.drained()
        await bus.redis.config_set("maxmemory", "1mb")
        try:
            for number in range(2, 6):
                publisher.emit(point(number))
            with pytest.raises(BusError, match="OOM"):
                await bus.append_at(POINTS, 1, point(1), run="another")
            assert await points_of(bus) == numbered(1)
        finally:
            await bus.redis.config_set("maxmemory", limit)
        await publisher.drained()
    assert await points_of(bus) == numbered(5)
    assert await bus.get(LATEST_POINT) == point(5)


class LosingReplies:
    """A way to Redis that can be told to end the connection of the next script once Redis has carried it out."""

    def __init__(self, bus: Bus) -> None:
        self._address = bus.address
        self.loses_next = False
        self.lost = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = self._address
        there = (
            asyncio.open_unix_connection(address.path)
            if address.path
            else asyncio.open_connection(address.host, address.port)
        )
        redis_reader, redis_writer = await there
        losing = asyncio.Event()

        async def pass_replies() -> None:
            while reply := await redis_reader.read(2**16):
                if losing.is_set():
                    self.lost += 1
                    break
                writer.write(reply)
            writer.close()

        replies = asyncio.create_task(pass_replies())
        while request := await reader.read(2**16):
            if self.loses_next and b"EVALSHA" in request:
                self.loses_next = False
                losing.set()
            redis_writer.write(request)
        redis_writer.close()
        await replies


async def test_a_batch_whose_reply_was_lost_is_there_once(bus: Bus, settings: Settings) -> None:
    losing = LosingReplies(bus)
    async with await asyncio.start_server(losing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Bus(f"redis://127.0.0.1:{port}", settings.beamline) as shaky, publishing(shaky) as publisher:
            publisher.emit(point(1))
            await publisher.drained()
            losing.loses_next = True
            for number in range(2, 6):
                publisher.emit(point(number))
            publisher.emit(result(5))
            await publisher.drained()
            await until(lambda: losing.lost == 1)
    assert await points_of(bus) == numbered(5)
    assert [each.points for _, each in await bus.read(RESULTS, run="u")] == [5]
