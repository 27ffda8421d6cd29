"""Instructions in phases on the wire: what comes after a `then` waits for what comes before it."""

from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.errors import RefusedError
from tests.device_server import odd_devices
from tests.device_server.device_server_harness import Client, until

pytestmark = pytest.mark.usefixtures("server")


async def history(client: Client) -> list[str]:
    return await client.ask("lingering", "history")


async def test_a_phase_starts_when_the_one_before_has_ended(client: Client) -> None:
    move, trigger = client.op("slow", "set", 0.3), client.op("det", "trigger")
    read = client.op("", "read_all", "slow", "det", "axis")
    await client.send(move, client.op("", "then"), trigger, client.op("", "then"), read)
    readings = await client.end(read.id)
    assert readings["slow"]["slow"]["value"] == 0.3
    assert set(readings) == {"slow", "det", "axis"}
    assert [answer.id for answer in client.answers if answer.code != "progress"] == [move.id, trigger.id, read.id]


async def test_a_fast_point_is_answered_in_one_message(client: Client) -> None:
    await client.ask("", "ping")
    before = client.messages
    read = client.op("", "read_all", "motor", "soft")
    await client.send(client.op("motor", "set", 1.0), client.op("", "then"), read)
    assert (await client.end(read.id))["motor"]["motor"]["value"] == 1.0
    assert client.messages == before + 1


async def test_a_move_that_takes_long_is_answered_before_the_phase_after_it_has_ended(client: Client) -> None:
    move, nap = client.op("motor", "set", 1.0), client.op("napper", "nap", 30.0)
    await client.send(move, client.op("", "then"), nap)
    await client.end(move.id)
    assert not client.of(nap.id)
    await client.ask("napper", "stop")
    assert await client.end(nap.id) == "woken"


@pytest.mark.parametrize("failing", [("motor", "set", 200.0), ("soft", "set", "hot"), ("nobody", "set", 1.0)])
async def test_after_a_failure_nothing_more_starts(client: Client, failing: tuple[Any, ...]) -> None:
    ops = [client.op(*failing), client.op("soft", "set", 7.0)]
    later = [client.op("lingering", "trigger"), client.op("", "read_all", "soft")]
    await client.send(*ops, client.op("", "then"), later[0], client.op("", "then"), later[1])
    with pytest.raises(Exception, match=r"^(?!not started)"):
        await client.end(ops[0].id)
    for op in later:
        with pytest.raises(RefusedError, match="not started: what comes before it failed"):
            await client.end(op.id)
    assert await history(client) == []


async def test_a_device_that_cannot_be_read_does_not_hide_the_others(client: Client) -> None:
    readings = await client.ask("", "read_all", "soft", "nobody")
    assert readings["soft"]["soft"]["value"] == 1.5
    assert readings["nobody"]["type"] == "failure"


@pytest.mark.parametrize("way", ["give_up", "client_lost", "stop_all"])
async def test_what_is_given_up_triggers_nothing_though_the_move_ends_well(client: Client, bus: Bus, way: str) -> None:
    odd_devices.let_go.set()  # or one of the devices never stops
    move, later = client.op("slow", "set", 5.0), client.op("lingering", "trigger")
    await client.send(move, client.op("", "then"), later)
    await until(lambda: client.of(move.id, "progress"), "a motor that moves")
    if way == "give_up":
        # as a RunEngine does in a pause: the stop makes an end of the move that counts as success
        await client.send(client.op("", "give_up", later.id), client.op("slow", "stop", success=True))
        await client.end(move.id)
    else:
        await client.ask("", way, *([client.name] if way == "client_lost" else []))
    with pytest.raises(RefusedError, match="not started"):
        await client.end(later.id)
    other = Client(bus, "somebody")  # nothing that a lost client asks for is done any more
    await other.connect()
    try:
        assert await history(other) == []
    finally:
        other.close()
