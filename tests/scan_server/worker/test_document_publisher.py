"""Documents on their way to a real Redis that is stopped, killed, emptied; and other writers."""

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from event_model import compose_run

from bec_bluesky import embedded
from bec_bluesky.bus import Bus, parse
from bec_bluesky.channels import EPOCH, RUNS, document_stream
from bec_bluesky.errors import BusError, FencedError, StreamGapError
from bec_bluesky.messages import pack
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.scan_server.worker import close_lost_run
from bec_bluesky.scan_server.worker._publisher import DocumentPublisher
from bec_bluesky.settings import Settings
from bec_bluesky.testing import settings_in
from tests.scan_server.worker.worker_bench import announced, documents


class Publishing:
    """A publisher at work, and what it said."""

    def __init__(self, url: str, beamline: str, **options: Any) -> None:
        self.opened: list[str] = []
        self.closed: list[tuple[str, str]] = []
        self.refused: list[BusError] = []
        self.publisher = DocumentPublisher(
            parse(url),
            beamline,
            on_opened=lambda start: self.opened.append(start["uid"]),
            on_closed=lambda uid, status: self.closed.append((uid, status)),
            on_refused=self.refused.append,
            **options,
        )
        self.publisher.begin(1, "item", "eve")

    async def drained(self, within: float = 20.0) -> None:
        async with asyncio.timeout(within):
            await self.publisher.drained()


