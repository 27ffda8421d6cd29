"""The worker process runs items: documents, results, announcements."""

from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SCAN_ID
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.messages.worker import Ping, Pong, RunStarted, RunStopped, WorkerProgress, WorkerReady
from tests.scan_server.worker.worker_bench import Worker, announced, documents

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_run_is_on_redis_with_its_announcements_when_the_item_is_done(worker: Worker, shared_bus: Bus) -> None:
    item_id = await worker.run("sim_scan", num=7, metadata={"sample": "CuO"})
    done = await worker.done(item_id)
    assert (done.result.exit_status, done.result.reason) == ("completed", "")
    [uid] = done.result.run_uids
    assert done.value == uid
    names_and_documents = await documents(shared_bus, uid)
    names = [name for name, _ in names_and_documents]
    assert names == ["start", "descriptor"] + ["event"] * 7 + ["stop"]
    start, stop = names_and_documents[0][1], names_and_documents[-1][1]
    assert start["sample"] == "CuO"
    assert start["facility"] == "the test bench"
    assert start["plan_name"] == "scan"
    assert start["item_id"] == item_id
    assert {"bluesky", "bec_bluesky", "ophyd"} <= start["versions"].keys()
    assert stop["num_events"] == {"primary": 7}
    opened, closed = await announced(shared_bus)
    assert isinstance(opened, RunOpened)
    assert (opened.run_uid, opened.scan_id, opened.item_id, opened.user) == (uid, start["scan_id"], item_id, "eve")
    assert isinstance(closed, RunClosed)
    assert (closed.run_uid, closed.exit_status, closed.documents) == (uid, "success", len(names))


async def test_the_scan_server_hears_of_the_run_before_the_item_is_done(worker: Worker) -> None:
    item_id = await worker.run("sim_scan", num=7)
    done = await worker.done(item_id)
    started = await worker.wait(RunStarted)
    stopped = await worker.wait(RunStopped)
    assert (started.run_uid, started.expected) == (done.result.run_uids[0], 7)
    assert (stopped.run_uid, stopped.exit_status) == (started.run_uid, "success")
    order = [type(message) for message in worker.heard]
    assert order.index(RunStarted) < order.index(RunStopped) < order.index(type(done))


async def test_scan_numbers_go_on_from_what_is_stored(worker: Worker, shared_bus: Bus) -> None:
    await shared_bus.redis.set(shared_bus.key(SCAN_ID), 41)
    numbers = [(await worker.done(await worker.run("sim_scan"))).result.scan_ids for _ in range(2)]
    await shared_bus.redis.delete(shared_bus.key(SCAN_ID))
    numbers.append((await worker.done(await worker.run("sim_scan"))).result.scan_ids)
    assert numbers == [[42], [43], [44]]


async def test_each_of_nested_runs_has_its_own_numbering(worker: Worker, shared_bus: Bus) -> None:
    done = await worker.done(await worker.run("nested"))
    assert done.result.exit_status == "completed"
    assert len(done.result.run_uids) == 4
    outer, *inner = [await documents(shared_bus, uid) for uid in done.result.run_uids]
    assert [name for name, _ in outer] == ["start", "descriptor", "event", "event", "event", "stop"]
    assert outer[0][1]["purpose"] == "outer"
    for run in inner:
        assert [name for name, _ in run] == ["start", "descriptor", "event", "event", "stop"]
    order = [(type(message), message.run_uid) for message in await announced(shared_bus)]
    assert order[0] == (RunOpened, done.result.run_uids[0])
    assert order[-1] == (RunClosed, done.result.run_uids[0])


async def test_a_failed_plan_is_told_in_one_sentence_and_its_run_is_closed(worker: Worker, shared_bus: Bus) -> None:
    done = await worker.done(await worker.run("broken", 1))
    assert done.result.exit_status == "failed"
    assert done.result.reason.startswith("RuntimeError: the sample fell off (inner in 10-sim.py, line ")
    assert "\n" not in done.result.reason
    assert "the sample fell off" in done.result.traceback
    stop = (await documents(shared_bus, done.result.run_uids[0]))[-1][1]
    assert (stop["exit_status"], stop["reason"]) == ("fail", "the sample fell off")


async def test_the_cause_behind_a_failed_status_is_told(worker: Worker) -> None:
    done = await worker.done(await worker.run("refused_move"))
    assert done.result.exit_status == "failed"
    assert done.result.reason == "refusing: ValueError: the drive is disabled"
    assert "FailedStatus" in done.result.traceback


async def test_wrong_arguments_and_unknown_names_fail_the_item_with_what_is_there(worker: Worker) -> None:
    wrong = await worker.done(await worker.run("broken"))
    unknown = await worker.done(await worker.run("brokn", 1))
    no_device = await worker.done(await worker.run("count", ["no_such_detector"]))
    assert wrong.result.reason == "broken: missing a required argument: 'value'; it is broken(value)"
    assert unknown.result.reason == "No plan 'brokn': did you mean 'broken'?"
    assert no_device.result.reason.startswith("count, argument 'detectors': no device 'no_such_detector'")
    assert not wrong.result.run_uids + unknown.result.run_uids + no_device.result.run_uids


async def test_a_value_that_a_plan_returns_crosses(worker: Worker) -> None:
    await worker.done(await worker.run("put_x", 2.5))
    assert (await worker.done(await worker.run("where_is_x"))).value == 2.5


async def test_pings_are_answered_while_a_plan_runs(worker: Worker) -> None:
    item_id = await worker.run("sim_scan", num=200)
    for number in range(20):
        await worker.send(Ping(number=number))
        await worker.wait(Pong, lambda pong, number=number: pong.number == number)
    assert (await worker.done(item_id)).result.exit_status == "completed"


async def test_progress_counts_points_and_is_told_at_most_ten_times_a_second(worker: Worker) -> None:
    item_id = await worker.run("long_count", num=100, delay=0.01)
    done = await worker.done(item_id)
    told: list[Any] = [message for message in worker.heard if isinstance(message, WorkerProgress)]
    seconds = done.result.time_stop - done.result.time_start
    assert 5 <= len(told) <= 10 * seconds + 2
    points = [message.progress.points for message in told]
    assert points == sorted(points)
    assert 0 < points[-1] <= 100
    assert told[-1].progress.expected == 100


async def test_plans_of_the_profile_of_the_package_and_of_bluesky_are_offered(worker: Worker) -> None:
    ready = await worker.wait(WorkerReady)
    names = {plan.name for plan in ready.plans}
    assert {"count", "scan", "grid_scan", "mv", "sleep", "line_scan", "fly_scan", "sim_scan"} <= names
    assert ready.problems == []
    assert ready.device_client
