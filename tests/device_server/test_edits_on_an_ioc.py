"""An edit that builds one device anew leaves the Channel Access connections and monitors of the others alone."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_CHANGES, DEVICES
from bec_bluesky.settings import Settings
from tests.device_server.device_server_harness import Client, info, until
from tests.device_server.test_soft_ioc import CONNECT_TIMEOUT, MINI, Instrument


@pytest.fixture
async def instrument(settings: Settings, bus: Bus, tmp_path: Path) -> AsyncIterator[Instrument]:
    """The demo instrument on its IOC, with a device file of its own."""
    shutil.copytree(MINI, tmp_path / "profile")
    instrument = Instrument(settings.with_(profile=tmp_path / "profile"))
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


async def test_the_others_keep_their_connections_and_monitors(instrument: Instrument, client: Client, bus: Bus) -> None:
    watched = client.op("edge_mtr", "subscribe")
    await client.send(watched)
    await client.ask("ph_mtr", "set", 1.0)
    done = await client.ask("", "change", {"ph_mtr": {"timeout": 9, "limits.low": -90, "limits.high": 90}}, {})
    assert (done["changed"], done["rebuilt"]) == (["ph_mtr"], [])
    done = await client.ask("", "change", {"ph_mtr": {"kwargs.labels": ["photons"]}}, {})
    assert "ph_mtr" in done["rebuilt"] and not done["failed"]
    assert await client.ask("ph_mtr", "get") == 1.0
    others = [each.path for _, each in await bus.read(DEVICE_CHANGES) if each.generation > 1]
    assert not [path for path in others if path.startswith("edge")]
    assert (await info(bus, "edge_mtr")).generation == 1
    await client.ask("edge_mtr", "set", 2.0)

    def is_told() -> bool:
        values = client.of(watched.id, "value")
        return bool(values) and values[-1].payload["edge_mtr"]["value"] == 2.0

    await until(is_told, "the monitor of edge_mtr")
