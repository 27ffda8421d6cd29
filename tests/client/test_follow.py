"""Following what an item brings: points, results, ends; live and late, over a real Redis."""

import asyncio
import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS, ITEMS_DONE, POINTS, RESULTS, RUNS, SCAN_STATUS, SERVICES, STORED
from bec_bluesky.client._follow import Event, Follow, Place
from bec_bluesky.client._live import LiveView
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.common import Heartbeat
from bec_bluesky.messages.products import AnalysisResult, Point, RunClosed, RunOpened
from bec_bluesky.messages.queue import ItemDone, ItemResult, Progress, QueueItem, ScanServerStatus

ITEM, RUN = "i1", "r1"


def point(index: int, revision: int = 0) -> Point:
    return Point(
        run_uid=RUN,
        scan_id=7,
        stream="primary",
        index=index,
        time=time.time(),
        data={"samx": float(index), "det": 2.0 * index, "image": [1, 2]},
        positions=["samx"],
        signals=["det"],
        units={"samx": "mm"} if index == 1 else {},
        revision=revision,
    )


def item(state: str = "running", **more: object) -> QueueItem:
    return QueueItem(item_id=ITEM, plan="scan", state=state, **more)  # pyright: ignore[reportArgumentType]


def status(running: QueueItem | None, stamp: float = 1.0) -> ScanServerStatus:
    return ScanServerStatus(
        time=stamp,
        queue_state="running" if running else "stopped",
        run_state="running" if running else "idle",
        waiting=0,
        running=running,
        progress=Progress(points=1, expected=3),
    )


async def say_who_hosts(bus: Bus) -> None:
    """Let a document service with a bundler and an analysis be known."""
    hosts = {
        "bundler": "callbacks.bundler:ScanBundler",
        "peaks": "callbacks.peaks:PeakAnalysis",
        "nexus": "writers.x:W",
    }
    beat = Heartbeat(
        service="documents-live",
        incarnation="1",
        host="h",
        pid=1,
        version="0",
        started=0.0,
        time=0.0,
        state="running",
        facts={"hosts": hosts},
    )
    await bus.put(SERVICES, beat, service="documents-live")
    scan_server = Heartbeat(
        service="scan_server", incarnation="1", host="h", pid=1, version="0", started=0.0, time=0.0, state="running"
    )
    await bus.put(SERVICES, scan_server, service="scan_server")


async def open_run(bus: Bus, item_id: str = ITEM, run: str = RUN) -> None:
    await bus.append(RUNS, RunOpened(run_uid=run, scan_id=7, time=0.0, plan_name="scan", item_id=item_id))


async def end_run(bus: Bus) -> None:
    await bus.append(RUNS, RunClosed(run_uid=RUN, time=0.0, exit_status="success", documents=5))
    result = ItemResult(exit_status="completed", run_uids=[RUN], scan_ids=[7], time_start=1.0, time_stop=3.5)
    await bus.append(ITEMS_DONE, ItemDone(item=item("done", result=result)))


async def collect(follow: Follow, events: list[Event]) -> None:
    async for event in follow.events():
        events.append(event)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_points_that_come_after_the_end_of_the_item_are_awaited(bus: Bus) -> None:
    await say_who_hosts(bus)
    follow = Follow(bus, await Place.now(bus), item_id=ITEM)
    events: list[Event] = []
    task = asyncio.create_task(collect(follow, events))
    await bus.put_fields(ITEMS, {ITEM: item()})
    await bus.put(SCAN_STATUS, status(item()))
    await open_run(bus)
    await open_run(bus, item_id="another", run="r2")
    await bus.append_at(POINTS, 1, point(1), run=RUN)
    await end_run(bus)
    await until(lambda: any(isinstance(event, RunClosed) for event in events))
    await bus.append_at(POINTS, 2, point(2), run=RUN)
    final = AnalysisResult(
        run_uid=RUN, scan_id=7, analysis="peaks", x="samx", y="det", values={"center": 1.0}, points=2, final=True
    )
    await bus.append(RESULTS, final, run=RUN)
    await bus.put_fields(STORED, {"bundler": True, "peaks": True}, run=RUN)
    async with asyncio.timeout(20):
        await task
    assert [event.index for event in events if isinstance(event, Point)] == [1, 2]
    assert [event.run_uid for event in events if isinstance(event, RunOpened)] == [RUN]
    assert final in events
    assert isinstance(events[-1], ItemDone)


