"""What happens to plans and proxies when a device server dies, hangs, or was never there."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
import redis
from bluesky.utils import FailedStatus

from bec_bluesky.errors import DeviceServerLost
from bec_bluesky.proxy import DeviceLink
from bec_bluesky.settings import Settings
from plans.burst import burst_scan
from plans.one_instruction import one_instruction_step
from tests.engines import running_engine
from tests.proxy.conftest import Bench, Server, linked, remote_bench, running_server, wait_for


@pytest.fixture
def own_server(redis_settings: Settings, tmp_path: Path) -> Iterator[Server]:
    """A device server that the test may kill."""
    with running_server(redis_settings, tmp_path) as server:
        yield server


def a_long_move(devices: Any, started: threading.Event) -> Any:
    @bpp.stage_decorator([devices["det"]])
    @bpp.run_decorator()
    def inner() -> Any:
        yield from bps.mv(devices["slow"].velocity, 1.0)
        yield from bps.abs_set(devices["slow"], 60.0, group="move")
        yield from bps.sleep(0.2)
        started.set()
        yield from bps.wait("move")

    return inner()


def run_and_disturb(bench: Bench, disturb: Any) -> tuple[list[tuple[str, Any]], BaseException]:
    """Run a long move, disturb it; give the documents and the exception."""
    documents: list[tuple[str, Any]] = []
    started = threading.Event()

    def act() -> None:
        started.wait(20.0)
        disturb()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        with pytest.raises(Exception) as caught:
            bench.RE(a_long_move(bench.devices, started), lambda name, document: documents.append((name, document)))
        return documents, caught.value
    finally:
        thread.join(20.0)


def test_a_killed_server_fails_the_move_and_works_again_after_a_restart(own_server: Server) -> None:
    with remote_bench(own_server) as bench:
        proxy = bench.devices["det"]
        documents, error = run_and_disturb(bench, lambda: own_server.end(kill=True))
        assert isinstance(error, FailedStatus)
        assert isinstance(error.__cause__, DeviceServerLost)
        stop = documents[-1][1]
        assert stop["exit_status"] == "fail"
        assert "slow.set(60.0): DeviceServerLost: device server" in stop["reason"]
        assert bench.RE.state == "idle"
        check_that_plans_fail_at_once(bench)

        with running_engine() as RE, linked(RE, own_server.settings) as link:  # one that never heard of a server
            check_that_plans_fail_at_once(Bench(RE, link.devices, own_server.files))

        own_server.start()
        own_server.wait_until_heard(proxy._link)
        assert bench.devices["det"] is proxy
        assert bench.RE(bp.scan([proxy], bench.devices["motor"], 0, 1, 3)).exit_status == "success"


@pytest.mark.parametrize("way", ["one instruction", "burst"])
def test_a_server_that_is_killed_in_a_faster_scan_is_what_the_plan_fails_with(own_server: Server, way: str) -> None:
    with remote_bench(own_server) as bench:
        d = bench.devices
        bench.RE(bps.mv(d["slow"].velocity, 1.0))
        moves = threading.Event()
        bench.RE.loop.call_soon_threadsafe(
            d["slow"].subscribe, lambda reading: reading["slow"]["value"] and moves.set()
        )
        killing = threading.Thread(target=lambda: moves.wait(20.0) and own_server.end(kill=True))
        killing.start()
        if way == "burst":
            plan = burst_scan(d["burst"], [d["det"]], d["slow"], 0.0, 60.0, 2)
        else:
            plan = bp.scan([d["det"]], d["slow"], 60.0, 120.0, 2, per_step=one_instruction_step)
        documents: list[tuple[str, Any]] = []
        with pytest.raises((FailedStatus, DeviceServerLost)) as caught:  # the latter while it collects
            bench.RE(plan, lambda name, document: documents.append((name, document)))
        killing.join(20.0)
        assert DeviceServerLost in (type(caught.value), type(caught.value.__cause__))
        assert (documents[-1][0], documents[-1][1]["exit_status"]) == ("stop", "fail")
        assert bench.RE.state == "idle"


def check_that_plans_fail_at_once(bench: Bench) -> None:
    with pytest.raises(FailedStatus) as caught:
        bench.RE(bp.count([bench.devices["det"]]))
    assert isinstance(caught.value.__cause__, DeviceServerLost)
    assert "not running" in str(caught.value.__cause__) and "nothing was done" in str(caught.value.__cause__)


def test_a_hung_server_fails_the_move_and_must_not_act_when_it_wakes_up(remote: Bench, server: Server) -> None:
    assert server.process is not None
    process = server.process
    try:
        _, error = run_and_disturb(remote, lambda: process.send_signal(signal.SIGSTOP))
        assert isinstance(error.__cause__, DeviceServerLost)
        assert "no sign of life" in str(error.__cause__)
        with pytest.raises(FailedStatus):
            remote.RE(bps.mv(remote.devices["motor"], 77.0))
        time.sleep(2.2)  # the deadline of that instruction must pass: there is nothing to wait for
    finally:
        process.send_signal(signal.SIGCONT)
    server.wait_until_heard(remote.devices["slow"]._link)
    assert remote.RE(bps.rd(remote.devices["motor"])).plan_result != 77.0
    result = remote.RE(bp.count([remote.devices["det"]]))  # it was unstaged late: ophyd stages nothing twice
    assert result.exit_status == "success"


def test_a_lost_connection_is_made_again_and_monitors_go_on(remote: Bench, server: Server) -> None:
    readings: list[float] = []

    def heard(reading: dict[str, Any]) -> None:
        readings.append(reading["sig"]["value"])

    remote.devices["sig"].subscribe(heard)
    remote.RE(bps.mv(remote.devices["sig"], 10.0))
    wait_for(lambda: 10.0 in readings, lambda: str(readings))

    wire = remote.devices["sig"]._link.operations.wire
    assert wire is not None

    async def own_number() -> int:
        return await wire.call("CLIENT", "ID")

    number = asyncio.run_coroutine_threadsafe(own_number(), remote.RE.loop).result(5.0)
    client = redis.Redis.from_url(server.settings.redis_url or "")
    try:
        client.client_kill_filter(_id=str(number))
    finally:
        client.close()

    def moved() -> bool:
        try:
            remote.RE(bps.mv(remote.devices["sig"], 20.0))
        except (FailedStatus, DeviceServerLost):
            return False
        return True

    wait_for(moved, lambda: server.log.read_text())
    wait_for(lambda: 20.0 in readings, lambda: str(readings))
    remote.devices["sig"].clear_sub(heard)


def test_a_blocked_loop_does_not_take_its_server_for_lost(remote: Bench) -> None:
    def plan() -> Any:
        yield from bps.mv(remote.devices["slow"].velocity, 10.0)
        yield from bps.abs_set(remote.devices["slow"], 5.0, group="move")
        yield from bps.sleep(0.05)
        time.sleep(1.5)  # what plans do
        yield from bps.wait("move")
        yield from bps.mv(remote.devices["slow"].velocity, 0.0, remote.devices["slow"], 0.0)

    assert remote.RE(plan()).exit_status == "success"


async def test_a_link_lives_in_the_loop_of_its_caller_too(server: Server, remote: Bench) -> None:
    link = await DeviceLink.connect(server.settings.redis_url or "", server.settings.beamline)
    try:
        motor = link.devices["motor"]
        await motor.set(3.0)
        assert (await motor.locate())["readback"] == 3.0
        assert (await link.request("motor", "read"))["motor"]["value"] == 3.0
        assert await asyncio.to_thread(link.ask, "motor", "read") == await motor.read()
        await asyncio.to_thread(motor.set(0.0).wait, 5.0)
        assert motor.position == 0.0
    finally:
        await link.close()
