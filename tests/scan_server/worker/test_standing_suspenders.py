"""Suspenders of the profile, in a real worker with a real device server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
import pytest_asyncio
from bluesky import RunEngine
from bluesky.suspenders import SuspendFloor
from ophyd import Signal
from ophyd.sim import SynAxis

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICES
from bec_bluesky.messages.worker import ItemSuspended, RunStarted, WorkerReady
from bec_bluesky.proxy import DeviceLink
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import Worker, documents, eventually, make_profile, running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEVICE_FILE = """
version: 1
devices:
  samx: {class: "ophyd.sim:SynAxis"}
  beam: {class: "ophyd:Signal", kwargs: {value: 1.0}}
  shutter: {class: "ophyd:Signal", kwargs: {value: 1}}
"""
ENTRIES = """
[[suspenders]]
name = "ring"
signal = "beam"
kind = "below"
limit = 0.5
before = { plan = "mend", args = ["beam"] }
after = { plan = "mv", args = ["shutter", 1] }
message = "no beam"
not_for = ["align"]
"""
SHUTTER = """
[[suspenders]]
signal = "shutter"
kind = "low"
not_for = ["lossy"]
"""
STARTUP = """
import asyncio
import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp

did = []
released = asyncio.Event()
tripping = []


def mend(beam):
    did.append("before")
    released.set()
    while not all(status.done for status in tripping):
        yield from bps.sleep(0.01)
    yield from bps.abs_set(beam, 1.0, wait=True)


def lossy(beam, motor):
    \"\"\"Lose the beam within the second point.\"\"\"
    async def trip():
        if "tripped" not in did:
            did.append("tripped")
            tripping.append(beam.set(0.0))
            await released.wait()

    did.clear()
    released.clear()

    @bpp.run_decorator()
    def inner():
        for number in range(3):
            yield from bps.checkpoint()
            yield from bps.mv(motor, number)
            yield from bps.trigger_and_read([motor], name="before")
            if number == 1:
                yield from bps.wait_for([trip])
            yield from bps.trigger_and_read([motor])
            did.append("point")

    yield from inner()
    return did


def align(motor):
    yield from bps.mv(motor, 1)


def many(motor):
    \"\"\"Take points until told to stop.\"\"\"
    @bpp.run_decorator()
    def inner():
        while True:
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([motor])
            yield from bps.sleep(0.02)
    yield from inner()
"""


@pytest.fixture(scope="module")
def bench_settings(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("guarded")
    profile = make_profile(directory / "profile", STARTUP)
    (profile / "profile_collection" / "devices.yaml").write_text(DEVICE_FILE)
    settings = redis_settings.with_(beamline="guarded", data_dir=directory / "data", profile=profile)
    write(settings, ENTRIES + SHUTTER)
    return settings


def write(settings: Settings, entries: str) -> None:
    """Edit the profile, as a person does."""
    Path(settings.profile, "profile_collection", "profile.toml").write_text(f'title = "test"\n{entries}')


@pytest_asyncio.fixture(loop_scope="module")
async def bus(bench_settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(bench_settings.redis_url or "", bench_settings.beamline) as bus:
        yield bus


class Bench:
    def __init__(self, worker: Worker, link: DeviceLink, settings: Settings) -> None:
        self.worker, self.link, self.settings = worker, link, settings

    async def put(self, device: str, value: float) -> None:
        await self.link.devices[device].set(value)  # pyright: ignore[reportAttributeAccessIssue]  # it has what the real one has

    async def suspended(self, text: str) -> None:
        await self.worker.wait(ItemSuspended, lambda message: text in message.text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench(bench_settings: Settings) -> AsyncIterator[Bench]:
    environment = os.environ | bench_settings.environment()
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "bec_bluesky.device_server", env=environment)
    try:
        async with Bus(bench_settings.redis_url or "", "guarded") as bus, running_worker(bench_settings) as worker:
            await worker.wait(WorkerReady)
            await eventually(lambda: is_there(bus))
            link = await DeviceLink.connect(bench_settings.redis_url or "", "guarded")
            await eventually(lambda: returning(lambda: link.is_ready and len(link.devices) == 3))
            yield Bench(worker, link, bench_settings)
            await link.close()
    finally:
        server.terminate()
        await server.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(shared_bench: Bench) -> Bench:
    await shared_bench.worker.forget()
    await shared_bench.put("beam", 1.0)
    await shared_bench.put("shutter", 1)
    return shared_bench


async def is_there(bus: Bus) -> bool:
    infos = (await bus.fields(DEVICES, server="main")).values()
    return {info.name for info in infos if info.state == "connected"} >= {"samx", "beam", "shutter"}


async def returning(look: Callable[[], Any]) -> bool:
    return bool(look())


def rows(run: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Give what a run measured, and how it ended."""
    return [
        (name, document.get("seq_num"), document.get("data"), document.get("exit_status"))
        for name, document in run
        if name in ("event", "stop")
    ]


