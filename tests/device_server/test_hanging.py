"""A device that hangs fails what is asked of it by name, is marked, costs nobody else, and comes back by itself."""

import asyncio

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import READBACKS
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.errors import DeviceDisconnected, DeviceTimeout
from tests.device_server.device_server_harness import Client, info, until

pytestmark = pytest.mark.usefixtures("server")


async def state(bus: Bus, device: str, wanted: str) -> bool:
    return (await info(bus, device)).state == wanted


async def test_a_call_that_does_not_return_fails_and_those_behind_it_are_made(client: Client, bus: Bus) -> None:
    await client.ask("stalling", "stall")
    ops = [client.op("sig", "read"), client.op("stalling", "trigger"), client.op("axis", "read")]
    await client.send(*ops)
    assert "sig" in await client.end(ops[0].id)
    with pytest.raises(DeviceTimeout, match=r"stalling.trigger did not return within 0.5 s \(`call_timeout` in"):
        await client.end(ops[1].id)
    assert "axis" in await client.end(ops[2].id)
    await until(lambda: state(bus, "stalling", "disconnected"), "the mark")
    assert "its trigger did not return within 0.5 s" in (await info(bus, "stalling")).reason
    with pytest.raises(DeviceTimeout, match=r"stalling\.stage is not carried out: stalling hangs, its trigger did not"):
        await client.ask("stalling", "stage")
    assert "axis" in await client.ask("axis", "read")
    await client.ask("stalling", "stop")  # which wakes this one
    await until(lambda: state(bus, "stalling", "connected"), "its return")
    assert "stalling_value" in await client.ask("stalling", "read")


async def test_a_reading_that_hangs_holds_up_no_completion(client: Client, bus: Bus) -> None:
    await client.ask("stalling", "stall")
    await client.ask("stalling_async", "stall")
    op = client.op("axis", "set", 1.0)
    await client.send(op, after=["axis", "stalling", "stalling_async"])
    await client.end(op.id)
    (answer,) = await until(lambda: client.of(op.id, "readings"), "readings")
    assert answer.payload["axis"]["axis"]["value"] == 1.0
    for name in ("stalling", "stalling_async"):
        assert answer.payload[name]["kind"].startswith("bec_bluesky.errors.Device")
        await client.ask(name, "stop")
    for name in ("stalling", "stalling_async"):
        await until(lambda name=name: state(bus, name, "connected"), "its return")


async def test_readbacks_of_others_go_on_while_one_device_hangs(client: Client, bus: Bus, server: DeviceServer) -> None:
    await client.ask("stalling", "stall")
    await until(lambda: state(bus, "stalling", "disconnected"), "the mark, by what reads for the readbacks")
    await client.ask("axis", "set", 3.25)

    async def shown() -> bool:
        readback = await bus.field(READBACKS, "axis", server="main")
        return readback is not None and readback.reading["axis"]["value"] == 3.25

    await until(shown, "the readback")
    await client.ask("stalling", "stop")
    await until(lambda: state(bus, "stalling", "connected"), "its return")


async def test_a_call_of_ophyd_async_that_hangs_is_cancelled(client: Client, bus: Bus) -> None:
    await client.ask("stalling_async", "stall")
    with pytest.raises((DeviceTimeout, DeviceDisconnected), match=r"stalling_async.*did not return within 0.5 s"):
        await client.ask("stalling_async", "read")
    await until(lambda: state(bus, "stalling_async", "disconnected"), "the mark")
    await client.ask("stalling_async", "stop")
    await until(lambda: state(bus, "stalling_async", "connected"), "its return")


async def test_what_is_not_done_in_time_fails_if_the_device_file_says_so(client: Client) -> None:
    with pytest.raises(DeviceTimeout, match=r"stalling_async.set was not done within 0.5 s \(`done_timeout` in"):
        await client.ask("stalling_async", "set", 1.0)


async def test_a_device_whose_own_word_is_a_timeout_is_not_one_that_hangs(client: Client, bus: Bus) -> None:
    await client.ask("grumbling", "be", True)
    await until(lambda: state(bus, "grumbling", "disconnected"), "the mark, by what reads for the readbacks")
    for _ in range(20):
        assert (await client.failure("grumbling", "read")).text.startswith("the amplifier has not settled")
        await asyncio.sleep(0.1)
    await client.ask("grumbling", "be", False)
    await until(lambda: state(bus, "grumbling", "connected"), "its return")
