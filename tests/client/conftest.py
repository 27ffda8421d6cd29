"""A device server process for the module, a client for each test."""

from collections.abc import Iterator

import pytest

from bec_bluesky.client import Client
from bec_bluesky.settings import Settings
from tests.client.device_process import DeviceProcess, running_devices


@pytest.fixture(scope="module")
def beamline(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    with running_devices(redis_settings, tmp_path_factory.mktemp("people"), "people") as server:
        yield server


@pytest.fixture
def bl(beamline: DeviceProcess) -> Iterator[Client]:
    with Client(beamline.settings) as client:
        yield client
