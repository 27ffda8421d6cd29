"""Subscriptions, readbacks, beats, and a lost Redis."""

import asyncio
import time
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import BEATS, DEVICES, READBACK_CHANGES, READBACKS
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.device_server._readbacks import Readbacks
from bec_bluesky.messages.devices import Beat
from tests.device_server.device_server_harness import Client, until

pytestmark = pytest.mark.usefixtures("server")


@pytest.mark.parametrize(("device", "key"), [("soft", "soft"), ("sig", "sig")])
async def test_every_change_is_told_until_the_subscription_ends(client: Client, device: str, key: str) -> None:
    await client.ask(device, "set", 2.0)  # a signal of ophyd tells its value only once it has been set
    subscription = await client.start(device, "subscribe")

    def values() -> list[Any]:
        return [answer.payload[key]["value"] for answer in client.of(subscription, "value")]

    first = (await until(values, "the present value"))[0]
    for value in (3.0, 4.0):
        await client.ask(device, "set", value)
        await until(lambda value=value: value in values(), "the change")
    assert values() == [first, 3.0, 4.0]
    await client.ask(device, "clear_sub", subscription)
    await client.ask(device, "set", 5.0)
    await client.ask("", "ping")
    assert values() == [first, 3.0, 4.0]


async def test_a_subscription_that_is_impossible_fails(client: Client) -> None:
    assert (await client.failure("blob", "subscribe")).kind == "AttributeError"
    assert "takes the id" in (await client.failure("soft", "clear_sub")).text


async def readback(bus: Bus, name: str) -> Any:
    return await bus.field(READBACKS, name, server="main")


async def test_readbacks_show_every_readable_device(bus: Bus) -> None:
    async def names() -> bool:
        wanted = {"axis", "det", "sig", "motor", "slow", "soft", "fixed"}
        return wanted <= (await bus.fields(READBACKS, server="main")).keys()

    await until(names, "readbacks")
    soft = await readback(bus, "soft")
    assert soft.reading["soft"]["value"] == 1.5
    assert soft.units == {"soft": "K"}
    assert soft.connected


@pytest.mark.parametrize("device", ["axis", "motor", "sig"])
async def test_a_readback_follows_a_set(client: Client, bus: Bus, device: str) -> None:
    await client.ask(device, "set", 3.0)

    async def is_there() -> bool:
        found = await readback(bus, device)
        return found is not None and found.reading[device]["value"] == 3.0

    await until(is_there, "the readback")


async def test_readbacks_follow_a_move_ten_times_a_second_at_most(client: Client, bus: Bus) -> None:
    await until(lambda: readback(bus, "slow"), "the first readback")
    last = await bus.last_id(READBACK_CHANGES)
    began = time.monotonic()
    await client.ask("slow", "set", 1.0)
    duration = time.monotonic() - began
    entries = [each for _, each in await bus.read(READBACK_CHANGES, last) if each.device == "slow"]
    assert 2 <= len(entries) <= duration / 0.1 + 1


async def test_the_server_beats_ten_times_a_second_at_most(bus: Bus, server: DeviceServer) -> None:
    times: list[float] = []
    async for beat in bus.listen(BEATS, server="main"):
        assert isinstance(beat, Beat)
        assert (beat.server, beat.epoch) == ("main", server.incarnation)
        times.append(beat.time)
        if len(times) == 6:
            break
    assert times[-1] - times[0] > 0.3


async def test_a_lost_connection_is_made_again_and_the_devices_told_again(
    bus: Bus, client: Client, server: DeviceServer
) -> None:
    await client.ask("motor", "set", 2.0)
    await bus.redis.delete(bus.key(DEVICES, server="main"))
    await bus.redis.client_kill_filter(_type="pubsub")
    client.close()
    again = Client(bus, "again")
    await again.connect()
    try:
        await until(lambda: bus.field(DEVICES, "motor", server="main"), "the table")
        assert await again.ask("motor", "get") == 2.0
        assert server._state == "running"
    finally:
        again.close()


async def test_readbacks_end_whatever_they_are_doing(bus: Bus, server: DeviceServer) -> None:
    """A cancellation alone may be lost in ophyd-async's reading; the server then would never end."""
    registry, executor = server._registry, server._executor
    assert registry is not None
    assert executor is not None
    for steps in range(80):
        readbacks = Readbacks("main", registry, executor.reader, executor.statuses, executor.connections, bus)
        task = asyncio.create_task(readbacks.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        readbacks.end()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=3.0)
        assert done, f"after {steps} steps"
