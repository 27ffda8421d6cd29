"""The bus in its shapes, on a real Redis."""

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import pytest

from bec_bluesky import embedded
from bec_bluesky.bus import Bus, Wire
from bec_bluesky.bus._address import parse
from bec_bluesky.channels import ALARMS, BEATS, LATEST_POINT, POINTS, READBACKS, SERVICES
from bec_bluesky.errors import BusError, StreamGapError
from bec_bluesky.messages.common import Alarm, Heartbeat
from bec_bluesky.messages.devices import Beat, Readback
from bec_bluesky.messages.products import Point
from bec_bluesky.settings import load


def _point(index: int, value: float = 0.0) -> Point:
    return Point(run_uid="u", scan_id=1, stream="primary", index=index, time=1.0, data={"det": value})


async def test_an_entry_repeated_under_its_number_is_stored_once(bus: Bus) -> None:
    assert await bus.append_at(POINTS, 1, _point(1), run="u")
    assert not await bus.append_at(POINTS, 1, _point(1), run="u")
    assert [point.index for _, point in await bus.read(POINTS, run="u")] == [1]


async def test_another_entry_under_a_used_number_is_a_gap_error(bus: Bus) -> None:
    await bus.append_at(POINTS, 1, _point(1), run="u")
    with pytest.raises(StreamGapError, match="at 1-0"):
        await bus.append_at(POINTS, 1, _point(1, value=2.0), run="u")


async def test_entries_that_follow_each_other_are_appended_at_once_and_their_last_is_the_latest(bus: Bus) -> None:
    assert await bus.append_at(POINTS, 1, _point(1), _point(2), latest=LATEST_POINT, run="u") == 2
    assert await bus.append_at(POINTS, 2, _point(2), _point(3), latest=LATEST_POINT, run="u") == 1
    assert [(number, point.index) for number, point in await bus.read(POINTS, run="u")] == [
        ("1-0", 1),
        ("2-0", 2),
        ("3-0", 3),
    ]
    assert await bus.get(LATEST_POINT) == _point(3)


async def _blocked(bus: Bus) -> "asyncio.Task[list[tuple[str, Point]]]":
    """Begin to wait for an entry that does not come; give it once Redis waits."""
    waiting = asyncio.create_task(bus.read(POINTS, "1-0", block=1.0, run="u"))
    async with asyncio.timeout(30):
        while not (await bus.redis.info("clients"))["blocked_clients"]:
            if waiting.done():  # a busy machine
                waiting = asyncio.create_task(bus.read(POINTS, "1-0", block=1.0, run="u"))
            await asyncio.sleep(0.01)
    return waiting


async def test_a_connection_that_is_given_up_while_it_is_made_is_closed(tmp_path: Path) -> None:
    accepted, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        while await reader.read(1_000):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_unix_server(say_nothing, tmp_path / "s")
    async with server, asyncio.timeout(30):
        connecting = asyncio.create_task(Wire.connect(parse(f"unix://{tmp_path / 's'}")))
        await accepted.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await ended.wait()


async def test_a_read_that_was_cancelled_leaves_its_reply_to_nobody(bus: Bus) -> None:
    await bus.append_at(POINTS, 1, _point(1), run="u")
    waiting = await _blocked(bus)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await bus.append_at(POINTS, 2, _point(2), run="u")
    assert await bus.read(POINTS, run="another") == []
    assert [point.index for _, point in await bus.read(POINTS, run="u")] == [1, 2]


async def test_a_connection_that_redis_ended_is_replaced_by_a_new_one(bus: Bus) -> None:
    await bus.append_at(POINTS, 1, _point(1), run="u")
    ended: BaseException | None = None
    while ended is None:  # it may have waited long enough, before it was ended
        waiting = await _blocked(bus)
        await bus.redis.client_kill_filter(skipme=True, _type="normal")
        (ended,) = [
            each if isinstance(each, BaseException) else None
            for each in await asyncio.gather(waiting, return_exceptions=True)
        ]
    assert isinstance(ended, BusError) and "lost" in str(ended)
    assert [point.index for _, point in await bus.read(POINTS, run="u")] == [1]


