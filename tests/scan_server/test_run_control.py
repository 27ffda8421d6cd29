"""Acting on what runs, through the queue: on the item that is meant, whatever it does, and what the queue does then."""

import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.queue import AddItem, ControlRun, ItemAccepted, ItemResult, QueueItem, RunAction, SetQueueMode
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._queue import QueueState, step
from bec_bluesky.scan_server._queue_events import Ended
from tests.scan_server.scan_server_harness import Client, until


async def test_skip_goes_on_with_the_next_item_and_autostart_stays(server: ScanServer, client: Client) -> None:
    await client.ask(SetQueueMode(autostart=True))
    first: ItemAccepted = await client.ask(AddItem(plan="wait"))
    second: ItemAccepted = await client.ask(AddItem(plan="wait"))
    await client.until_status(run_state="running", running=await _running(client, first.item.item_id))
    await client.ask(ControlRun(action="skip", item_id=first.item.item_id))
    (skipped,) = await client.until_ended(1)
    assert skipped.result is not None
    assert skipped.result.exit_status == "stopped"
    status = await client.until_status(running=await _running(client, second.item.item_id))
    assert (status.queue_state, status.autostart) == ("running", True)


async def test_an_action_that_names_another_item_leaves_the_running_one_alone(
    server: ScanServer, client: Client
) -> None:
    running: ItemAccepted = await client.ask(AddItem(plan="wait", start=True))
    waiting: ItemAccepted = await client.ask(AddItem(plan="quick"))
    await client.until_status(run_state="running", running=await _running(client, running.item.item_id))
    for action in _ACTIONS:
        with pytest.raises(RefusedError, match="does not run") as refused:
            await client.ask(ControlRun(action=action, item_id=waiting.item.item_id))
        assert refused.value.code == "other_item_runs"
    assert (await client.status()).run_state == "running"
    await client.ask(ControlRun(action="abort", item_id=running.item.item_id))
    (ended,) = await client.until_ended(1)
    assert ended.result is not None
    assert ended.result.exit_status == "aborted"


async def test_what_is_asked_before_a_worker_has_begun_the_item_is_not_lost(server: ScanServer, client: Client) -> None:
    """An item that no worker was free to check is checked before it runs; its check takes a while."""
    first: ItemAccepted = await client.ask(AddItem(plan="wait", start=True))
    await client.until_status(run_state="running", running=await _running(client, first.item.item_id))
    second: ItemAccepted = await client.ask(AddItem(plan="late_check"))
    third: ItemAccepted = await client.ask(AddItem(plan="late_check"))
    await client.ask(ControlRun(action="skip"))
    await _running(client, second.item.item_id)
    await client.ask(ControlRun(action="pause", item_id=second.item.item_id))
    await client.until_status(run_state="paused")
    await client.ask(ControlRun(action="skip", item_id=second.item.item_id))
    await _running(client, third.item.item_id)
    await client.ask(ControlRun(action="finish", item_id=third.item.item_id))
    ended = await client.until_ended(3)
    results = [item.result for item in ended if item.result is not None]
    assert [(each.exit_status, each.ended_by) for each in results] == [
        ("completed", "finish"),
        ("stopped", "skip"),
        ("stopped", "skip"),
    ]


@pytest.mark.parametrize(("ended_by", "autostart"), [("skip", True), ("stop", False)])
def test_skipping_says_nothing_against_the_queue(ended_by: str, autostart: bool) -> None:
    first, second = (QueueItem(item_id=name, plan="count", state="running") for name in "ab")
    state = QueueState(waiting=(second,), running=first, mode="running", has_worker=True, autostart=True)
    result = ItemResult(exit_status="stopped", ended_by=ended_by)  # pyright: ignore[reportArgumentType]
    after, _ = step(state, Ended("a", result))
    assert (after.mode, after.autostart) == ("running", autostart)
    assert after.running is not None
    assert after.running.item_id == "b"


_ACTIONS: tuple[RunAction, ...] = ("pause", "pause_now", "finish", "skip", "stop", "abort", "halt")


async def _running(client: Client, item_id: str) -> QueueItem:
    """Wait until an item runs; give it."""

    async def it_runs() -> bool:
        running = (await client.queue()).running
        return running is not None and running.item_id == item_id

    await until(it_runs)
    running = (await client.queue()).running
    assert running is not None
    return running
