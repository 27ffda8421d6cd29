"""A worker with a real device server: plans of remote devices, and checks of them that move nothing."""

import asyncio
import contextlib
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_HOLDERS, DEVICES, READBACKS
from bec_bluesky.errors import DeviceHeld
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.messages.worker import (
    CheckItem,
    CheckResult,
    ItemWaits,
    RunItem,
    RunStarted,
    RunState,
    WorkerProgress,
    WorkerReady,
)
from bec_bluesky.proxy import DeviceLink
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import Worker, documents, eventually, make_profile, running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEVICE_FILE = """
version: 1
devices:
  samx:
    class: ophyd.sim:SynAxis
    limits: {low: -20, high: 20}
  det:
    class: ophyd.sim:SynGauss
    kwargs: {motor: {$ref: samx}, motor_field: samx, center: 0.0, Imax: 1000.0, sigma: 1.5}
  slow:
    class: ophyd_async.sim:SimMotor
    kwargs: {instant: false}
    set: {velocity: 0.5, acceleration_time: 0.2}
    limits: {low: -10, high: 10}
  fast:
    class: ophyd_async.sim:SimMotor
    kwargs: {instant: false}
    set: {velocity: 50, acceleration_time: 0.01}
    limits: {low: -10, high: 10}
  blob:
    class: ophyd_async.sim:SimBlobDetector
    kwargs: {path_provider: {$obj: devices.paths:DatedPaths, directory: "{files_dir}"}}
"""
STARTUP = """
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp


def to_the_peak(detector, motor):
    \"\"\"Go on until the detector sees enough: nobody can tell beforehand how far.\"\"\"
    @bpp.run_decorator()
    def inner():
        position = -3.0
        while True:
            yield from bps.mv(motor, position)
            reading = yield from bps.trigger_and_read([detector, motor])
            if reading[detector.name]["value"] > 900:
                return position
            position += 0.1
    return (yield from inner())


def moves_in_time(motor, target, timeout):
    \"\"\"Move, and give up.\"\"\"
    yield from bps.mv(motor, target, timeout=timeout)


def has_a_mistake(motor):
    \"\"\"Fail at a line of its own.\"\"\"
    yield from bps.mv(motor, 0)
    if motor.name:
        {}["nokey"]


def asks_a_person():
    \"\"\"Go where a person says.\"\"\"
    return (yield from bps.input_plan("how far? "))


def blocking(motor):
    \"\"\"Block in plain Python.\"\"\"
    time.sleep(4)
    yield from bps.mv(motor, 1)


def calls_directly(motor):
    \"\"\"Move without a message, as nobody should.\"\"\"
    motor.set(3)
    yield from bps.null()


def looks_first(motor):
    \"\"\"Go one further than it is.\"\"\"
    yield from bps.mv(motor, motor.position + 1)


def moves_in_secret(target):
    \"\"\"Move a device that no argument names.\"\"\"
    yield from bps.mv(devices["slow"], target)


def brings_its_own(num=3):
    \"\"\"Scan devices that live here.\"\"\"
    from ophyd.sim import SynAxis
    x = SynAxis(name="x")
    return (yield from bp.rel_scan([x], x, -1, 1, num))


def endless(detector):
    \"\"\"Read for ever.\"\"\"
    while True:
        yield from bps.read(detector)
"""


@contextlib.asynccontextmanager
async def device_server(settings: Settings, bus: Bus) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bec_bluesky.device_server", env=os.environ | settings.environment()
    )

    async def is_there() -> bool:
        assert process.returncode is None
        infos = (await bus.fields(DEVICES, server="main")).values()
        return {info.name for info in infos if info.state == "connected"} >= {"samx", "det", "slow", "fast", "blob"}

    try:
        await eventually(is_there)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
