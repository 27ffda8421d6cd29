"""Ending a plan early without spoiling what it took: finish and skip, in whatever state it is."""

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.messages.worker import RunStarted, WorkerItemDone, WorkerProgress
from tests.scan_server.worker.worker_bench import Worker, documents

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _run_of(bus: Bus, done: WorkerItemDone) -> tuple[list[int], dict[str, object]]:
    """Give the numbers of the events of its one run, and the stop document."""
    (uid,) = done.result.run_uids
    found = await documents(bus, uid)
    assert found[-1][0] == "stop"
    return [document["seq_num"] for name, document in found if name == "event"], found[-1][1]


async def test_finish_closes_the_run_after_the_point_and_the_plan_goes_back(worker: Worker, shared_bus: Bus) -> None:
    await worker.done(await worker.run("put_x", 5))
    item_id = await worker.run("relative_scan")
    await worker.wait(WorkerProgress, lambda message: message.progress.points >= 3)
    await worker.control("finish", "finished early, asked by ann: enough")
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.ended_by) == ("completed", "finish")
    assert done.result.reason == "finished early, asked by ann: enough"
    numbers, stop = await _run_of(shared_bus, done)
    assert numbers == list(range(1, len(numbers) + 1))
    assert 3 <= len(numbers) < 1000
    assert (stop["exit_status"], stop["reason"]) == ("success", done.result.reason)
    assert stop["num_events"] == {"primary": len(numbers)}
    assert (await worker.done(await worker.run("where_is_x"))).value == pytest.approx(5)


async def test_finish_does_not_wait_for_a_pause_between_two_points(worker: Worker, shared_bus: Bus) -> None:
    item_id = await worker.run("wait_between_points")
    await worker.wait(WorkerProgress, lambda message: message.progress.points >= 1)
    await worker.control("finish", "finished early")
    done = await worker.done(item_id)
    numbers, stop = await _run_of(shared_bus, done)
    assert (done.result.exit_status, numbers, stop["exit_status"]) == ("completed", [1], "success")


@pytest.mark.parametrize(("pause", "action"), [("pause", "finish"), ("pause_now", "finish"), ("pause_now", "skip")])
async def test_a_paused_plan_can_be_ended_early(worker: Worker, shared_bus: Bus, pause: str, action: str) -> None:
    item_id = await worker.run("long_count")
    await worker.wait(WorkerProgress, lambda message: message.progress.points >= 2)
    await worker.control(pause)
    await worker.state("paused")
    await worker.control(action, f"{action}, asked by ann")
    done = await worker.done(item_id)
    expected = {"finish": "completed", "skip": "stopped"}[action]
    assert (done.result.exit_status, done.result.ended_by) == (expected, action)
    _, stop = await _run_of(shared_bus, done)
    assert (stop["exit_status"], stop["reason"]) == ("success", f"{action}, asked by ann")


async def test_skip_ends_a_plan_in_the_middle_of_a_move_and_it_cleans_up(worker: Worker, shared_bus: Bus) -> None:
    await worker.done(await worker.run("put_x", 0))
    item_id = await worker.run("long_move")
    await worker.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
    await worker.control("finish", "finished early")  # there is no point in it: it would move on to its end
    await worker.control("skip", "skipped, asked by ann")
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.reason, done.result.ended_by) == (
        "stopped",
        "skipped, asked by ann",
        "skip",
    )
    _, stop = await _run_of(shared_bus, done)
    assert (stop["exit_status"], stop["reason"]) == ("success", "skipped, asked by ann")
    assert (await worker.done(await worker.run("where_is_x"))).value == 42


async def test_abort_overrules_a_finish_that_waits_for_its_point(worker: Worker) -> None:
    item_id = await worker.run("long_move")
    await worker.wait(RunStarted)
    await worker.control("finish")
    await worker.control("abort", "the wrong sample")
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.ended_by) == ("aborted", "abort")


async def test_a_plan_that_is_over_before_its_finish_completed_by_itself(worker: Worker) -> None:
    for _ in range(20):
        item_id = await worker.run("where_is_x")
        await worker.control("finish", "finished early")
        done = await worker.done(item_id)
        assert done.result.exit_status == "completed"
        assert bool(done.result.reason) == (done.result.ended_by == "finish")
    assert (await worker.done(await worker.run("sim_scan"))).result.ended_by == ""
