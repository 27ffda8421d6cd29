"""The soft IOCs and the system on them, started when the first test asks for them."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.iocs.hardware")
from tests.iocs.hardware import Hardware  # noqa: E402  # its assertions say what differs


@pytest.fixture(scope="package")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardware]:
    """Shared by all tests: each leaves the IOCs running and the queue idle."""
    hardware = Hardware(tmp_path_factory.mktemp("hardware"))
    try:
        hardware.start()
        yield hardware
    finally:
        hardware.end()


@pytest.fixture
def settled(hardware: Hardware) -> Hardware:
    """The same, with every axis at rest."""
    hardware.settle()
    return hardware
