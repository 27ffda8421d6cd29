"""A scan server in this process, and a client to ask it."""

from collections.abc import AsyncIterator

import pytest

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, serving


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    async with Caller(bus, user="ann") as caller:
        yield Client(caller)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ScanServer]:
    """A scan server whose worker is the scripted peer, without a spare."""
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT)) as server:
        yield server