@contextlib.asynccontextmanager
async def publishing(url: str, beamline: str, **options: Any) -> AsyncIterator[Publishing]:
    made = Publishing(url, beamline, **options)
    task = asyncio.create_task(made.publisher.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def emit_run(publisher: DocumentPublisher, events: int, pause: float = 0.0) -> str:
    """Emit a whole run, as the engine's thread does; gives its uid."""
    run = compose_run(metadata={"scan_id": 1, "plan_name": "count"}, validate=False)
    publisher("start", dict(run.start_doc))
    key = {"source": "test", "dtype": "number", "shape": []}
    stream = run.compose_descriptor(name="primary", data_keys={"x": key}, validate=False)  # pyright: ignore
    publisher("descriptor", dict(stream.descriptor_doc))
    for number in range(events):
        event = stream.compose_event(data={"x": number}, timestamps={"x": time.time()}, validate=False)
        publisher("event", dict(event))
        if pause:
            time.sleep(pause)
    publisher("stop", dict(run.compose_stop()))
    return run.start_doc["uid"]


async def check_run(bus: Bus, uid: str, events: int) -> None:
    run = await documents(bus, uid)
    assert [name for name, _ in run] == ["start", "descriptor"] + ["event"] * events + ["stop"]
    assert [d["data"]["x"] for name, d in run if name == "event"] == list(range(events))


async def test_a_burst_and_a_trickle_arrive_whole(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        burst = await asyncio.to_thread(emit_run, made.publisher, 5000)
        trickle = await asyncio.to_thread(emit_run, made.publisher, 50, 0.001)
        await made.drained()
    await check_run(bus, burst, 5000)
    await check_run(bus, trickle, 50)
    assert made.closed == [(burst, "success"), (trickle, "success")]
    assert [(type(m), m.run_uid) for m in await announced(bus)] == [
        (kind, uid) for uid in (burst, trickle) for kind in (RunOpened, RunClosed)
    ]


async def test_a_document_is_readable_within_milliseconds_of_the_callback(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        await asyncio.to_thread(emit_run, made.publisher, 1)
        await made.drained()
        delays: list[float] = []
        for _ in range(20):
            began = time.perf_counter()
            await asyncio.to_thread(emit_run, made.publisher, 1)
            await made.drained()
            delays.append(time.perf_counter() - began)
    assert sorted(delays)[10] < 0.05


async def test_a_stopped_redis_delays_documents_and_stores_none_twice(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server = embedded.find_or_start(settings, with_parent=True)
    assert server.pid is not None
    try:
        async with publishing(server.url, settings.beamline) as made:
            emitting = asyncio.create_task(asyncio.to_thread(emit_run, made.publisher, 1000, 0.001))
            await asyncio.sleep(0.2)
            os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(3.5)  # longer than the publisher waits for one answer
            os.kill(server.pid, signal.SIGCONT)
            uid = await emitting
            await made.drained()
        async with Bus(server.url, settings.beamline) as bus:
            await check_run(bus, uid, 1000)
            assert [type(m) for m in await announced(bus)] == [RunOpened, RunClosed]
    finally:
        embedded.stop(settings)


async def test_a_killed_and_restarted_redis_gets_every_document_once(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server = embedded.find_or_start(settings, with_parent=True)
    dice = random.Random(7)
    try:
        async with publishing(server.url, settings.beamline) as made:
            emitting = asyncio.create_task(asyncio.to_thread(emit_run, made.publisher, 1500, 0.001))
            for _ in range(4):
                await asyncio.sleep(dice.uniform(0.1, 0.3))
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.to_thread(os.waitpid, server.pid, 0)
                server = await asyncio.to_thread(embedded.find_or_start, settings)
            uid = await emitting
            await made.drained()
        async with Bus(server.url, settings.beamline) as bus:
            await check_run(bus, uid, 1500)
            assert [type(m) for m in await announced(bus)] == [RunOpened, RunClosed]
    finally:
        embedded.stop(settings)


async def test_what_redis_forgot_is_written_again(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        go_on = threading.Event()

        def emit() -> str:
            run = compose_run(metadata={"scan_id": 1}, validate=False)
            made.publisher("start", dict(run.start_doc))
            assert go_on.wait(10.0)
            made.publisher("stop", dict(run.compose_stop()))
            return run.start_doc["uid"]

        emitting = asyncio.create_task(asyncio.to_thread(emit))
        async with asyncio.timeout(10.0):
            while not made.opened or not await bus.redis.exists(document_stream(bus.beamline, made.opened[0])):
                await asyncio.sleep(0.01)
        await bus.redis.delete(document_stream(bus.beamline, made.opened[0]))
        go_on.set()
        uid = await emitting
        await made.drained()
    assert [name for name, _ in await documents(bus, uid)] == ["start", "stop"]


async def test_what_redis_forgot_of_a_run_that_waits_is_written_again_at_once(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline, look_every=0.1) as made:
        run = compose_run(metadata={"scan_id": 1}, validate=False)
        uid = run.start_doc["uid"]
        made.publisher("start", dict(run.start_doc))
        await made.drained()
        await bus.delete(RUNS)
        await bus.redis.delete(document_stream(bus.beamline, uid))
        async with asyncio.timeout(10.0):
            while not await bus.redis.exists(document_stream(bus.beamline, uid)):
                await asyncio.sleep(0.01)
        made.publisher("stop", dict(run.compose_stop()))
        await made.drained()
    assert [name for name, _ in await documents(bus, uid)] == ["start", "stop"]
    assert [(type(m), m.run_uid) for m in await announced(bus)] == [(RunOpened, uid), (RunClosed, uid)]
    assert made.refused == []


async def test_a_stranger_in_the_stream_ends_the_run_and_is_not_overwritten(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        run = compose_run(metadata={"scan_id": 1}, validate=False)
        made.publisher("start", dict(run.start_doc))
        await made.drained()
        uid = run.start_doc["uid"]
        await bus.redis.xadd(document_stream(bus.beamline, uid), {"n": "stop", "d": pack({})}, id="2-0")
        made.publisher("stop", dict(run.compose_stop()))
        await made.drained()
        [refusal] = made.refused
        assert isinstance(refusal, StreamGapError)
        with pytest.raises(StreamGapError, match="somebody else writes"):
            made.publisher("start", {"uid": str(uuid.uuid4()), "time": 0.0})
    assert (await documents(bus, uid))[-1] == ("stop", {})


async def test_a_newer_token_fences_the_publisher(settings: Settings, bus: Bus) -> None:
    await bus.redis.set(bus.key(EPOCH), 1)
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        run = compose_run(metadata={"scan_id": 1}, validate=False)
        made.publisher("start", dict(run.start_doc))
        await made.drained()
        await bus.redis.incr(bus.key(EPOCH))
        made.publisher("stop", dict(run.compose_stop()))
        await made.drained()
        assert [type(error) for error in made.refused] == [FencedError]
    uid = run.start_doc["uid"]
    assert [name for name, _ in await documents(bus, uid)] == ["start"]
    with pytest.raises(FencedError):
        await close_lost_run(bus, uid, "lost", 1)
    assert await close_lost_run(bus, uid, "lost", 2)
    assert [name for name, _ in await documents(bus, uid)] == ["start", "stop"]


async def test_the_plan_waits_when_too_many_documents_do_and_is_let_go_to_be_ended(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server = embedded.find_or_start(settings, with_parent=True)
    assert server.pid is not None
    try:
        async with publishing(server.url, settings.beamline, credit=100) as made:
            os.kill(server.pid, signal.SIGSTOP)
            emitting = asyncio.create_task(asyncio.to_thread(emit_run, made.publisher, 1000))
            async with asyncio.timeout(10.0):
                while made.publisher.waiting <= 100:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert made.publisher.waiting == 101
            made.publisher.let_go()
            uid = await emitting
            assert made.publisher.waiting == 1003
            os.kill(server.pid, signal.SIGCONT)
            await made.drained()
        async with Bus(server.url, settings.beamline) as bus:
            await check_run(bus, uid, 1000)
    finally:
        embedded.stop(settings)


async def test_documents_of_interleaved_runs_go_to_their_own_streams(settings: Settings, bus: Bus) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        uids = await asyncio.gather(*(asyncio.to_thread(emit_run, made.publisher, 300) for _ in range(3)))
        await made.drained()
    for uid in uids:
        await check_run(bus, uid, 300)


async def test_what_cannot_be_encoded_fails_in_the_plan(settings: Settings) -> None:
    async with publishing(settings.redis_url or "", settings.beamline) as made:
        with pytest.raises(TypeError, match="cannot cross the bus"):
            made.publisher("start", {"uid": str(uuid.uuid4()), "time": 0.0, "sample": object()})


async def test_a_lost_run_counts_each_point_once(settings: Settings, bus: Bus) -> None:
    uid = str(uuid.uuid4())
    written: list[tuple[str, Any]] = [
        ("start", {"uid": uid, "time": 1.0, "scan_id": 3}),
        ("descriptor", {"uid": "p", "run_start": uid, "name": "primary"}),
        ("descriptor", {"uid": "b", "run_start": uid, "name": "baseline"}),
        ("descriptor", {"uid": "f", "run_start": uid, "name": "fly"}),
        ("event", {"descriptor": "p", "seq_num": 1}),
        ("event", {"descriptor": "p", "seq_num": 2}),
        ("event", {"descriptor": "p", "seq_num": 2}),
        ("event_page", {"descriptor": "b", "seq_num": [1, 2, 3]}),
        ("stream_datum", {"descriptor": "f", "seq_nums": {"start": 1, "stop": 11}}),
        ("stream_datum", {"descriptor": "f", "seq_nums": {"start": 1, "stop": 9}}),
    ]
    for number, (name, document) in enumerate(written, 1):
        await bus.redis.xadd(document_stream(bus.beamline, uid), {"n": name, "d": pack(document)}, id=f"{number}-0")
    assert await close_lost_run(bus, uid, "lost", 1)
    assert (await documents(bus, uid))[-1][1]["num_events"] == {"primary": 2, "baseline": 3, "fly": 10}
    [(_, closed)] = await bus.newest(RUNS)
    assert closed.documents == len(written) + 1


async def test_a_run_of_which_nothing_reached_redis_needs_no_closing(bus: Bus) -> None:
    assert not await close_lost_run(bus, str(uuid.uuid4()), "lost", 1)
