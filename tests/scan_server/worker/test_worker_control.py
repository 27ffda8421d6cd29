"""Acting on a running plan, whatever it is doing; and what becomes of it when somebody dies."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bec_bluesky import embedded
from bec_bluesky.bus import Bus
from bec_bluesky.messages.products import RunClosed
from bec_bluesky.messages.worker import (
    Ping,
    Pong,
    RunStarted,
    RunState,
    Shutdown,
    WorkerItemDone,
    WorkerProgress,
    WorkerReady,
)
from bec_bluesky.scan_server.worker import close_lost_run
from bec_bluesky.testing import settings_in
from tests.scan_server.worker.worker_bench import (
    Worker,
    announced,
    documents,
    eventually,
    make_profile,
    running_worker,
    set_epoch,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _moving(worker: Worker) -> str:
    """Run the long move, whose clean-up puts x to 42; gives the item's id once the motor is on its way."""
    await worker.done(await worker.run("put_x", 0))
    item_id = await worker.run("long_move")
    await worker.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
    return item_id


async def _x(worker: Worker) -> float:
    return (await worker.done(await worker.run("where_is_x"))).value


async def _stop_document(bus: Bus, done: WorkerItemDone) -> dict[str, object]:
    name, document = (await documents(bus, done.result.run_uids[0]))[-1]
    assert name == "stop"
    return document


async def test_abort_during_a_long_move_stops_the_motor_and_lets_the_plan_clean_up(
    worker: Worker, shared_bus: Bus
) -> None:
    item_id = await _moving(worker)
    await worker.control("abort", "the wrong sample")
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.reason) == ("aborted", "the wrong sample")
    stop = await _stop_document(shared_bus, done)
    assert (stop["exit_status"], stop["reason"]) == ("abort", "the wrong sample")
    assert await _x(worker) == 42


async def test_stop_during_a_long_move_ends_the_run_well(worker: Worker, shared_bus: Bus) -> None:
    item_id = await _moving(worker)
    await worker.control("stop")
    done = await worker.done(item_id)
    assert done.result.exit_status == "stopped"
    assert (await _stop_document(shared_bus, done))["exit_status"] == "success"
    assert await _x(worker) == 42


async def test_halt_during_a_long_move_skips_the_clean_up(worker: Worker, shared_bus: Bus) -> None:
    item_id = await _moving(worker)
    await worker.control("halt")
    done = await worker.done(item_id)
    assert done.result.exit_status == "halted"
    assert (await _stop_document(shared_bus, done))["exit_status"] == "abort"
    assert await _x(worker) == 0


async def test_pause_now_stops_the_motor_and_resume_moves_on(worker: Worker) -> None:
    item_id = await worker.run("long_move", 0.5)
    await worker.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
    await worker.control("pause_now")
    await worker.state("paused")
    await worker.control("resume")
    done = await worker.done(item_id)
    assert done.result.exit_status == "completed"
    states = [message.state for message in worker.heard if isinstance(message, RunState)]
    assert states == ["running", "pausing", "paused", "running", "idle"]


async def test_a_deferred_pause_waits_for_the_checkpoint_and_nothing_is_taken_twice(
    worker: Worker, shared_bus: Bus
) -> None:
    item_id = await worker.run("long_count", num=50, delay=0.02)
    await worker.wait(WorkerProgress, lambda message: message.progress.points >= 2)
    await worker.control("pause")
    await worker.state("paused")
    await worker.control("resume")
    done = await worker.done(item_id)
    assert done.result.exit_status == "completed"
    numbers = [d["seq_num"] for name, d in await documents(shared_bus, done.result.run_uids[0]) if name == "event"]
    assert numbers == list(range(1, 51))


async def test_each_end_is_possible_from_a_pause(worker: Worker, shared_bus: Bus) -> None:
    seen: set[str] = set()
    for action, exit_status, in_document in (
        ("stop", "stopped", "success"),
        ("abort", "aborted", "abort"),
        ("halt", "halted", "abort"),
    ):
        item_id = await worker.run("long_move")
        await worker.wait(RunStarted, lambda message: message.run_uid not in seen)
        await worker.control("pause_now")
        await worker.state("paused")
        await worker.control(action, "enough")
        done = await worker.done(item_id)
        assert (done.result.exit_status, done.result.reason) == (exit_status, "enough")
        assert (await _stop_document(shared_bus, done))["exit_status"] == in_document
        seen.update(done.result.run_uids)


async def test_a_pause_where_none_is_allowed_aborts_and_says_so(worker: Worker) -> None:
    item_id = await worker.run("no_checkpoint")
    await worker.state("running")
    await worker.send(Ping(number=1))
    await worker.wait(Pong)
    await worker.control("pause_now")
    done = await worker.done(item_id)
    assert done.result.exit_status == "aborted"
    assert "allows no pause" in done.result.reason


async def test_halt_ends_a_clean_up_that_takes_for_ever(worker: Worker) -> None:
    item_id = await worker.run("stubborn_clean_up")
    await worker.state("running")
    await worker.control("abort")
    await worker.state("aborting")
    await worker.control("abort")  # once more does not cut the clean-up short
    await worker.send(Ping(number=1))
    await worker.wait(Pong)
    assert not [message for message in worker.heard if isinstance(message, WorkerItemDone)]
    await worker.control("halt")
    done = await worker.done(item_id)
    assert done.result.exit_status == "halted"


