"""Edited plans in a scan server with its real workers, while one of them runs an item."""

from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import PLANS
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import ReloadPlans
from bec_bluesky.messages.queue import AddItem, ControlRun, RemoveItem, StartQueue
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import Client, serving, until
from tests.scan_server.worker.worker_bench import documents, make_profile

PLANS_FILE = """
import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp

VERSION = {version}

def dune(pause: float = 0.0):
    yield from bps.open_run(md={{"version": VERSION}})
    yield from bps.checkpoint()
    yield from bps.sleep(pause)
    yield from bps.close_run(reason=f"version {{VERSION}}")
"""


async def test_new_items_run_new_code_and_the_running_one_its_old(
    settings: Settings, tmp_path: Path, client: Client, bus: Bus
) -> None:
    profile = make_profile(tmp_path / "profile")
    file = profile / "plans" / "dunes.py"
    file.parent.mkdir()
    file.write_text(PLANS_FILE.format(version=1) + "\ndef lagoon():\n    yield from bps.null()\n")
    async with serving(ScanServer(settings.with_(profile=profile))) as server:

        async def are_ready() -> bool:
            return server.pool.ready == 2

        await until(are_ready, timeout=60.0)
        pids = server.pool.pids
        await client.ask(AddItem(plan="dune", args=[600], start=True))
        await client.until_status(run_state="running", scan_id=1)
        waiting = (await client.ask(AddItem(plan="lagoon"))).item
        file.write_text(PLANS_FILE.format(version=2) + "\ndef valley():\n    yield from bps.null()\n")
        done = await client.ask(ReloadPlans(module="plans.dunes"))
        assert (done.added, done.changed, done.removed) == (["valley"], [], ["lagoon"])
        [problem] = done.problems
        assert problem.startswith(f"item {waiting.item_id} waits for lagoon, which is offered no more")

        async def is_saved() -> bool:
            return "valley" in await bus.fields(PLANS)

        await until(is_saved)
        assert [item.item_id for item in (await client.queue()).waiting] == [waiting.item_id]
        await client.ask(RemoveItem(item_id=waiting.item_id))
        await client.ask(ControlRun(action="stop"))
        (old,) = await client.until_ended(1)
        await client.ask(AddItem(plan="dune"))
        await client.ask(StartQueue())
        new = (await client.until_ended(2))[0]
        assert server.pool.pids == pids  # no worker was replaced
    versions = []
    for item in (old, new):
        assert item.result is not None
        versions += [(await documents(bus, uid))[0][1]["version"] for uid in item.result.run_uids]
    assert versions == [1, 2]


@pytest.mark.slow
async def test_a_module_that_never_finishes_importing_costs_one_worker_and_no_plan(
    settings: Settings, tmp_path: Path, client: Client
) -> None:
    profile = make_profile(tmp_path / "profile")
    file = profile / "plans" / "dunes.py"
    file.parent.mkdir()
    file.write_text(PLANS_FILE.format(version=1))
    async with serving(ScanServer(settings.with_(profile=profile))) as server:

        async def are_ready() -> bool:
            return server.pool.ready == 2

        await until(are_ready, timeout=60.0)
        file.write_text("import time\ntime.sleep(600)\n")
        with pytest.raises(RefusedError, match="took too long or ended a worker") as refused:
            await client.ask(ReloadPlans(module="plans.dunes"), timeout=2.0)
        assert refused.value.code == "import"
        file.write_text(PLANS_FILE.format(version=3))
        await client.ask(AddItem(plan="dune", start=True))
        (done,) = await client.until_ended(1)
        assert done.result is not None
        assert done.result.exit_status == "completed"
