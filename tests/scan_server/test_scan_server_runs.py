"""The scan server with its real workers: plans run in a RunEngine, documents are on Redis, and everything can die."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import PLANS
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.queue import AddItem, ControlRun, ItemAccepted, ReleaseItem, StartQueue
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.patience import PATIENCE
from tests.scan_server.scan_server_harness import Client, serving, until
from tests.scan_server.worker.worker_bench import documents, make_profile


@pytest.fixture
def instrument(settings: Settings, tmp_path: Path) -> Settings:
    return settings.with_(profile=make_profile(tmp_path / "profile"))


async def ready(server: ScanServer, workers: int) -> None:
    async def are_ready() -> bool:
        return server.pool.ready == workers

    await until(are_ready, timeout=PATIENCE)


async def events(bus: Bus, run_uid: str) -> int:
    """How many events of a run are on Redis."""
    found = await documents(bus, run_uid)
    return sum(name == "event" for name, _ in found)


async def test_items_are_checked_run_and_remembered_with_their_runs(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async def are_offered() -> bool:
        return {"count", "scan", "sim_scan"} <= (await bus.fields(PLANS)).keys()

    async with serving(ScanServer(instrument, has_spare=False)) as server:
        await ready(server, 1)
        await until(are_offered, timeout=PATIENCE)
        for asked, code in (
            (AddItem(plan="sim_scann"), "unknown_plan"),
            (AddItem(plan="sim_scan", kwargs={"number": 3}), "bad_argument"),
            (AddItem(plan="scan", args=[["nothing"], "nowhere", 0, 1], kwargs={"num": 3}), "unknown_device"),
            (AddItem(plan="scan", args=[[], "nowhere"], kwargs={"num": 3}), "bad_argument"),
        ):
            with pytest.raises(RefusedError) as refused:
                await client.ask(asked)
            assert refused.value.code == code, str(refused.value)
        accepted: ItemAccepted = await client.ask(
            AddItem(plan="sim_scan", kwargs={"num": 7}, metadata={"sample": "CuO"}, title="a title")
        )
        assert accepted.warnings == []
        await client.ask(StartQueue())
        (done,) = await client.until_ended(1)
        assert done.result is not None
        assert (done.result.exit_status, done.result.reason) == ("completed", "")
        (uid,) = done.result.run_uids
        found = await documents(bus, uid)
        assert [name for name, _ in found] == ["start", "descriptor", *["event"] * 7, "stop"]
        start = found[0][1]
        assert (start["sample"], start["user"], start["item_id"]) == ("CuO", "ann", accepted.item.item_id)


async def test_a_run_is_paused_resumed_and_aborted(instrument: Settings, client: Client) -> None:
    async with serving(ScanServer(instrument, has_spare=False)) as server:
        await ready(server, 1)
        await client.ask(AddItem(plan="long_count", start=True))
        await client.until_status(run_state="running", scan_id=1)
        await client.ask(ControlRun(action="pause"))
        await client.until_status(run_state="paused")
        await client.ask(ControlRun(action="resume"))
        await client.until_status(run_state="running")
        await client.ask(ControlRun(action="abort", reason="the wrong sample"))
        (done,) = await client.until_ended(1)
        assert done.result is not None
        assert done.result.exit_status == "aborted"
        assert done.result.reason == "asked by ann: the wrong sample"


async def test_kill_9_of_the_worker_in_mid_run_closes_the_run_and_the_queue_goes_on(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    async with serving(ScanServer(instrument)) as server:
        await ready(server, 2)
        await client.ask(AddItem(plan="long_count"))
        await client.ask(AddItem(plan="sim_scan"))
        await client.ask(StartQueue())
        status = await client.until_status(scan_id=1)
        uid = status.run_uid or ""

        async def has_points() -> bool:
            return await events(bus, uid) >= 20

        await until(has_points)
        assert server.pool.running_pid is not None
        os.kill(server.pool.running_pid, signal.SIGKILL)
        after, lost = await client.until_ended(2)
        assert lost.result is not None
        assert after.result is not None
        assert (lost.result.exit_status, lost.result.run_uids) == ("failed", [uid])
        assert "killed by signal 9" in lost.result.reason
        name, stop = (await documents(bus, uid))[-1]
        assert (name, stop["exit_status"]) == ("stop", "fail")
        assert stop["num_events"] == {"primary": await events(bus, uid)}
        assert after.result.exit_status == "completed"


async def test_kill_9_of_the_scan_server_in_mid_run_holds_the_item_and_closes_the_run(
    instrument: Settings, client: Client, bus: Bus
) -> None:
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bec_bluesky.scan_server", env={**os.environ, **instrument.environment()}
    )
    try:
        accepted: ItemAccepted = await client.ask(AddItem(plan="long_count", start=True), timeout=60.0)
        status = await client.until_status(scan_id=1)
        uid = status.run_uid or ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            first.kill()
        await first.wait()
    async with serving(ScanServer(instrument, has_spare=False)) as server:
        status = await client.status()
        assert (status.queue_state, status.waiting, status.history) == ("stopped", 1, 0)
        (held,) = (await client.queue()).waiting
        assert (held.item_id, held.state) == (accepted.item.item_id, "held")

        async def is_closed() -> bool:
            return (await documents(bus, uid))[-1][0] == "stop"

        await until(is_closed)
        with pytest.raises(RefusedError, match="is held"):
            await client.ask(StartQueue())
        await client.ask(ReleaseItem(item_id=held.item_id))
        await ready(server, 1)
        await client.ask(StartQueue())
        await client.until_status(scan_id=2)
