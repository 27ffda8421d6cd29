"""Who holds what, on the raw wire: refused with who it is, all or none, free again after every end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_HOLDERS, DEVICES
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.errors import DeviceHeld, RefusedError, UnknownDeviceError
from bec_bluesky.messages.devices import DeviceHolder
from bec_bluesky.settings import Settings
from tests.device_server.device_server_harness import Client, serving, until, with_devices

DEVICE_FILE = """
axis: {class: "ophyd.sim:SynAxis"}
other: {class: "ophyd.sim:SynAxis"}
det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: axis}, motor_field: axis, center: 0, Imax: 10}}
flyer: {class: "ophyd.sim:MockFlyer", args: [flyer, {$ref: det}, {$ref: other}, -1, 1, 5]}
slow: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}, set: {velocity: 1.0, acceleration_time: 0.1}}
soft: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 1.5]}
lingering: {class: "tests.device_server.odd_devices:Lingering"}
lamp: {class: "ophyd:Signal", kwargs: {value: 1.0}, readout: baseline}
napper: {class: "tests.device_server.odd_devices:Napper"}
"""


@pytest.fixture
async def server(settings: Settings, bus: Bus, tmp_path: Path) -> AsyncIterator[DeviceServer]:
    """A running device server."""
    async with serving(with_devices(settings, tmp_path, DEVICE_FILE), bus) as server:
        yield server


class Holder:
    """Asks with a token."""

    def __init__(self, client: Client, token: str) -> None:
        self.client = client
        self.token = token

    async def ask(self, device: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        op = self.client.op(device, verb, *args, **kwargs)
        await self.client.send(op, token=self.token)
        return await self.client.end(op.id)


@pytest.fixture
async def plan(server: DeviceServer, bus: Bus) -> AsyncIterator[Holder]:
    """What runs the plan of an item."""
    client = Client(bus, "worker")
    await client.connect()
    yield Holder(client, "a plan")
    client.close()


@pytest.fixture
async def person(server: DeviceServer, bus: Bus) -> AsyncIterator[Holder]:
    """Somebody without a token."""
    client = Client(bus, "person")
    await client.connect()
    yield Holder(client, "")
    client.close()


async def claim_as_item(plan: Holder, *devices: str, seconds: float = 30.0) -> list[str]:
    text = "grid_scan (item 3f2a, anna)"
    return await plan.ask("", "claim", list(devices), text, seconds, item_id="3f2a", user="anna")


async def test_a_held_device_is_refused_with_who_holds_it_and_looking_and_stopping_are_not(
    plan: Holder, person: Holder
) -> None:
    assert await claim_as_item(plan, "slow", "axis") == ["slow", "axis"]
    await plan.ask("", "renew", "grid_scan (item 3f2a, anna)", 30.0, item_id="3f2a", user="anna", scan_id=12)
    sentence = "^slow is held by scan 12, grid_scan \\(item 3f2a, anna\\): wait for it to end, or stop it(\n|$)"
    for path, verb, arguments in (
        ("slow", "set", (1.0,)),
        ("slow", "stage", ()),
        ("slow", "prepare", ({"start_position": 0.0, "end_position": 1.0, "time_for_move": 1.0},)),
        ("slow.velocity", "set", (2.0,)),
        ("slow.velocity", "put", (2.0,)),
    ):
        with pytest.raises(DeviceHeld, match=sentence):
            await person.ask(path, verb, *arguments)
    assert await person.ask("slow.velocity", "get") == 1.0
    for path, verb in (("slow", "read"), ("slow", "locate"), ("slow", "describe"), ("slow", "stop")):
        await person.ask(path, verb)
    number = await person.client.start("soft", "subscribe")
    await person.ask("soft", "clear_sub", number)
    await plan.ask("axis", "set", 1.0)
    assert await plan.ask("", "release") == []
    await person.ask("axis", "set", 2.0)
    await person.ask("slow.velocity", "set", 2.0)


async def test_what_a_plan_uses_first_it_holds_from_then_on(plan: Holder, person: Holder) -> None:
    await claim_as_item(plan)
    await plan.ask("axis", "read")
    await person.ask("axis", "set", 1.0)
    await plan.ask("axis", "set", 2.0)
    await plan.ask("slow.velocity", "set", 2.0)
    for path in ("axis", "slow", "slow.velocity"):
        with pytest.raises(DeviceHeld, match="grid_scan"):
            await person.ask(path, "set", 3.0)
    assert sorted(await plan.ask("", "renew")) == ["axis", "slow"]


async def test_runs_side_by_side_read_the_same_baseline(plan: Holder, person: Holder) -> None:
    await plan.ask("lamp", "trigger")
    await person.ask("lamp", "trigger")
    await plan.ask("lamp", "set", 2.0)
    await person.ask("lamp", "trigger")
    assert (await person.ask("lamp", "read"))["lamp"]["value"] == 2.0
    with pytest.raises(DeviceHeld, match="lamp is held"):
        await person.ask("lamp", "set", 3.0)


async def test_claims_are_all_or_none(plan: Holder, person: Holder) -> None:
    await claim_as_item(plan, "axis")
    person.token = "anna"
    with pytest.raises(DeviceHeld, match="axis is held by grid_scan"):
        await person.ask("", "claim", ["other", "axis"], "anna")
    with pytest.raises(UnknownDeviceError, match="no device 'othr'"):
        await person.ask("", "claim", ["soft", "othr"], "anna")
    assert await plan.ask("", "claim", ["other", "soft"], "grid_scan") == ["axis", "other", "soft"]
    assert await person.ask("", "claim", ["lingering"], "anna") == ["lingering"]
    with pytest.raises(DeviceHeld, match="lingering is held by anna: it is free when they let go of it"):
        await plan.ask("lingering", "trigger")
    assert await person.ask("", "release", ["lingering"]) == []
    await plan.ask("lingering", "trigger")


async def test_who_moves_others_holds_them_too_and_who_only_looks_does_not(
    plan: Holder, person: Holder, bus: Bus
) -> None:
    assert await claim_as_item(plan, "det") == ["det"]
    await person.ask("axis", "set", 1.0)
    await plan.ask("", "release")
    assert await claim_as_item(plan, "flyer") == ["flyer", "det", "other"]
    described = await bus.fields(DEVICES, server="main")
    assert (described["flyer"].refers_to, described["det"].refers_to) == (["det", "other"], ["axis"])
    with pytest.raises(DeviceHeld, match="other is held by"):
        await person.ask("other", "set", 1.0)
    await plan.ask("", "release")
    await claim_as_item(plan, "other")
    with pytest.raises(DeviceHeld, match="other is held by"):
        await person.ask("flyer", "kickoff")


async def test_nobody_needs_a_token_for_what_is_free_and_claims_need_one(person: Holder) -> None:
    await person.ask("axis", "set", 1.0)
    for verb, arguments in (("claim", (["axis"],)), ("renew", ()), ("release", ())):
        with pytest.raises(RefusedError, match=f"{verb} needs a token"):
            await person.ask("", verb, *arguments)
    person.token = "anna"
    with pytest.raises(RefusedError, match="claim was asked with"):
        await person.ask("", "claim")
    with pytest.raises(RefusedError, match="claim was asked with"):
        await person.ask("", "claim", ["axis"], "anna", 10.0, colour="red")


async def test_what_nobody_renews_is_free_again(plan: Holder, person: Holder, bus: Bus) -> None:
    await claim_as_item(plan, "axis", seconds=30.0)
    await until(lambda: bus.field(DEVICE_HOLDERS, "axis", server="main"), "the table")
    await claim_as_item(plan, seconds=0.05)
    await until(lambda: is_free(bus, "axis"), "the end of the claim")
    await person.ask("axis", "set", 1.0)
    assert await plan.ask("", "renew") == []


async def is_free(bus: Bus, device: str) -> bool:
    return await bus.field(DEVICE_HOLDERS, device, server="main") is None


async def test_a_lost_client_holds_nothing_and_a_claim_waits_until_it_is_stopped(
    plan: Holder, person: Holder, server: DeviceServer
) -> None:
    await claim_as_item(plan, "slow", "lingering")
    move = plan.client.op("slow", "set", 50.0)
    await plan.client.send(move, token=plan.token)
    await until(lambda: plan.client.of(move.id, "progress"), "progress")
    await plan.ask("lingering", "stage")
    person.token = "the next plan"
    loss, claim = person.client.op("", "client_lost", "worker"), person.client.op("", "claim", ["slow", "lingering"])
    await person.client.send(loss)
    await person.client.send(claim, token=person.token)
    assert await person.client.end(claim.id) == ["slow", "lingering"]
    assert [each.id for each in person.client.answers] == [loss.id, claim.id]
    with pytest.raises(RuntimeError):
        await plan.client.end(move.id)
    await person.ask("lingering", "trigger")
    assert await person.ask("lingering", "history") == ["unstaged", "triggered"]
    await person.ask("", "release")
    with pytest.raises(RefusedError, match=r"axis\.set is not carried out: who asked for it is gone"):
        await plan.ask("axis", "set", 1.0)  # it was still on its way
    with pytest.raises(RefusedError, match="claim is not carried out"):
        await claim_as_item(plan, "axis")
    await plan.ask("axis", "stop")


async def test_who_is_gone_without_a_word_holds_nothing(plan: Holder, person: Holder, bus: Bus) -> None:
    await claim_as_item(plan, "axis", seconds=1000.0)
    await until(lambda: bus.field(DEVICE_HOLDERS, "axis", server="main"), "the table")
    plan.client.close()
    await until(lambda: is_free(bus, "axis"), "the end of the claim")
    await person.ask("axis", "set", 1.0)


async def test_a_panic_stop_reaches_what_is_held(plan: Holder, person: Holder) -> None:
    await claim_as_item(plan, "slow")
    move = plan.client.op("slow", "set", 50.0)
    await plan.client.send(move, token=plan.token)
    await until(lambda: plan.client.of(move.id, "progress"), "progress")
    assert await person.ask("", "stop_all") == {}
    with pytest.raises(RuntimeError):
        await plan.client.end(move.id)


async def test_the_table_says_who_holds_what(plan: Holder, bus: Bus) -> None:
    await claim_as_item(plan, "axis", "flyer")

    async def table() -> dict[str, DeviceHolder]:
        return await bus.fields(DEVICE_HOLDERS, server="main")

    async def is_of_scan_12() -> bool:
        rows = (await table()).values()
        return bool(rows) and all(row.scan_id == 12 for row in rows)

    await until(lambda: table(), "the table")
    await plan.ask("", "renew", "grid_scan (item 3f2a, anna)", 30.0, item_id="3f2a", user="anna", scan_id=12)
    await until(is_of_scan_12, "the scan number")
    rows = await table()
    assert sorted(rows) == ["axis", "det", "flyer", "other"]
    row = rows["axis"]
    assert (row.text, row.client) == ("scan 12, grid_scan (item 3f2a, anna)", "worker")
    assert (row.item_id, row.user, row.device) == ("3f2a", "anna", "axis")
    await bus.delete(DEVICE_HOLDERS, server="main")  # a Redis that lost its data
    await plan.ask("", "release", ["axis"])
    await until(lambda: lacks_axis(bus), "the release")
    await plan.ask("", "release")

    async def is_empty() -> bool:
        return not await table()

    await until(is_empty, "the release")


async def lacks_axis(bus: Bus) -> bool:
    return "axis" not in await bus.fields(DEVICE_HOLDERS, server="main")


async def test_of_two_that_race_for_a_device_one_has_it(plan: Holder, person: Holder) -> None:
    """Many tries on overlapping devices, from two connections at once."""
    person.token = "another plan"
    devices = ["axis", "other", "soft"]

    async def race(holder: Holder, wanted: list[str]) -> int:
        won = 0
        for number in range(60):
            try:
                await holder.ask("", "claim", wanted, holder.token)
            except DeviceHeld:
                continue
            won += 1
            await holder.ask(wanted[0], "set", float(number))
            await asyncio.sleep(0)
            await holder.ask(wanted[-1], "set", float(number))
            await holder.ask("", "release")
        return won

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(race(plan, devices)), group.create_task(race(person, devices[::-1]))]
    assert all(task.result() > 0 for task in tasks)