async def test_an_end_that_comes_with_the_item_is_not_lost(worker: Worker) -> None:
    item_id = await worker.run("long_count", num=100_000)
    await worker.control("abort", "changed my mind")
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.reason) == ("aborted", "changed my mind")


async def test_actions_on_an_idle_worker_do_nothing(worker: Worker) -> None:
    for _ in range(20):
        for action in ("pause", "pause_now", "resume", "stop", "abort", "halt"):
            await worker.control(action)
        assert (await worker.done(await worker.run("sim_scan"))).result.exit_status == "completed"


async def test_an_end_at_any_moment_of_a_short_plan_is_clean(worker: Worker, shared_bus: Bus) -> None:
    for step in range(30):
        item_id = await worker.run("sim_scan")
        await asyncio.sleep(step * 0.0005)  # where in the plan it comes is the point
        await worker.control("abort", "no more")
        done = await worker.done(item_id)
        if done.result.exit_status != "completed":
            assert (done.result.exit_status, done.result.reason) == ("aborted", "no more")
        for uid in done.result.run_uids:
            run = await documents(shared_bus, uid)
            assert [name for name, _ in run][:: len(run) - 1] == ["start", "stop"]


async def test_a_worker_whose_scan_server_died_closes_its_run_and_exits(own_worker: Worker, own_bus: Bus) -> None:
    await _moving(own_worker)
    uid = (await own_worker.wait(RunStarted)).run_uid
    own_worker.hang_up()
    assert await own_worker.exit_code() == 0
    run = await documents(own_bus, uid)
    assert (run[-1][0], run[-1][1]["exit_status"]) == ("stop", "abort")
    assert run[-1][1]["reason"] == "the scan server is gone"
    assert isinstance((await announced(own_bus))[-1], RunClosed)


async def test_sigterm_and_shutdown_abort_what_runs_and_sigint_is_ignored(own_worker: Worker, own_bus: Bus) -> None:
    item_id = await _moving(own_worker)
    own_worker.process.send_signal(signal.SIGINT)
    await own_worker.send(Ping(number=1))
    await own_worker.wait(Pong)
    own_worker.process.send_signal(signal.SIGTERM)
    done = await own_worker.done(item_id)
    assert done.result.exit_status == "aborted"
    assert await own_worker.exit_code() == 0
    assert (await _stop_document(own_bus, done))["exit_status"] == "abort"


async def test_an_idle_worker_exits_when_it_is_told(own_worker: Worker) -> None:
    await own_worker.send(Shutdown())
    assert await own_worker.exit_code() == 0


async def test_a_lost_run_is_closed_once_by_the_successor(own_worker: Worker, own_bus: Bus) -> None:
    await set_epoch(own_bus, 1)
    await own_worker.run("die", token=1)
    uid = (await own_worker.wait(RunStarted)).run_uid

    async def has_events() -> bool:
        return len(await documents(own_bus, uid)) == 22

    await eventually(has_events)
    own_worker.process.kill()
    await own_worker.process.wait()
    assert await close_lost_run(own_bus, uid, "the worker process was killed", 1)
    run = await documents(own_bus, uid)
    stop = run[-1][1]
    assert [name for name, _ in run] == ["start", "descriptor"] + ["event"] * 20 + ["stop"]
    assert (stop["exit_status"], stop["reason"]) == ("fail", "the worker process was killed")
    assert stop["num_events"] == {"primary": 20}
    assert stop["run_start"] == uid
    assert not await close_lost_run(own_bus, uid, "again", 1)
    assert len(await documents(own_bus, uid)) == 23
    closed = [message for message in await announced(own_bus) if isinstance(message, RunClosed)]
    assert [(message.run_uid, message.documents) for message in closed] == [(uid, 23)]


async def test_a_worker_of_a_replaced_scan_server_may_write_no_more(own_worker: Worker, own_bus: Bus) -> None:
    await set_epoch(own_bus, 1)
    await own_worker.run("long_count", num=100_000, token=1)
    uid = (await own_worker.wait(RunStarted)).run_uid

    async def has_begun() -> bool:
        return len(await documents(own_bus, uid)) > 5

    await eventually(has_begun)
    await set_epoch(own_bus, 2)
    assert await own_worker.exit_code() == 0
    names = [name for name, _ in await documents(own_bus, uid)]
    assert names[-1] == "event"
    assert await close_lost_run(own_bus, uid, "another scan server took over", 2)
    assert (await documents(own_bus, uid))[-1][0] == "stop"


async def test_a_plan_outlives_its_redis_and_no_document_is_lost(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data", profile=make_profile(tmp_path / "profile"))
    server = embedded.find_or_start(settings, with_parent=True)
    try:
        async with running_worker(settings) as worker:
            await worker.wait(WorkerReady)
            item_id = await worker.run("long_count", num=150, delay=0.01)
            await worker.wait(WorkerProgress, lambda message: message.progress.points >= 5)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, server.pid, 0)
            await worker.wait(WorkerProgress, lambda message: message.progress.points >= 50)
            server = await asyncio.to_thread(embedded.find_or_start, settings)
            done = await worker.done(item_id)
            assert (done.result.exit_status, done.result.reason) == ("completed", "")
            async with Bus(server.url, settings.beamline) as bus:
                run = await documents(bus, done.result.run_uids[0])
                assert [d["seq_num"] for name, d in run if name == "event"] == list(range(1, 151))
                assert run[-1][0] == "stop"
            again = await worker.done(await worker.run("sim_scan"))
            assert again.result.exit_status == "completed"
    finally:
        embedded.stop(settings)