async def test_follow_gives_old_and_new_entries_in_order(bus: Bus) -> None:
    await bus.append_at(POINTS, 1, _point(1), run="u")

    async def publish_later() -> None:
        await bus.append_at(POINTS, 2, _point(2), run="u")

    seen = []
    async with asyncio.timeout(5):
        async for stream_id, point in bus.follow(POINTS, run="u"):
            seen.append((stream_id, point.index))
            if len(seen) == 2:
                break
            await publish_later()
    assert seen == [("1-0", 1), ("2-0", 2)]


async def test_a_redis_that_is_away_is_said_once_by_all_who_follow_and_each_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(data_dir=tmp_path, beamline="away", redis_url=None)
    server = embedded.find_or_start(settings, with_parent=True)
    assert server.pid is not None
    try:
        async with Bus(server.url, settings.beamline) as bus, asyncio.timeout(30):
            followed = [bus.follow(ALARMS), bus.follow(POINTS, run="u")]
            await bus.append(ALARMS, Alarm(time=1.0, service="s", text="before"))
            await bus.append_at(POINTS, 1, _point(1), run="u")
            for follow in followed:
                await anext(follow)
            waiting = [asyncio.create_task(anext(follow)) for follow in followed]  # pyright: ignore[reportArgumentType]  # an Awaitable only
            with caplog.at_level(logging.DEBUG, logger="bec_bluesky.bus"):
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.to_thread(os.waitpid, server.pid, 0)  # it is our child
                while len([record for record in caplog.records if "trying again" in record.message]) < 8:
                    await asyncio.sleep(0.01)
                embedded.find_or_start(settings, with_parent=True)
            await bus.append(ALARMS, Alarm(time=2.0, service="s", text="after"))
            await bus.append_at(POINTS, 2, _point(2), run="u")
            (_, alarm), (_, point) = await asyncio.gather(*waiting)
            assert (alarm.text, point.index) == ("after", 2)
    finally:
        embedded.stop(settings)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and warnings[0].endswith("trying again"), warnings


async def test_a_latest_value_with_a_lifetime_vanishes(bus: Bus) -> None:
    beat = Heartbeat(service="x", incarnation="i", host="h", pid=1, version="0", started=0, time=0, state="running")
    await bus.put(SERVICES, beat, service="x")
    assert await bus.find(SERVICES, "service") == {"x": beat}
    assert 0 < await bus.redis.pttl(bus.key(SERVICES, service="x")) <= 3000


async def test_a_table_gives_each_field(bus: Bus) -> None:
    readback = Readback(device="samx", time=1.0, reading={"samx": {"value": 1.0, "timestamp": 1.0}})
    await bus.put_fields(READBACKS, {"samx": readback}, server="ds")
    assert await bus.fields(READBACKS, server="ds") == {"samx": readback}
    assert await bus.field(READBACKS, "samy", server="ds") is None


async def test_a_log_is_trimmed_by_length(bus: Bus) -> None:
    await bus.append(ALARMS, Alarm(time=time.time(), service="x", text="t"))
    assert [alarm.text for _, alarm in await bus.newest(ALARMS)] == ["t"]


async def test_a_wire_hears_what_the_bus_publishes_and_pipelines_commands(bus: Bus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    wire = await Wire.connect(bus.address, on_push=lambda _, payload: heard.put_nowait(payload))
    try:
        await wire.subscribe(bus.key(BEATS, server="ds"))
        assert await bus.publish(BEATS, Beat("ds", "e", 1.0), server="ds") == 1
        async with asyncio.timeout(5):
            assert await heard.get()
        replies = await asyncio.gather(*(wire.call("ECHO", str(n)) for n in range(100)))
        assert replies == [str(n).encode() for n in range(100)]
        with pytest.raises(BusError, match="unknown command"):
            await wire.call("NOSUCH")
    finally:
        wire.close()


async def test_a_key_is_never_built_from_free_text(bus: Bus) -> None:
    with pytest.raises(ValueError, match="cannot be part of a key"):
        await bus.read(POINTS, run="{other}:x*")
