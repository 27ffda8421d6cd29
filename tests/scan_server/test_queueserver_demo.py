"""The demo profile with the names of bluesky-queueserver's own: its tutorials' items run through our queue."""

import asyncio
import contextlib
import importlib.resources
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bluesky_queueserver
import pytest
from ruamel.yaml import YAML

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICES, PLANS
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.queue import AddItem, AddItems
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import DEFAULT_PROFILE, Settings
from tests.scan_server.scan_server_harness import Client, serving, until

DEMO = DEFAULT_PROFILE / "profile_collection" / "queueserver_demo"
NOT_OFFERED = {"inner_product_scan", "relative_inner_product_scan", "ramp_plan", "null", "_sim_plan_inner", "tweak"}
"""Older names of `scan` and `rel_scan`; what takes a plan, does nothing, is a part of another, asks at a terminal."""


@pytest.fixture
async def demo(settings: Settings, bus: Bus) -> AsyncIterator[Settings]:
    """The profile, and a device server that serves its devices."""
    settings = settings.with_(profile=DEMO)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bec_bluesky.device_server", env={**os.environ, **settings.environment()}
    )

    async def serves() -> bool:
        assert server.returncode is None
        return "sim_bundle_B" in await bus.fields(DEVICES, server="main")

    try:
        await until(serves, timeout=60.0)
        yield settings
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


def named_by_the_peer() -> tuple[set[str], set[str]]:
    """Give the plans and devices that the peer lists for its own profile."""
    path = importlib.resources.files(bluesky_queueserver) / "profile_collection_sim" / "existing_plans_and_devices.yaml"
    listed: Any = YAML(typ="safe").load(Path(str(path)).read_text(encoding="utf-8"))
    return set(listed["existing_plans"]), set(listed["existing_devices"])


def functions_of_the_peer() -> set[str]:
    path = importlib.resources.files(bluesky_queueserver) / "profile_collection_sim" / "99-custom.py"
    text = Path(str(path)).read_text(encoding="utf-8")
    return {name for name in re.findall(r"^def (\w+)", text, re.M) if not name.startswith("_")}


async def test_the_items_of_the_tutorials_run_and_every_name_is_there(demo: Settings, client: Client, bus: Bus) -> None:
    items = [
        AddItem(plan="count", args=[["det1", "det2"]], kwargs={"num": 3, "delay": 0.01}),
        AddItem(plan="scan", args=[["det1", "det2"], "motor", -1, 1, 5]),
        AddItem(plan="mv", args=["motor1", 1, "motor2", 2]),
        AddItem(plan="marked_up_count", args=[["det"]], kwargs={"num": 2, "md": {"sample": "CuO"}}),
        AddItem(plan="move_then_count", args=[["motor1", "motor2"]], kwargs={"positions": [5, 6]}),
        AddItem(plan="sim_multirun_plan_nested", kwargs={"npts": 4, "delay": 0}),
        AddItem(plan="count_bundle_test", args=[["sim_bundle_A.dets.det_A", "det"]], kwargs={"num": 2}),
        AddItem(plan="fly", args=[["flyer1"]]),
    ]
    async with serving(ScanServer(demo, has_spare=False)) as server:

        async def is_ready() -> bool:
            return server.pool.ready == 1

        await until(is_ready, timeout=60.0)
        plans, devices = named_by_the_peer()
        offered = await bus.fields(PLANS)
        missing = plans - offered.keys() - NOT_OFFERED
        assert not missing
        built = await bus.fields(DEVICES, server="main")
        assert not devices - built.keys()
        assert {info.state for info in built.values()} == {"connected"}
        await client.ask(AddItems(items=items, start=True), timeout=30.0)
        done = await client.until_ended(len(items))
        with pytest.raises(RefusedError) as refused:
            await client.ask(AddItem(plan="move_then_count", args=[["motor1"]], kwargs={"positions": [20]}))
        assert "20 is not a number of at least -10 and up to 10" in str(refused.value)
    runs = []
    for item in reversed(done):
        assert item.result is not None
        assert item.result.exit_status == "completed", item.result.reason
        runs.append(len(item.result.run_uids))
    assert runs == [1, 1, 0, 1, 1, 2, 1, 1]


def test_the_functions_of_the_tutorials_are_defined_without_a_system() -> None:
    namespace: dict[str, Any] = {}
    exec((DEMO / "startup" / "20-functions.py").read_text(encoding="utf-8"), namespace)
    assert {"function_sleep", "push_buffer_element", "pop_buffer_element", "clear_buffer"} <= functions_of_the_peer()
    assert namespace["function_sleep"](0) == {"success": True, "time": 0}
    namespace["push_buffer_element"]("a")
    namespace["push_buffer_element"]("b")
    assert namespace["pop_buffer_element"]() == "a"
    namespace["clear_buffer"]()
    with pytest.raises(IndexError):
        namespace["pop_buffer_element"]()
