"""Named queues run side by side as long as their devices do not overlap; a scripted peer stands in for the workers."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import NAMED_STATUS
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import (
    AddItem,
    ControlRun,
    ExecuteItem,
    GetQueue,
    GetStatus,
    ItemAccepted,
    MoveItems,
    Queue,
    QueueItem,
    RemoveItem,
    ScanServerStatus,
    SetQueueMode,
    StartQueue,
)
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, process, serving, until


def make(settings: Settings) -> ScanServer:
    patience = replace(IMPATIENT, wait_for_check=10.0)  # for the worker that is started when the first has work
    return ScanServer(settings, worker_command=SCRIPTED, has_spare=False, patience=patience, queues=("align",))


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ScanServer]:
    async with serving(make(settings)) as server:
        yield server


async def add(client: Client, queue: str, plan: str, devices: str, *, start: bool = False) -> QueueItem:
    accepted: ItemAccepted = await client.ask(AddItem(plan=plan, kwargs={"note": devices}, start=start), queue=queue)
    assert accepted.warnings == []
    return accepted.item


async def status_of(client: Client, queue: str) -> ScanServerStatus:
    return await client.ask(GetStatus(), queue=queue)


async def runs(client: Client, queue: str, item: QueueItem) -> bool:
    status = await status_of(client, queue)
    return status.running is not None and status.running.item_id == item.item_id and status.scan_id == 1


async def test_two_queues_run_side_by_side_and_each_is_controlled_by_itself(
    server: ScanServer, client: Client, bus: Bus
) -> None:
    await client.until_status(run_state="idle")
    first = await add(client, "", "wait", "x", start=True)
    await until(lambda: runs(client, "", first))
    assert len(server.pool.pids) == 2, "a worker more is started once the first one has work"
    second = await add(client, "align", "wait", "y", start=True)
    await until(lambda: runs(client, "align", second))
    assert await runs(client, "main", first)
    assert (await client.status()).queues == ["main", "align"]
    await client.ask(ControlRun(action="pause"), queue="align")

    async def only_align_is_paused() -> bool:
        announced = await bus.get(NAMED_STATUS, queue="align")
        return announced.run_state == "paused" and (await client.status()).run_state == "running"

    await until(only_align_is_paused)
    with pytest.raises(RefusedError, match="is not paused"):
        await client.ask(ControlRun(action="resume"))
    await client.ask(ControlRun(action="stop", item_id=second.item_id))
    (done,) = await client.until_ended(1)
    assert (done.item_id, done.queue) == (second.item_id, "align")
    ended = (await status_of(client, "align")).runs
    assert [(run.uid, run.is_open, run.exit_status) for run in ended] == [(done.result.run_uids[0], False, "success")]  # pyright: ignore[reportOptionalMemberAccess]
    assert await runs(client, "", first)
    await client.ask(ControlRun(action="abort"))
    await client.until_ended(2)


async def test_an_item_whose_device_another_queue_uses_waits_for_it_and_says_so(
    server: ScanServer, client: Client
) -> None:
    await client.until_status(run_state="idle")
    first = await add(client, "", "wait", "x", start=True)
    await until(lambda: runs(client, "", first))
    second = await add(client, "align", "wait", "x", start=True)
    status = await status_of(client, "align")
    assert (status.queue_state, status.running, status.waiting) == ("running", None, 1)
    assert status.waits_for == f"x is held by wait (item {first.item_id[:8]}, ann) of queue main"
    with pytest.raises(RefusedError, match="the queue is started"):
        await client.ask(ExecuteItem(item=AddItem(plan="quick")), queue="align")
    await client.ask(ControlRun(action="stop"))
    await until(lambda: runs(client, "align", second))
    assert (await status_of(client, "align")).waits_for == ""
    await client.ask(ControlRun(action="abort", item_id=second.item_id))
    await client.until_ended(2)


async def test_an_item_waits_for_what_its_device_moves_and_not_for_what_it_looks_at(
    server: ScanServer, client: Client
) -> None:
    await client.until_status(run_state="idle")
    for name, methods, refers_to in (
        ("theta", ["read", "set"], []),
        ("hkl", ["read", "set"], ["theta"]),
        ("det", ["read", "trigger"], ["theta"]),
    ):
        info = DeviceInfo(name=name, path=name, server="main", state="connected", methods=methods, refers_to=refers_to)
        server.devices.take(info)
    first = await add(client, "", "wait", "theta", start=True)
    await until(lambda: runs(client, "", first))
    looks = await add(client, "align", "quick", "det")
    moves = await add(client, "align", "quick", "hkl")
    assert (looks.properties["devices"], moves.properties["devices"]) == (["det"], ["hkl", "theta"])
    await client.ask(StartQueue(), queue="align")
    assert [item.item_id for item in await client.until_ended(1)] == [looks.item_id]
    assert (await status_of(client, "align")).waits_for.startswith("theta is held by wait (item ")
    await client.ask(ControlRun(action="stop"))
    assert (await client.until_ended(3))[0].item_id == moves.item_id


async def test_a_panic_stop_ends_what_runs_and_what_waits_for_its_devices_does_not_begin(
    server: ScanServer, client: Client
) -> None:
    await client.until_status(run_state="idle")
    first = await add(client, "align", "wait", "x", start=True)
    await until(lambda: runs(client, "align", first))
    await client.ask(SetQueueMode(autostart=True))
    await add(client, "", "wait", "x")
    await client.until_status(queue_state="running", running=None)
    await client.ask(ControlRun(action="abort", reason="panic stop", all_queues=True))
    (done,) = await client.until_ended(1)
    assert done.result is not None
    assert (done.item_id, done.result.exit_status) == (first.item_id, "aborted")
    status = await client.status()
    assert (status.queue_state, status.running, status.waiting, status.autostart) == ("stopped", None, 1, False)


async def test_an_abort_without_a_name_ends_what_runs_in_whatever_queue(server: ScanServer, client: Client) -> None:
    await client.until_status(run_state="idle")
    first = await add(client, "align", "wait", "x", start=True)
    await until(lambda: runs(client, "align", first))
    await client.ask(ControlRun(action="abort"))
    await client.until_ended(1)
    with pytest.raises(RefusedError, match="Nothing runs"):
        await client.ask(ControlRun(action="abort"))


async def test_an_item_is_found_by_its_id_in_whatever_queue_it_is(server: ScanServer, client: Client) -> None:
    await client.until_status(run_state="idle")
    first, second, third = [await add(client, "align", "quick", "x") for _ in range(3)]
    await client.ask(MoveItems(item_ids=[third.item_id], position=0))
    await client.ask(RemoveItem(item_id=first.item_id))
    await client.ask(AddItem(plan="brief", before=second.item_id))
    align: Queue = await client.ask(GetQueue(), queue="align")
    assert [item.plan for item in align.waiting] == ["quick", "brief", "quick"]
    assert align.waiting[0].item_id == third.item_id
    assert (await client.queue()).waiting == []


async def test_a_queue_that_nobody_declared_is_refused_with_the_choices(server: ScanServer, client: Client) -> None:
    with pytest.raises(RefusedError, match=r"No queue 'algin'.*align") as refused:
        await client.ask(AddItem(plan="quick"), queue="algin")
    assert refused.value.code == "unknown_queue"


async def test_a_worker_that_dies_takes_only_its_own_item_along(server: ScanServer, client: Client) -> None:
    await client.until_status(run_state="idle")
    first = await add(client, "", "wait", "x", start=True)
    await until(lambda: runs(client, "", first))
    victim = server.pool.running_pid
    second = await add(client, "align", "wait", "y")
    after = await add(client, "align", "quick", "x")
    await client.ask(StartQueue(), queue="align")
    await until(lambda: runs(client, "align", second))
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    (lost,) = await client.until_ended(1)
    assert (lost.item_id, lost.result and lost.result.exit_status) == (first.item_id, "failed")
    assert await runs(client, "align", second)
    await client.ask(ControlRun(action="stop", item_id=second.item_id))
    done = await client.until_ended(3)
    assert done[0].item_id == after.item_id


async def test_every_queue_survives_a_kill_and_one_that_is_declared_no_more_keeps_its_items(
    settings: Settings, client: Client
) -> None:
    async with process(settings, queues=("align",)) as first:
        running = await add(client, "", "wait", "x")
        beside = await add(client, "align", "wait", "y")
        waiting = await add(client, "align", "quick", "y")
        for queue in ("", "align"):
            await client.ask(StartQueue(), queue=queue)
        await until(lambda: runs(client, "align", beside))
        first.kill()
        await first.wait()
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False, queues=())):
        main = (await client.queue()).waiting
        align: Queue = await client.ask(GetQueue(), queue="align")
        assert [(item.item_id, item.state) for item in main] == [(running.item_id, "held")]
        assert [(item.item_id, item.state) for item in align.waiting] == [
            (beside.item_id, "held"),
            (waiting.item_id, "waiting"),
        ]
        for item in (beside, waiting):
            await client.ask(RemoveItem(item_id=item.item_id))
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False, queues=())):
        assert (await client.status()).queues == ["main"]


async def test_queues_that_share_devices_finish_all_their_items(server: ScanServer, client: Client) -> None:
    await client.until_status(run_state="idle")
    for number in range(12):
        await add(client, "", "brief", "x" if number % 2 else "both")
        await add(client, "align", "brief", "y" if number % 3 else "both")
    await client.ask(StartQueue())
    await client.ask(StartQueue(), queue="align")
    done = await client.until_ended(24)
    spans = [
        (item.result.time_start, item.result.time_stop, set(item.properties["devices"]))
        for item in done
        if item.result is not None and item.result.exit_status == "completed"
    ]
    assert len(spans) == 24
    for begin, end, devices in spans:
        at_once = [other for other in spans if other[0] < end and begin < other[1]]
        assert [devices & each[2] for each in at_once if each[2] & devices] == [devices], "a device was used twice"
