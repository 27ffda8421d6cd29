"""The demo instrument on caproto's `mini_beamline` IOC: real processes, Channel Access over loopback."""

import asyncio
import contextlib
import math
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bec_bluesky import plugins
from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICES, READBACKS
from bec_bluesky.messages.devices import DeviceInfo, Readback
from bec_bluesky.settings import DEFAULT_PROFILE, Settings
from tests.device_server.device_server_harness import Client, info, until
from tests.ports import free_ports

MINI = DEFAULT_PROFILE / "profile_collection" / "mini_beamline"
CONNECT_TIMEOUT = 60.0
"""Seconds; two processes start that import much."""


class Instrument:
    """The IOC and a device server, as processes, as `up` would run them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._profile = plugins.read_profile(settings)
        self._port = str(free_ports(1)[0])
        self._processes: dict[str, Process] = {}

    async def start_ioc(self) -> None:
        words = {"{python}": sys.executable, "50641": self._port}
        command = [_filled(each, words) for each in self._profile.companions["ioc"]]
        await self._start("ioc", command, {})

    async def start_server(self) -> None:
        environment = {key: _filled(value, {"50641": self._port}) for key, value in self._profile.environment.items()}
        command = [sys.executable, "-m", "bec_bluesky.device_server"]
        await self._start("server", command, environment | self._settings.environment())

    async def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self._processes[name] = await asyncio.create_subprocess_exec(
            *command, env=os.environ | environment, stdout=DEVNULL, stderr=DEVNULL
        )

    async def end(self, name: str) -> None:
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()

    async def end_all(self) -> None:
        for name in list(self._processes):
            await self.end(name)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


@pytest.fixture
async def instrument(settings: Settings, bus: Bus) -> AsyncIterator[Instrument]:
    """Both, with every device connected."""
    instrument = Instrument(settings.with_(profile=MINI))
    await instrument.start_ioc()
    await instrument.start_server()

    async def is_connected() -> bool:
        table = await bus.fields(DEVICES, server="main")
        return bool(table) and all(found.state == "connected" for found in table.values())

    try:
        await until(is_connected, "every device", CONNECT_TIMEOUT)
        yield instrument
    finally:
        await instrument.end_all()


async def test_a_scan_on_a_soft_ioc_sees_the_peak_and_survives_the_loss_of_the_ioc(
    instrument: Instrument, client: Client, bus: Bus
) -> None:
    """One test, since starting the processes is what takes its time."""
    await _scan_sees_the_peak(client)
    await _move_is_followed_and_ends_where_it_should(client, bus)
    await _file_is_written(client, instrument)
    await instrument.end("ioc")

    async def found(state: str) -> DeviceInfo | None:
        present = await info(bus, "ph_mtr")
        return present if present.state == state else None

    lost = await until(lambda: found("disconnected"), "the loss", 20.0)
    assert lost.reason == "mini:ph:mtr and 3 more PVs do not answer"
    assert (await info(bus, "blob")).state == "connected"

    async def readback() -> bool:
        return not (await bus.field(READBACKS, "ph_mtr", server="main")).connected

    await until(readback, "a readback that says so")
    await instrument.start_ioc()
    await until(lambda: found("connected"), "the return", 40.0)
    await client.ask("ph_mtr", "set", 1.0)
    assert await client.ask("ph_mtr", "get") == pytest.approx(1.0)  # the soft motor adds up its steps


async def _scan_sees_the_peak(client: Client) -> None:
    """Each count is of the position at which it was triggered: a stale one would be off by a factor."""
    for position in (-10.0, -5.0, 0.0, 5.0):
        await client.ask("ph_mtr", "set", position)
        op = client.op("ph_det", "trigger")
        await client.send(op, after=["ph_det", "ph_mtr"])
        (answer,) = await until(lambda number=op.id: client.of(number, "readings"), "readings")
        expected = 200 * 500 * math.exp(-(position**2) / 50)
        assert answer.payload["ph_mtr"]["ph_mtr"]["value"] == position
        assert answer.payload["ph_det"]["ph_det"]["value"] == pytest.approx(expected, rel=0.12)


async def _move_is_followed_and_ends_where_it_should(client: Client, bus: Bus) -> None:
    number = await client.start("edge_mtr", "set", 8.0)
    seen: set[float] = set()

    async def look() -> bool:
        readback = await bus.field(READBACKS, "edge_mtr", server="main")
        assert isinstance(readback, Readback)
        seen.add(readback.reading["edge_mtr"]["value"])
        return bool(client.of(number, "done", "failed"))

    await until(look, "the end of the move")
    assert await client.ask("edge_mtr", "get") == 8.0
    assert len([value for value in seen if 0.0 < value < 8.0]) >= 2


async def _file_is_written(client: Client, instrument: Instrument) -> None:
    await client.ask("stage_x", "set", 1.0)
    await client.ask("blob", "stage")
    await client.ask("blob", "trigger")
    documents = await client.ask("blob", "collect_asset_docs")
    assert Path(documents[0][1]["uri"].removeprefix("file://localhost")).is_file()  # noqa: ASYNC240  # a test
    await client.ask("blob", "unstage")
