"""Scan server, worker and device server: what devices allow decides what is queued, and a lost worker lets go."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICES, READBACKS
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import EndTask, GetTasks, RunScript, Task, Tasks
from bec_bluesky.messages.queue import AddItem, GetStatus, ItemAccepted, ScanServerStatus, StartQueue
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import Client, serving, until
from tests.scan_server.worker.worker_bench import documents, make_profile

DEVICE_FILE = """
version: 1
devices:
  x: {class: "ophyd.sim:SynAxis", limits: {low: -5, high: 5}}
  gone: {class: "ophyd.sim:SynAxis", enabled: false}
  slow: {class: "ophyd_async.sim:SimMotor", set: {velocity: 1.0}}
  det: {class: "ophyd.sim:SynSignal"}
  shutter: {class: "ophyd:Signal", kwargs: {value: 1.0}, readout: baseline}
  ring: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 401.5], readout: continuous}
"""


@pytest.fixture
async def instrument(settings: Settings, bus: Bus, tmp_path: Path) -> AsyncIterator[Settings]:
    """A profile with devices, and a device server that serves them."""
    profile = make_profile(tmp_path / "profile", startup="")
    (profile / "profile_collection" / "devices.yaml").write_text(DEVICE_FILE)
    settings = settings.with_(profile=profile)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bec_bluesky.device_server", env={**os.environ, **settings.environment()}
    )

    async def serves() -> bool:
        devices = await bus.fields(DEVICES, server="main")
        assert server.returncode is None
        return {"x", "gone", "slow", "det"} <= devices.keys()

    try:
        await until(serves, timeout=40.0)
        yield settings
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


async def test_what_devices_do_not_allow_is_refused_and_what_they_allow_runs(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(instrument, has_spare=False)) as server:

        async def is_ready() -> bool:
            return server.pool.ready == 1

        await until(is_ready, timeout=60.0)
        for args, code, text in (
            ([["det"], "x", -4, 6], "limits", "x cannot go to 6"),
            ([["det"], "y", -1, 1], "unknown_device", "no device 'y'"),
            ([["det"], "slow.user_readback", -1, 1], "bad_argument", "is not Movable"),
            ([["det"], "gone", -1, 1], "device_unavailable", "'gone' on main is disabled"),
        ):
            with pytest.raises(RefusedError) as refused:
                await client.ask(AddItem(plan="scan", args=args, kwargs={"num": 11}))
            assert refused.value.code == code, str(refused.value)
            assert text in str(refused.value)
        assert (await client.status()).revision == 0
        accepted: ItemAccepted = await client.ask(AddItem(plan="scan", args=[["det"], "x", -4, 4], kwargs={"num": 5}))
        assert accepted.warnings == []
        assert accepted.item.properties["points"] == 5
        assert set(accepted.item.properties["devices"]) == {"x", "det"}
        await client.ask(StartQueue())
        (done,) = await client.until_ended(1)
        assert done.result is not None
        assert (done.result.exit_status, done.result.reason) == ("completed", "")
        found = await documents(bus, done.result.run_uids[0])
        streams = {document["uid"]: document["name"] for name, document in found if name == "descriptor"}
        events = [(streams[document["descriptor"]], document["data"]) for name, document in found if name == "event"]
        # `readout: continuous`: its value at the beginning, and each change, of which there is none
        assert [data["ring"] for stream, data in events if stream == "ring_monitor"] == [401.5]
        # `readout: baseline`: read before and after
        assert [stream for stream, _ in events if stream != "ring_monitor"] == [
            "baseline",
            *["primary"] * 5,
            "baseline",
        ]
        assert [data["shutter"] for stream, data in events if stream == "baseline"] == [1.0, 1.0]
        assert [data["x"] for stream, data in events if stream == "primary"] == [-4, -2, 0, 2, 4]


async def test_a_motor_stops_when_the_worker_that_moves_it_is_killed(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(instrument, has_spare=False)) as server:
        await client.ask(AddItem(plan="scan", args=[["det"], "slow", 0, 1000, 2]), timeout=60.0)
        await client.ask(AddItem(plan="count", args=[["det"]]))
        await client.ask(StartQueue())

        async def position() -> float:
            readback = await bus.field(READBACKS, "slow", server="main")
            return float(readback.reading["slow"]["value"])

        async def has_moved() -> bool:
            return await position() > 0.1

        await until(has_moved)
        assert server.pool.running_pid is not None
        os.kill(server.pool.running_pid, signal.SIGKILL)
        after, lost = await client.until_ended(2)
        assert lost.result is not None
        assert after.result is not None
        assert (lost.result.exit_status, after.result.exit_status) == ("failed", "completed")
        here = await position()
        await client.ask(AddItem(plan="sleep", args=[0.3], start=True))
        await client.until_ended(3)
        assert await position() == pytest.approx(here, abs=0.02)


@pytest.mark.slow
async def test_scripts_move_devices_by_name_and_one_that_is_ended_leaves_nothing_moving(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(instrument, has_spare=False)):

        async def ended(text: str) -> Task:
            begun: Task = await client.ask(RunScript(script=text), timeout=60.0)

            async def is_over() -> bool:
                return (await tasks(begun.task_id)).state != "running"

            await until(is_over, timeout=60.0)
            return await tasks(begun.task_id)

        async def tasks(task_id: str) -> Task:
            found: Tasks = await client.ask(GetTasks(task_ids=[task_id]))
            return found.tasks[0]

        done = await ended("x.move(2)\nprint(devices.x.position, devices['x'] == x)\n")
        assert (done.state, done.output, done.reason) == ("completed", "2.0 True\n", "")
        done = await ended("here = x.position\ndef step(motor=x):\n    yield\nmoved = x.set(3)\n")
        assert done.state == "failed"
        assert "what it defines is not kept" in done.reason and "only looking at devices is" in done.reason

        running: Task = await client.ask(RunScript(script="import time\nslow.set(1000)\ntime.sleep(600)\n"))

        async def position() -> float:
            readback = await bus.field(READBACKS, "slow", server="main")
            return float(readback.reading["slow"]["value"])

        async def has_moved() -> bool:
            return await position() > 0.1

        await until(has_moved)
        await client.ask(EndTask(task_id=running.task_id))

        async def stands() -> bool:
            before = await position()
            await asyncio.sleep(0.3)
            return await position() == before

        await until(stands)
        assert 0.1 < await position() < 100


async def test_two_queues_scan_side_by_side_and_their_runs_stay_apart(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(instrument, queues=("align",))) as server:

        async def both_are_ready() -> bool:
            return server.pool.ready == 2

        await until(both_are_ready, timeout=60.0)
        await client.ask(AddItem(plan="scan", args=[["det"], "slow", 0, 3, 2]))
        await client.ask(
            AddItem(plan="wait", kind="instruction", kwargs={"device": "slow", "above": 0.2}), queue="align"
        )
        await client.ask(AddItem(plan="scan", args=[["ring"], "x", -1, 1, 3]), queue="align")
        await client.ask(AddItem(plan="count", args=[["det"]]), queue="align")
        await client.ask(StartQueue())
        await client.ask(StartQueue(), queue="align")

        async def waits_for_the_detector() -> bool:
            status: ScanServerStatus = await client.ask(GetStatus(), queue="align")
            return status.waits_for.startswith("det is held by scan (item ")

        await until(waits_for_the_detector)
        main = await client.status()
        assert (main.run_state, main.history) == ("running", 2), "the wait and the scan of x ended meanwhile"
        done = await client.until_ended(4)
        assert [item.plan for item in done] == ["count", "scan", "scan", "wait"]
        results = [item.result for item in done if item.result is not None]
        assert [result.exit_status for result in results] == ["completed"] * 4
        scan_ids = [scan_id for result in results for scan_id in result.scan_ids]
        assert len(set(scan_ids)) == 3
        for result, points in zip(results, (1, 2, 3), strict=False):
            found = await documents(bus, result.run_uids[0])
            assert {document["uid"] for name, document in found if name == "start"} == {result.run_uids[0]}
            primary = {each["uid"] for name, each in found if name == "descriptor" and each["name"] == "primary"}
            assert len([1 for name, each in found if name == "event" and each["descriptor"] in primary]) == points
            assert found[-1][0] == "stop"