async def test_writers_are_awaited_only_when_asked_for(bus: Bus) -> None:
    await say_who_hosts(bus)
    place = await Place.now(bus)
    await open_run(bus)
    await end_run(bus)
    await bus.put_fields(STORED, {"bundler": True, "peaks": True}, run=RUN)
    events: list[Event] = []
    async with asyncio.timeout(20):
        await collect(Follow(bus, place, item_id=ITEM), events)
    assert isinstance(events[-1], ItemDone)
    waiting = asyncio.create_task(collect(Follow(bus, place, item_id=ITEM, settled="all"), events))
    seen = len(events)
    await until(lambda: len(events) >= seen + 2)
    assert not waiting.done()
    await bus.put_fields(STORED, {"nexus": True}, run=RUN)
    async with asyncio.timeout(20):
        await waiting


async def test_a_run_is_followed_late_from_its_first_point(bus: Bus) -> None:
    await say_who_hosts(bus)
    await open_run(bus)
    for index in (1, 2, 3):
        await bus.append_at(POINTS, index, point(index), run=RUN)
    await end_run(bus)
    await bus.put_fields(STORED, {"bundler": True, "peaks": True}, run=RUN)
    events: list[Event] = []
    async with asyncio.timeout(20):
        await collect(Follow(bus, Place(), run_uid=RUN), events)
    assert [event.index for event in events if isinstance(event, Point)] == [1, 2, 3]
    assert isinstance(events[-1], RunClosed)


async def test_an_item_that_is_held_is_not_waited_for(bus: Bus) -> None:
    await bus.put_fields(ITEMS, {ITEM: item("held", held="its worker was lost")})
    await bus.put(SCAN_STATUS, status(None))
    with pytest.raises(RefusedError, match=r"is held: its worker was lost; .* release i1"):
        await collect(Follow(bus, await Place.now(bus), item_id=ITEM), [])


async def test_an_item_that_was_taken_out_is_not_waited_for(bus: Bus) -> None:
    place = await Place.now(bus)
    await bus.put(SCAN_STATUS, status(None))
    with pytest.raises(RefusedError, match="taken out of the queue"):
        await collect(Follow(bus, place, item_id=ITEM), [])


def shown(events: list[Event], *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    with LiveView(console) as view:
        for event in events:
            view.show(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def a_run() -> list[Event]:
    result = ItemResult(exit_status="completed", run_uids=[RUN], scan_ids=[7], time_start=1.0, time_stop=3.5)
    return [
        RunOpened(run_uid=RUN, scan_id=7, time=0.0, plan_name="scan", item_id=ITEM),
        status(item()),
        point(1),
        point(2),
        point(2, revision=1),
        RunClosed(run_uid=RUN, time=0.0, exit_status="success", documents=5),
        ItemDone(item=item("done", result=result)),
    ]


def test_without_a_terminal_the_table_is_plain_lines() -> None:
    text = shown(a_run(), terminal=False)
    lines = text.splitlines()
    assert "\x1b" not in text
    assert lines[0].startswith("scan 7: scan")
    assert lines[1].split() == ["point", "samx", "[mm]", "det"]
    assert lines[3].split() == ["1", "1", "2"]
    assert lines[5].split() == ["2", "2", "4", "(revision", "1)"]
    assert lines[-1] == "scan completed after 2.5 s; scan 7: 2 points"


def test_on_a_terminal_the_bar_counts_against_what_is_expected() -> None:
    assert "2/3" in shown(a_run(), terminal=True)


def test_points_with_frames_only_show_the_frames() -> None:
    flown = Point(
        run_uid=RUN, scan_id=7, stream="fly", index=1, time=0.0, data={}, frames={"blob": (4, 8), "m": (0, 1)}
    )
    lines = shown([flown], terminal=False).splitlines()
    assert lines[0].split() == ["point", "blob", "frames", "m", "frames"]
    assert lines[2].split() == ["1", "4…7", "0"]