async def test_the_spoiled_point_is_taken_again_as_with_the_same_suspender_at_home(
    bench: Bench, bus: Bus, run_engine: RunEngine
) -> None:
    namespace: dict[str, Any] = {}
    exec(STARTUP, namespace)
    beam, motor, at_home = Signal(name="beam", value=1.0), SynAxis(name="samx"), list[Any]()
    shutter = Signal(name="shutter", value=1)
    guard = SuspendFloor(
        beam,
        0.5,
        pre_plan=lambda: namespace["mend"](beam),
        post_plan=lambda: bps.mv(shutter, 1),
        tripped_message="no beam",
    )
    run_engine.install_suspender(guard)
    run_engine(namespace["lossy"](beam, motor), lambda *document: at_home.append(document))
    done = await bench.worker.done(await bench.worker.run("lossy", "beam", "samx"))
    assert (done.result.exit_status, done.result.reason) == ("completed", "")
    assert done.value == namespace["did"] == ["point", "tripped", "before", "point", "point"]
    far_away = await documents(bus, done.result.run_uids[0])
    assert rows(far_away) == rows(at_home)
    assert len(rows(far_away)) == 3 + 4 + 1
    await bench.suspended("fell below 0.5 and has not yet crossed above 0.5.: no beam")
    await eventually(lambda: _ends_unsuspended(bench))


async def _ends_unsuspended(bench: Bench) -> bool:
    told = [message.text for message in bench.worker.heard if isinstance(message, ItemSuspended)]
    return told[-1] == ""


async def test_no_plan_begins_while_there_is_no_beam(bench: Bench) -> None:
    await bench.put("beam", 0.0)
    item_id = await bench.worker.run("count", ["samx"], 2)
    await bench.suspended("no beam")
    assert not [message for message in bench.worker.heard if isinstance(message, RunStarted)]
    await bench.put("beam", 1.0)
    assert (await bench.worker.done(item_id)).result.exit_status == "completed"
    await eventually(lambda: _ends_unsuspended(bench))


async def test_a_suspender_can_be_bypassed_for_one_item(bench: Bench) -> None:
    await bench.put("beam", 0.0)
    item_id = await bench.worker.run("count", ["samx"], 2)
    await bench.suspended("no beam")
    await bench.worker.control("bypass", "the gauge is dead")
    assert (await bench.worker.done(item_id)).result.exit_status == "completed"
    await bench.worker.forget()
    item_id = await bench.worker.run("count", ["samx"], 2)
    await bench.suspended("no beam")
    await bench.worker.control("bypass")
    assert (await bench.worker.done(item_id)).result.exit_status == "completed"
    await eventually(lambda: _ends_unsuspended(bench))


async def test_a_plan_that_needs_no_beam_runs_without_it(bench: Bench) -> None:
    await bench.put("beam", 0.0)
    assert (await bench.worker.done(await bench.worker.run("align", "samx"))).result.exit_status == "completed"


@pytest.mark.parametrize(
    ("action", "status"), [("abort", "aborted"), ("stop", "stopped"), ("finish", "completed"), ("halt", "halted")]
)
async def test_a_suspended_plan_is_ended_at_once(bench: Bench, action: str, status: str) -> None:
    item_id = await bench.worker.run("many", "samx")
    await bench.worker.wait(RunStarted)
    await bench.put("shutter", 0)
    await bench.suspended("shutter")
    await bench.worker.control(action, "enough")
    done = await bench.worker.done(item_id)
    assert (done.result.exit_status, done.result.reason) == (status, "enough")
    await eventually(lambda: _ends_unsuspended(bench))


async def test_a_signal_that_goes_bad_while_the_plan_is_paused_holds_it_when_it_is_resumed(bench: Bench) -> None:
    """bluesky itself asks suspenders when a plan begins, not when it is resumed."""
    item_id = await bench.worker.run("many", "samx")
    await bench.worker.wait(RunStarted)
    await bench.worker.control("pause")
    await bench.worker.state("paused")
    await bench.put("shutter", 0)
    await bench.worker.control("resume")
    await bench.suspended("shutter is low")
    await bench.put("shutter", 1)
    await eventually(lambda: _ends_unsuspended(bench))
    await bench.worker.control("stop")
    assert (await bench.worker.done(item_id)).result.exit_status == "stopped"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ('signal = "bean"\nkind = "high"', "suspender bean: no device 'bean'"),
        ('signal = "beam"\nkind = "hihg"', "[[suspenders]] number 1 (beam): kind = 'hihg'"),
        ('signal = "beam"\nkind = "low"\nbefore = "mnd"', "suspender beam: No plan 'mnd'"),
        ('signal = "beam"\nkind = "low"\nafter = "mend"', "suspender beam: mend: missing a required argument"),
    ],
)
async def test_an_entry_that_cannot_be_fails_the_item_and_names_itself_until_it_is_mended(
    bench: Bench, entry: str, text: str
) -> None:
    write(bench.settings, f"[[suspenders]]\n{entry}\n")
    try:
        for _ in range(2):
            done = await bench.worker.done(await bench.worker.run("align", "samx"))
            assert done.result.exit_status == "failed"
            assert text in done.result.reason
    finally:
        write(bench.settings, ENTRIES + SHUTTER)
    assert (await bench.worker.done(await bench.worker.run("align", "samx"))).result.exit_status == "completed"
