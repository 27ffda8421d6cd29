"""Requests end to end: a real Redis, the real manager, a scripted peer in the worker's place."""

import asyncio
import sys
import time
import uuid

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, PLANS, REPLIES, REQUESTS, SCAN_STATUS
from bec_bluesky.errors import BadArgumentError, RefusedError, UnknownItemError, UnknownPlanError
from bec_bluesky.messages import pack
from bec_bluesky.messages.queue import (
    AddItem,
    ClearQueue,
    ControlRun,
    GetStatus,
    ItemAccepted,
    ReleaseItem,
    RemoveItem,
    Request,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, serving, until


async def test_an_added_item_waits_and_a_started_queue_runs_it(server: ScanServer, client: Client, bus: Bus) -> None:
    accepted: ItemAccepted = await client.ask(AddItem(plan="quick", title="first", metadata={"sample": "CuO"}))
    assert (accepted.item.user, accepted.item.title, accepted.position, accepted.warnings) == ("ann", "first", 0, [])
    assert accepted.item.properties == {"devices": ["x"], "points": 5}
    status = await client.status()
    assert (status.queue_state, status.waiting, status.running) == ("stopped", 1, None)
    await client.ask(StartQueue())
    (done,) = await client.until_ended(1)
    assert done.item_id == accepted.item.item_id
    assert done.result is not None
    assert (done.result.exit_status, len(done.result.run_uids), done.metadata) == ("completed", 1, {"sample": "CuO"})
    status = await client.until_status(run_state="idle", queue_state="stopped")
    await until(lambda: _announced(bus, status.revision))


async def _announced(bus: Bus, revision: int) -> bool:
    latest = await bus.get(SCAN_STATUS)
    return latest is not None and latest.revision == revision and latest.running is None


async def test_items_run_in_their_order_and_the_queue_stops_when_it_is_empty(
    server: ScanServer, client: Client
) -> None:
    for position, title in ((None, "b"), (None, "c"), (0, "a")):
        await client.ask(AddItem(plan="quick", title=title, position=position))
    await client.ask(StartQueue())
    done = await client.until_ended(3)
    assert [item.title for item in reversed(done)] == ["a", "b", "c"]
    await client.until_status(queue_state="stopped", waiting=0)


async def test_an_item_may_start_the_queue(server: ScanServer, client: Client) -> None:
    accepted: ItemAccepted = await client.ask(AddItem(plan="quick", start=True))
    assert [item.item_id for item in await client.until_ended(1)] == [accepted.item.item_id]


@pytest.mark.parametrize(
    ("asked", "error", "code", "text"),
    [
        (AddItem(plan="quikc"), UnknownPlanError, "unknown_plan", "No plan 'quikc': did you mean 'quick'"),
        (
            AddItem(plan="quick", args=[1]),
            BadArgumentError,
            "bad_argument",
            "quick: 1 positional arguments are too many",
        ),
        (AddItem(plan="quick", kwargs={"nota": 1}), BadArgumentError, "bad_argument", "did you mean 'note'"),
        (AddItem(plan="quick", metadata={"uid": "x"}), BadArgumentError, "bad_argument", "may not contain uid"),
        (AddItem(plan="far"), BadArgumentError, "bad_argument", "far: point 3 moves x to 99, beyond 10"),
        (AddItem(plan="quick", kwargs={"note": "x" * 5_000_000}), RefusedError, "too_large", "the limit is"),
        (RemoveItem(item_id="nope"), UnknownItemError, "unknown_item", "No item 'nope' waits"),
        (ReleaseItem(item_id="nope"), UnknownItemError, "unknown_item", "No item 'nope' waits"),
        (StartQueue(), RefusedError, "queue_empty", "The queue is empty"),
        (ControlRun(action="abort"), RefusedError, "nothing_runs", "there is nothing to abort"),
        (ControlRun(action="pause_now"), RefusedError, "nothing_runs", "there is nothing to pause"),
    ],
)
async def test_a_refusal_is_one_sentence_with_a_stable_code_and_queues_nothing(
    server: ScanServer, client: Client, asked: object, error: type[RefusedError], code: str, text: str
) -> None:
    with pytest.raises(error) as refused:
        await client.ask(asked)  # pyright: ignore[reportArgumentType]
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.code == code
    status = await client.status()
    assert (status.waiting, status.history, status.revision) == (0, 0, 0)


async def test_a_failed_item_stops_the_queue_and_stays_in_the_history(server: ScanServer, client: Client) -> None:
    await client.ask(AddItem(plan="wait"))
    await client.ask(AddItem(plan="quick"))
    await client.ask(StartQueue())
    await client.until_status(run_state="running")
    await client.ask(ControlRun(action="abort", reason="wrong sample"))
    (done,) = await client.until_ended(1)
    assert done.result is not None
    assert done.result.exit_status == "aborted"
    status = await client.until_status(queue_state="stopped")
    assert status.waiting == 1


async def test_a_run_is_paused_resumed_and_stopped_and_the_queue_goes_on(server: ScanServer, client: Client) -> None:
    await client.ask(AddItem(plan="wait"))
    await client.ask(AddItem(plan="quick"))
    await client.ask(StartQueue())
    status = await client.until_status(run_state="running")
    assert status.running is not None
    status = await client.until_status(scan_id=1)
    assert status.progress is not None
    assert (status.progress.points, status.progress.expected) == (2, 5)
    with pytest.raises(RefusedError, match="not paused"):
        await client.ask(ControlRun(action="resume"))
    await client.ask(ControlRun(action="pause"))
    await client.until_status(run_state="paused")
    await client.ask(ControlRun(action="resume"))
    await client.until_status(run_state="running")
    await client.ask(ControlRun(action="stop"))
    done = await client.until_ended(2)
    assert [item.result.exit_status for item in reversed(done) if item.result] == ["stopped", "completed"]


async def test_the_queue_stops_after_the_running_item_when_it_is_asked_to(server: ScanServer, client: Client) -> None:
    await client.ask(AddItem(plan="wait"))
    await client.ask(AddItem(plan="quick"))
    await client.ask(StartQueue())
    await client.until_status(run_state="running")
    assert (await client.ask(StopQueue())).queue_state == "stopping"
    assert (await client.ask(StopQueue(cancel=True))).queue_state == "running"
    await client.ask(StopQueue())
    accepted: ItemAccepted = await client.ask(AddItem(plan="quick", start=True))
    assert any("as somebody asked" in warning for warning in accepted.warnings)
    await client.ask(ControlRun(action="stop"))
    status = await client.until_status(queue_state="stopped", history=1)
    assert status.waiting == 2


async def test_waiting_items_can_be_removed_and_the_running_one_cannot(server: ScanServer, client: Client) -> None:
    running: ItemAccepted = await client.ask(AddItem(plan="wait", start=True))
    waiting: ItemAccepted = await client.ask(AddItem(plan="quick"))
    await client.until_status(run_state="running")
    with pytest.raises(RefusedError, match="is running: abort it") as refused:
        await client.ask(RemoveItem(item_id=running.item.item_id))
    assert refused.value.code == "item_running"
    assert (await client.ask(RemoveItem(item_id=waiting.item.item_id))).item_id == waiting.item.item_id
    await client.ask(AddItem(plan="quick"))
    assert (await client.ask(ClearQueue())).waiting == 0
    assert (await client.queue()).running.item_id == running.item.item_id  # pyright: ignore[reportOptionalMemberAccess]
    await client.ask(ControlRun(action="halt"))


async def test_status_is_answered_while_an_item_waits_for_its_check(server: ScanServer, client: Client) -> None:
    adding = asyncio.create_task(client.ask(AddItem(plan="slow_check"), timeout=2.0))
    await asyncio.sleep(0)
    await client.status()
    assert not adding.done()
    accepted: ItemAccepted = await adding
    assert "before it runs" in accepted.warnings[0]
    assert accepted.item.properties == {"unchecked": True}


async def test_an_item_accepted_while_the_only_worker_is_busy_is_checked_before_it_runs(
    server: ScanServer, client: Client
) -> None:
    await client.ask(AddItem(plan="wait", start=True))
    await client.until_status(run_state="running")
    accepted: ItemAccepted = await client.ask(AddItem(plan="far"))
    assert accepted.warnings == [
        "no worker could check it against the devices' limits yet: that is done before it runs"
    ]
    await client.ask(ControlRun(action="stop"))
    far, waited = await client.until_ended(2)
    assert waited.result is not None
    assert far.result is not None
    assert (far.result.exit_status, far.result.run_uids) == ("failed", [])
    assert far.result.reason == "not started: far: point 3 moves x to 99, beyond 10"


async def put(bus: Bus, data: bytes) -> None:
    await bus.redis.xadd(bus.key(REQUESTS), {"m": data})


async def test_malformed_requests_are_answered_if_possible_alarmed_and_do_no_harm(
    server: ScanServer, client: Client, bus: Bus
) -> None:
    for data in (b"", b"\xc1", pack(["not", "ours"]), b"\x91" * 100_000, pack({"type": "request", "reply_to": 3})):
        await put(bus, data)
    await bus.redis.xadd(bus.key(REQUESTS), {"other": b"field"})
    await put(bus, pack({"type": "request", "request_id": "r1", "reply_to": "me", "body": {"type": "add_itme"}}))
    await put(bus, pack({"type": "request", "request_id": "r2", "reply_to": "no such key!"}))
    status = await client.status()
    assert status.revision == 0
    (_, reply), *rest = await bus.read(REPLIES, client="me")
    assert rest == []
    assert (reply.request_id, reply.failure.code) == ("r1", "malformed_request")
    assert len(await bus.read(ALARMS)) == 8


async def test_a_request_is_carried_out_once_and_never_after_its_deadline(
    server: ScanServer, client: Client, bus: Bus
) -> None:
    def adding(deadline: float) -> Request:
        return Request(
            request_id=uuid.uuid4().hex, reply_to="me", deadline=deadline, user="bob", body=AddItem(plan="quick")
        )

    once = adding(time.time() + 10)
    await bus.append(REQUESTS, once)
    await bus.append(REQUESTS, once)
    await client.until_status(waiting=1)
    await bus.append(REQUESTS, once)
    await bus.append(REQUESTS, adding(time.time() - 0.1))
    await bus.append(REQUESTS, adding(time.time() + 10))
    await client.until_status(waiting=2)
    replies = [reply for _, reply in await bus.read(REPLIES, client="me")]
    assert {reply.body.item.item_id for reply in replies if reply.request_id == once.request_id} == {
        (await client.queue()).waiting[0].item_id
    }


async def test_requests_of_one_client_are_carried_out_in_their_order(
    server: ScanServer, client: Client, bus: Bus
) -> None:
    adding = [asyncio.create_task(client.ask(AddItem(plan="quick", title=str(n)))) for n in range(30)]
    clearing = asyncio.create_task(client.ask(ClearQueue()))
    last = asyncio.create_task(client.ask(AddItem(plan="quick", title="last")))
    await asyncio.gather(*adding, clearing, last)
    assert [item.title for item in (await client.queue()).waiting] == ["last"]


async def test_plans_are_known_from_redis_before_any_worker_is_up(settings: Settings, bus: Bus, client: Client) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        await client.ask(AddItem(plan="quick"))
    assert "quick" in await bus.fields(PLANS)
    never = (sys.executable, "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[2])).recv(1)")
    async with serving(ScanServer(settings, worker_command=never, has_spare=False, patience=IMPATIENT)):
        with pytest.raises(UnknownPlanError):
            await client.ask(AddItem(plan="slow"))
        accepted: ItemAccepted = await client.ask(AddItem(plan="quick"))
        assert "before it runs" in accepted.warnings[0]
        status = await client.status()
        assert (status.waiting, status.run_state) == (2, "starting")


async def test_requests_put_before_the_scan_server_was_there_are_answered(settings: Settings, client: Client) -> None:
    asking = asyncio.create_task(client.ask(GetStatus()))
    await asyncio.sleep(0)
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        assert (await asking).waiting == 0
