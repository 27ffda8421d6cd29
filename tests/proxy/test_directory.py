"""Devices appear, change and go as their server announces them; proxies stay the same objects."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import BEATS, DEVICE_CHANGES, DEVICES
from bec_bluesky.errors import DeviceServerLost, UnknownDeviceError
from bec_bluesky.messages.devices import Beat, DeviceInfo
from bec_bluesky.proxy import DeviceLink

MOTOR = DeviceInfo(
    name="samx",
    path="samx",
    server="east",
    state="connected",
    layer="ophyd",
    device_class="EpicsMotor",
    methods=["read", "describe", "set", "stop"],
    properties={"limits": (-1.0, 1.0), "egu": "mm"},
    children=["velocity"],
    hints={"fields": ["samx"]},
    representation="EpicsMotor('X', name='samx')",
)
VELOCITY = DeviceInfo(
    name="samx_velocity", path="samx.velocity", server="east", state="connected", parent="samx", methods=["read", "set"]
)


@pytest.fixture
async def link(bus: Bus) -> AsyncIterator[DeviceLink]:
    link = await DeviceLink.connect(bus.address, bus.beamline)
    yield link
    await link.close()


async def announce(bus: Bus, *infos: DeviceInfo) -> None:
    """Do what a device server does: table first, then the news."""
    for info in infos:
        await bus.put_fields(DEVICES, {info.path: info}, server=info.server)
        await bus.append(DEVICE_CHANGES, info)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_device_that_is_announced_later_appears(bus: Bus, link: DeviceLink) -> None:
    assert list(link.devices) == []
    await announce(bus, MOTOR, VELOCITY)
    await until(lambda: "samx.velocity" in link.devices)
    assert list(link.devices) == ["samx"]
    samx = link.devices["samx"]
    assert samx.hints == {"fields": ["samx"]} and samx.egu == "mm" and samx.velocity.parent is samx
    assert not hasattr(samx, "trigger")


async def test_a_device_built_anew_keeps_its_proxy(bus: Bus, link: DeviceLink) -> None:
    await announce(bus, MOTOR, VELOCITY)
    await until(lambda: "samx" in link.devices)
    samx = link.devices["samx"]
    rebuilt = msgspec.structs.replace(
        MOTOR, generation=2, methods=[*MOTOR.methods, "trigger"], properties={"limits": (-5.0, 5.0)}
    )
    await announce(bus, rebuilt)
    await until(lambda: hasattr(samx, "trigger"))
    assert link.devices["samx"] is samx
    assert samx.limits == (-5.0, 5.0)
    assert not hasattr(samx, "egu")

    await bus.append(DEVICE_CHANGES, MOTOR)  # old news
    await announce(bus, VELOCITY, msgspec.structs.replace(MOTOR, path="samy", name="samy"))
    await until(lambda: "samy" in link.devices)
    assert samx.limits == (-5.0, 5.0)


async def test_another_incarnation_of_a_server_tells_its_devices_anew(bus: Bus, link: DeviceLink) -> None:
    await announce(bus, msgspec.structs.replace(MOTOR, generation=9), VELOCITY)
    await until(lambda: "samx.velocity" in link.devices)
    samx = link.devices["samx"]
    await bus.delete(DEVICES, server="east")
    await bus.put_fields(DEVICES, {"samx": msgspec.structs.replace(MOTOR, children=[])}, server="east")
    await bus.publish(BEATS, Beat("east", "second", time.time()), server="east")
    await until(lambda: "samx.velocity" not in link.devices)
    assert link.devices["samx"] is samx
    assert not hasattr(samx, "velocity")
    with pytest.raises(UnknownDeviceError):
        link.devices["samx.velocity"]


async def test_servers_are_found_when_the_link_is_made(bus: Bus) -> None:
    await announce(bus, MOTOR, msgspec.structs.replace(MOTOR, path="samy", name="samy", server="west"))
    link = await DeviceLink.connect(bus.address, bus.beamline)
    try:
        assert sorted(link.devices) == ["samx", "samy"]
        assert type(link.devices["samx"]) is type(link.devices["samy"])
        with pytest.raises(DeviceServerLost, match="'west' is not running"):
            await link.devices["samy"].set(0.5)
        assert await link.devices["samy"].stop() is None
    finally:
        await link.close()


async def test_containers_are_used_by_key(bus: Bus, link: DeviceLink) -> None:
    bank = DeviceInfo(
        name="bank", path="bank", server="east", state="connected", device_class="DeviceVector", children=["1", "2"]
    )
    parts = [msgspec.structs.replace(VELOCITY, name=f"bank-{n}", path=f"bank.{n}", parent="bank") for n in (1, 2)]
    await announce(bus, *parts, bank)
    await until(lambda: "bank" in link.devices)
    made: Any = link.devices["bank"]
    assert list(made) == [1, 2] and len(made) == 2
    assert made[2].name == "bank-2" and made[2].parent is made
    assert dict(made.items())[1] is made.values()[0]
    with pytest.raises(KeyError):
        made[3]