def bench_settings(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("bench")
    return bench_of(redis_settings.with_(beamline="bench", data_dir=directory / "data"), directory)


def bench_of(settings: Settings, directory: Path) -> Settings:
    profile = make_profile(directory / "profile", STARTUP)
    (profile / "profile_collection" / "devices.yaml").write_text(DEVICE_FILE)
    return settings.with_(profile=profile)


@pytest_asyncio.fixture(loop_scope="module")
async def bus(bench_settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(bench_settings.redis_url or "", bench_settings.beamline) as bus:
        yield bus


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench(bench_settings: Settings) -> AsyncIterator[Worker]:
    async with (
        Bus(bench_settings.redis_url or "", bench_settings.beamline) as bus,
        running_worker(bench_settings) as worker,
        device_server(bench_settings, bus),
    ):
        await worker.wait(WorkerReady)
        await knows_devices(worker)
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def bench(shared_bench: Worker) -> Worker:
    """A worker that knows the devices of a device server."""
    await shared_bench.forget()
    return shared_bench


async def check(worker: Worker, plan: str, *args: Any, **kwargs: Any) -> CheckResult:
    item = QueueItem(item_id=uuid.uuid4().hex, plan=plan, args=list(args), kwargs=kwargs)
    check_id = uuid.uuid4().hex
    await worker.send(CheckItem(check_id=check_id, item=item))
    return await worker.wait(CheckResult, lambda message: message.check_id == check_id)


async def knows_devices(worker: Worker) -> None:
    async def is_so() -> bool:
        return (await check(worker, "count", ["samx", "det", "slow", "fast", "blob"])).failure is None

    await eventually(is_so)


async def position(bus: Bus, device: str) -> float:
    readback = await bus.field(READBACKS, device, server="main")
    return readback.reading[device]["value"]


async def test_a_scan_of_remote_devices_is_published(bench: Worker, bus: Bus) -> None:
    done = await bench.done(await bench.run("scan", ["det"], "samx", -1, 1, 11))
    assert (done.result.exit_status, done.result.reason) == ("completed", "")
    run = await documents(bus, done.result.run_uids[0])
    assert [d["data"]["samx"] for name, d in run if name == "event"] == pytest.approx([-1 + 0.2 * n for n in range(11)])
    assert run[0][1]["motors"] == ["samx"]


async def test_abort_in_mid_move_stops_the_motor_on_the_device_server(bench: Worker, bus: Bus) -> None:
    item_id = await bench.run("line_scan", ["det"], "slow", 5, 6, 3)
    await bench.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
    await bench.control("abort", "enough")
    done = await bench.done(item_id)
    assert done.result.exit_status == "aborted"
    assert (await documents(bus, done.result.run_uids[0]))[-1][1]["exit_status"] == "abort"
    where = (await bench.done(await bench.run("rel_scan", ["det"], "slow", 0, 0.01, 2))).result
    assert where.exit_status == "completed"
    first = next(d for name, d in await documents(bus, where.run_uids[0]) if name == "event")
    assert 0.0 < first["data"]["slow"] < 4.0


async def test_pause_in_mid_move_stops_and_resume_goes_on_to_the_target(bench: Worker, bus: Bus) -> None:
    item_id = await bench.run("line_scan", ["det"], "slow", 0.5, 0.6, 2)
    await bench.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
    await bench.control("pause_now")
    await bench.state("paused")
    await bench.control("resume")
    done = await bench.done(item_id)
    assert (done.result.exit_status, done.result.reason) == ("completed", "")
    events = [d for name, d in await documents(bus, done.result.run_uids[0]) if name == "event"]
    assert [event["data"]["slow"] for event in events] == pytest.approx([0.5, 0.6])
    assert [message.state for message in bench.heard if isinstance(message, RunState)][:4] == [
        "running",
        "pausing",
        "paused",
        "running",
    ]


async def test_a_device_server_that_dies_fails_the_plan_with_its_name_and_the_next_one_serves(
    settings: Settings, tmp_path: Path
) -> None:
    own = bench_of(settings, tmp_path)
    async with Bus(own.redis_url or "", own.beamline) as bus, running_worker(own) as worker:
        async with device_server(own, bus) as server:
            await worker.wait(WorkerReady)
            await knows_devices(worker)
            item_id = await worker.run("line_scan", ["det"], "slow", 5, 6, 3)
            await worker.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
            server.kill()
            done = await worker.done(item_id)
            assert done.result.exit_status == "failed"
            assert done.result.reason.startswith("slow.set(5.0) failed: device server 'main' gave no sign of life")
            assert (await documents(bus, done.result.run_uids[0]))[-1][1]["exit_status"] == "fail"
        async with device_server(own, bus):

            async def works() -> bool:
                done = await worker.done(await worker.run("count", ["det"]))
                return done.result.exit_status == "completed"

            await eventually(works)


async def test_a_remote_detector_and_motor_fly(bench: Worker, bus: Bus) -> None:
    done = await bench.done(await bench.run("fly_scan", ["blob"], 10, 0.02, "fast", 0.0, 2.0))
    assert (done.result.exit_status, done.result.reason) == ("completed", "")
    run = await documents(bus, done.result.run_uids[0])
    assert run[-1][1]["num_events"]["primary"] == 10
    names = {d["name"] for name, d in run if name == "descriptor"}
    assert names == {"primary", "fast_monitor"}
    told = [message.progress.points for message in bench.heard if isinstance(message, WorkerProgress)]
    assert max(told) <= 10


# ── claims ────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def person(settings: Settings) -> AsyncIterator[DeviceLink]:
    """Somebody with a link of their own."""
    link = await DeviceLink.connect(settings.redis_url or "", settings.beamline)
    try:
        assert await link.wait_until_ready(10.0)
        yield link
    finally:
        await link.close()


async def test_devices_of_a_running_plan_are_refused_with_who_holds_them_and_free_afterwards(
    bench: Worker, bus: Bus, bench_settings: Settings
) -> None:
    async with person(bench_settings) as link:
        item_id = await bench.run("line_scan", ["det"], "slow", 5, 6, 3)
        await bench.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
        scan_id = (await bench.wait(RunStarted)).scan_id
        who = f"scan {scan_id}, line_scan (item {item_id[:8]}, eve)"
        sentence = f"slow is held by {who}: wait for it to end, or stop it"
        with pytest.raises(DeviceHeld) as refused:
            await link.request("slow", "set", 1.0)
        assert str(refused.value) == sentence
        await bench.control("pause_now")
        await bench.state("paused")
        for verb, arguments in (("set", (1.0,)), ("stage", ())):
            with pytest.raises(DeviceHeld):
                await link.request("slow", verb, *arguments)
        await link.request("slow", "read")
        await link.request("samx", "set", 1.0)  # det only looks at it
        row = await bus.field(DEVICE_HOLDERS, "slow", server="main")
        assert row is not None
        assert (row.text, row.item_id, row.scan_id, row.user) == (who, item_id, scan_id, "eve")
        assert set(await bus.fields(DEVICE_HOLDERS, server="main")) == {"slow", "det"}
        await bench.control("abort", "enough")
        assert (await bench.done(item_id)).result.exit_status == "aborted"
        await link.request("slow", "set", 0.0)


async def test_anybody_may_stop_what_a_plan_moves(bench: Worker, bench_settings: Settings) -> None:
    async with person(bench_settings) as link:
        item_id = await bench.run("line_scan", ["det"], "slow", 9, 9.5, 2)
        await bench.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
        await link.request("slow", "stop")
        done = await bench.done(item_id)
        assert (done.result.exit_status, "slow.set(9.0) failed" in done.result.reason) == ("failed", True)


async def test_an_item_whose_device_somebody_holds_waits_says_for_whom_and_moves_nothing(
    bench: Worker, bus: Bus, bench_settings: Settings
) -> None:
    async with person(bench_settings) as link:
        await link.request("samx", "set", 2.0)
        async with link.holding(["samx"], "anna at the hutch", user="anna"):
            item_id = await bench.run("grid_scan", ["det"], "fast", 5, 6, 2, "samx", -1, 1, 3)
            waits = await bench.wait(ItemWaits)
            assert waits.text == "samx is held by anna at the hutch: it is free when they let go of it"
            await link.request("fast", "set", 3.0)  # what it could hold is free meanwhile
            await bench.control("abort", "enough of waiting")
            result = (await bench.done(item_id)).result
            assert (result.exit_status, result.reason, result.run_uids) == ("aborted", "enough of waiting", [])
            await bench.forget()
            item_id = await bench.run("scan", ["det"], "samx", -1, 1, 3)
            await bench.wait(ItemWaits, lambda message: "anna" in message.text)
        await bench.wait(ItemWaits, lambda message: message.text == "")
        result = (await bench.done(item_id)).result
        assert (result.exit_status, result.reason) == ("completed", "")


async def test_a_plan_holds_what_nobody_knew_of_beforehand_when_it_uses_it(
    bench: Worker, bench_settings: Settings
) -> None:
    async with person(bench_settings) as link:
        item_id = await bench.run("moves_in_secret", 5.0)
        await bench.wait(WorkerProgress, lambda message: message.progress.moving.get("slow", 0.0) > 0.0)
        with pytest.raises(DeviceHeld, match=f"slow is held by moves_in_secret \\(item {item_id[:8]}, eve\\)"):
            await link.request("slow", "set", 1.0)
        await bench.control("halt")
        await bench.done(item_id)
        await link.request("slow", "stop")
        await link.request("slow.velocity", "set", 0.5)


# ── checks ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_check_counts_points_names_devices_and_moves_nothing(bench: Worker, bus: Bus) -> None:
    before = await position(bus, "samx")
    found = await check(bench, "grid_scan", ["det"], "slow", -1, 1, 5, "samx", 0, 3, 4)
    assert (found.failure, found.points) == (None, 20)
    assert set(found.devices) == {"det", "slow", "samx"}
    assert (await check(bench, "fly_scan", ["blob"], 10, 0.02)).points == 10
    assert (await check(bench, "mv", "samx", 3)).points == 0
    assert await position(bus, "samx") == before


async def test_a_plan_that_asks_at_a_terminal_is_refused_and_takes_no_silence_for_an_answer(bench: Worker) -> None:
    failure = (await check(bench, "asks_a_person")).failure
    assert failure is not None
    assert (failure.code, failure.text.split(",")[0]) == ("no_terminal", "the plan asks 'how far?'")
    done = await bench.done(await bench.run("asks_a_person"))
    assert done.result.exit_status == "failed"
    assert "no terminal" in done.result.reason


async def test_a_failure_is_told_with_device_wanted_seen_and_place(bench: Worker) -> None:
    done = await bench.done(await bench.run("moves_in_time", "slow", 7.5, 0.3))
    told = (
        r"WaitForTimeoutError: not done in time: slow\.set\(7\.5\) is at -?[\d.e-]+.*\(moves_in_time in .*, line \d+\)"
    )
    assert re.fullmatch(told, done.result.reason), done.result.reason
    failure = (await check(bench, "has_a_mistake", "samx")).failure
    assert failure is not None
    assert failure.text.startswith("has_a_mistake fails when it is tried out with these arguments: KeyError: 'nokey' (")
    assert "line " in failure.text
    done = await bench.done(await bench.run("mv", "slow", "far"))
    assert done.result.reason.startswith("TypeError: slow moves to a number")


async def test_a_position_outside_of_the_limits_is_told_with_its_point(bench: Worker) -> None:
    found = await check(bench, "scan", ["det"], "samx", 0, 30, 4)
    assert found.failure is not None
    assert found.failure.code == "limits"
    assert found.failure.device == "samx"
    assert found.failure.kind == "bec_bluesky.errors.RefusedError"
    assert found.failure.text == (
        "scan, number 1 of *args (motor): samx cannot go to 30 mm at point 4: its limits are -20 to 20"
    )


async def test_a_relative_scan_is_checked_from_where_the_motor_is(bench: Worker, bus: Bus) -> None:
    await bench.done(await bench.run("mv", "samx", 15))

    async def is_told() -> bool:
        return await position(bus, "samx") == 15

    await eventually(is_told)
    assert (await check(bench, "rel_scan", ["det"], "samx", -2, 2, 3)).failure is None
    found = await check(bench, "rel_scan", ["det"], "samx", 0, 10, 3)
    assert found.failure is not None
    assert "samx cannot go to 25 mm at point 3" in found.failure.text


async def test_wrong_arguments_are_failures_of_the_check(bench: Worker) -> None:
    odd = await check(bench, "grid", ["det"], "samx", 0, 1)
    assert odd.failure is not None
    assert odd.failure.code == "bad_argument"
    assert "groups of motor, start, stop, num" in odd.failure.text
    missing = await check(bench, "count", ["no_such"])
    assert missing.failure is not None
    assert missing.failure.code == "unknown_device"


async def test_what_only_running_can_tell_is_no_failure_and_has_no_points(bench: Worker) -> None:
    for plan, args in (
        ("to_the_peak", ["det", "samx"]),
        ("endless", ["det"]),
        ("calls_directly", ["samx"]),
        ("blocking", ["samx"]),
    ):
        found = await check(bench, plan, *args)
        assert (found.failure, found.points) == (None, None), plan
    assert (await check(bench, "looks_first", "samx")).failure is None
    assert (await check(bench, "brings_its_own")).failure is None


async def test_checks_are_quick_and_go_on_while_a_plan_runs(bench: Worker) -> None:
    item_id = await bench.run("line_scan", ["det"], "slow", 0.2, 0.4, 3)
    await bench.state("running")
    found = await check(bench, "scan", ["det"], "samx", 0, 10, 51)
    assert found.points == 51
    assert (await bench.done(item_id)).result.exit_status == "completed"


# ── the instruction `wait` ────────────────────────────────────────────────────────────────────────


async def wait(bench: Worker, **arguments: Any) -> str:
    item = QueueItem(item_id=uuid.uuid4().hex, plan="wait", kind="instruction", kwargs=arguments)
    await bench.send(RunItem(item=item, token=1))
    return item.item_id


async def test_a_wait_for_a_condition_ends_when_it_holds_and_holds_no_device(
    bench: Worker, bus: Bus, bench_settings: Settings
) -> None:
    async with person(bench_settings) as link:
        await link.request("samx", "set", 0.0)
        item_id = await wait(bench, device="samx", above=1.5, below=3)
        waits = await bench.wait(ItemWaits)
        assert waits.text.startswith("until samx is above 1.5 and below 3; it is 0")
        assert await bus.fields(DEVICE_HOLDERS, server="main") == {}
        await link.request("samx", "set", 2.0)
        assert (await bench.done(item_id)).result.exit_status == "completed"


async def test_a_condition_that_does_not_hold_in_time_fails_the_item_with_what_was_seen(bench: Worker) -> None:
    result = (await bench.done(await wait(bench, device="det", equals=-1, timeout=0.3))).result
    assert result.exit_status == "failed"
    assert "det was not equal to -1 within 0.3 s: it is " in result.reason


@pytest.mark.parametrize(
    ("action", "status"),
    [("finish", "completed"), ("skip", "stopped"), ("stop", "stopped"), ("abort", "aborted"), ("halt", "halted")],
)
async def test_a_wait_is_ended_like_any_plan(bench: Worker, action: str, status: str) -> None:
    item_id = await wait(bench, seconds=600)
    assert (await bench.wait(ItemWaits)).text.startswith("600 s, until ")
    await bench.control(action, "enough")
    assert (await bench.done(item_id)).result.exit_status == status


async def test_a_wait_can_be_paused_and_goes_on(bench: Worker) -> None:
    item_id = await wait(bench, seconds=600)
    await bench.wait(ItemWaits)
    await bench.control("pause")
    await bench.state("paused")
    await bench.control("resume")
    await bench.state("running")
    await bench.control("stop")
    assert (await bench.done(item_id)).result.exit_status == "stopped"
    done = await bench.done(await wait(bench, seconds=0.05))
    assert (done.result.exit_status, done.result.run_uids) == ("completed", [])
