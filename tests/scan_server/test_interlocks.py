"""Interlocks: as a pure state machine, and in a scan server with a real device server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.channels import ALARMS, DEVICES
from bec_bluesky.errors import RefusedError
from bec_bluesky.guards import Interlock
from bec_bluesky.messages.queue import AddItem, ClearQueue, ControlRun, ExecuteItem, ItemAccepted, StartQueue
from bec_bluesky.proxy import DeviceLink
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._interlock_state import InterlockState
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, serving, until

DEVICE_FILE = """
version: 1
devices:
  gauge: {class: "ophyd:Signal", kwargs: {value: 1.0}}
  door: {class: "ophyd:Signal", kwargs: {value: closed}}
  water: {class: "ophyd:Signal", kwargs: {value: 1}}
  room: {class: "ophyd:Signal", kwargs: {value: 20.0}}
"""
PROFILE = """
title = "test"
[[interlocks]]
name = "vacuum"
when = [{ device = "gauge", above = 5 }]
action = "pause_now"
when_clear = "resume"
[[interlocks]]
name = "hutch"
when = [{ device = "door", differs = "closed" }]
action = "stop_queue"
when_clear = "start_queue"
message = "somebody is inside"
[[interlocks]]
name = "cooling"
when = [{ device = "water", equals = 0 }]
action = "abort"
[[interlocks]]
name = "air"
when = [{ device = "room", above = 25 }]
action = "alarm"
"""


def interlock(**more: Any) -> InterlockState:
    conditions = [{"device": "a", "above": 5}, {"device": "b", "equals": "open"}]
    return InterlockState(Interlock.model_validate({"name": "n", "when": conditions, "action": "pause"} | more))


# ── the machine ───────────────────────────────────────────────────────────────────────────────────


def test_it_trips_after_its_grace_and_clears_after_it_was_good_for_as_long_as_asked() -> None:
    state = interlock(grace=2.0, clear_for=3.0)
    good, bad = {"a": 1.0, "b": "closed"}, {"a": 6.0, "b": "closed"}
    steps = [(good, 0), (bad, 1), (bad, 2.9), (good, 3), (bad, 4), (bad, 6), (bad, 7), (good, 8), (bad, 9), (good, 10)]
    assert [state.take(known, now) for known, now in steps] == [None] * 5 + ["tripped"] + [None] * 4
    assert state.take(good, 13) == "clear"
    assert not state.is_tripped


@pytest.mark.parametrize(
    ("match", "known", "text"),
    [
        ("any", {"a": 6.0, "b": "closed"}, "a is 6, above 5"),
        ("any", {"a": 1.0, "b": "open"}, "b is 'open', equal to 'open'"),
        ("any", {"a": float("nan"), "b": ""}, "a is nan, above 5"),
        ("all", {"a": 6.0, "b": "closed"}, ""),
        ("all", {"a": 6.0, "b": "open"}, "a is 6, above 5 and b is 'open', equal to 'open'"),
        ("any", {"b": ""}, "a cannot be read"),
        ("any", {"a": "?", "b": ""}, "a is '?', which cannot be compared"),
    ],
)
def test_what_cannot_be_read_or_compared_is_not_safe(match: str, known: dict[str, Any], text: str) -> None:
    state = interlock(match=match)
    assert state.take(known, 0) == ("tripped" if text else None)
    assert state.why == text
    assert interlock(when_lost="ignore").take({"b": "closed"}, 0) is None


# ── in a scan server ──────────────────────────────────────────────────────────────────────────────


@pytest_asyncio.fixture
async def instrument(settings: Settings, tmp_path: Path, bus: Bus) -> AsyncIterator[Settings]:
    collection = tmp_path / "profile" / "profile_collection"
    collection.mkdir(parents=True)
    (collection / "profile.toml").write_text(PROFILE)
    (collection / "devices.yaml").write_text(DEVICE_FILE)
    settings = settings.with_(profile=tmp_path / "profile")
    environment = os.environ | settings.environment()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bec_bluesky.device_server", env=environment)

    async def is_there() -> bool:
        infos = (await bus.fields(DEVICES, server="main")).values()
        return sum(info.state == "connected" for info in infos) == 4

    try:
        await until(is_there)
        yield settings
    finally:
        process.terminate()
        await process.wait()


@pytest_asyncio.fixture
async def server(instrument: Settings) -> AsyncIterator[ScanServer]:
    async with serving(made(instrument)) as server:
        yield server


def made(settings: Settings) -> ScanServer:
    return ScanServer(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT)


async def test_interlocks_act_on_what_runs_and_take_back_what_they_did(server: ScanServer, bus: Bus) -> None:
    link = await DeviceLink.connect(bus.address, bus.beamline)

    async def put(device: str, value: Any) -> None:
        await link.devices[device].set(value)  # pyright: ignore[reportAttributeAccessIssue]  # it has what the real one has

    async def untripped() -> None:
        await client.until_status(interlocks=[])

    try:
        async with Caller(bus, user="ann") as caller:
            client = Client(caller)
            await _pause_and_resume(client, put, untripped)
            await _stop_and_start(client, put, untripped)
            await _abort(client, put)
            await put("room", 30.0)
            await client.until_status(interlocks=["interlock cooling: water is 0, equal to 0", _AIR])
            await put("water", 1)
            await client.until_status(interlocks=[_AIR])
            await client.ask(AddItem(plan="quick", start=True))  # an alarm holds nothing
            await client.until_ended(5)
            edit(server, "interlocks = 3")
            await until(lambda: alarmed(bus, "interlocks must be a list of tables"))
            assert (await client.status()).interlocks == [_AIR]  # a mistake leaves them in force
            edit(server, 'title = "without"')
            await untripped()
    finally:
        await link.close()
    alarms = [message.text for _, message in await bus.read(ALARMS)]
    assert "interlock vacuum: gauge is 9, above 5: pause_now" in alarms
    assert "interlock vacuum is clear" in alarms


async def test_what_one_did_is_taken_back_by_the_scan_server_that_comes_after(instrument: Settings, bus: Bus) -> None:
    link = await DeviceLink.connect(bus.address, bus.beamline)
    door: Any = link.devices["door"]
    try:
        async with Caller(bus, user="ann") as caller:
            client = Client(caller)
            async with serving(made(instrument)):
                await client.ask(AddItem(plan="wait", start=True))
                await client.ask(AddItem(plan="quick"))
                await client.until_status(run_state="running", scan_id=1)
                await door.set("open")
                await client.until_status(queue_state="stopping")
                await client.ask(ControlRun(action="stop"))
                await client.until_status(queue_state="stopped", history=1, waiting=1)
            async with serving(made(instrument)):
                await client.until_status(interlocks=["interlock hutch: door is 'open', other than 'closed'" + _INSIDE])
                assert (await client.status()).queue_state == "stopped"
                await door.set("closed")
                await client.until_ended(2)
                await client.until_status(interlocks=[])
            async with serving(made(instrument)):
                await client.until_status(interlocks=[], history=2)
    finally:
        await link.close()


_INSIDE = " (somebody is inside)"


def edit(server: ScanServer, text: str) -> None:
    Path(server.settings.profile, "profile_collection", "profile.toml").write_text(text)


async def alarmed(bus: Bus, text: str) -> bool:
    return any(text in message.text for _, message in await bus.read(ALARMS))


_AIR = "interlock air: room is 30, above 25"


async def _pause_and_resume(client: Client, put: Any, untripped: Any) -> None:
    """Nothing can be resumed while it is tripped."""
    await client.ask(AddItem(plan="wait", start=True))
    await client.until_status(run_state="running", scan_id=1)
    await put("gauge", 9.0)
    status = await client.until_status(run_state="paused")
    assert status.interlocks == ["interlock vacuum: gauge is 9, above 5"]
    for body in (ControlRun(action="resume"), ExecuteItem(item=AddItem(plan="quick"))):
        with pytest.raises(RefusedError, match="interlock vacuum: gauge is 9, above 5; nothing begins") as refused:
            await client.ask(body)
        assert refused.value.code == "interlocked"
    await put("gauge", 1.0)
    await untripped()
    await client.until_status(run_state="running")
    await client.ask(ControlRun(action="stop"))
    await client.until_ended(1)


async def _stop_and_start(client: Client, put: Any, untripped: Any) -> None:
    """An item that somebody starts all the same waits and says for what."""
    await client.ask(AddItem(plan="wait", start=True))
    following: ItemAccepted = await client.ask(AddItem(plan="quick"))
    await client.until_status(run_state="running", scan_id=1)
    await put("door", "open")
    await client.until_status(queue_state="stopping")
    await client.ask(ControlRun(action="stop"))
    await client.until_status(queue_state="stopped", history=2)
    await client.ask(StartQueue())
    text = "interlock hutch: door is 'open', other than 'closed'" + _INSIDE
    assert (await client.until_status(waits_for=text)).waiting == 1
    await put("door", "closed")
    assert (await client.until_ended(3))[0].item_id == following.item.item_id
    await untripped()


async def _abort(client: Client, put: Any) -> None:
    await client.ask(ClearQueue())
    await client.ask(AddItem(plan="wait", start=True))
    await client.until_status(run_state="running", scan_id=1)
    await put("water", 0)
    ended = await client.until_ended(4)
    assert ended[0].result is not None
    assert ended[0].result.exit_status == "aborted"
