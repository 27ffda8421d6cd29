"""One pair of benches for the whole suite: the very same devices in this process and in a device server."""

from collections.abc import Iterator

import pytest

from bec_bluesky.settings import Settings
from tests.conformance.comparison import Pair
from tests.proxy.conftest import local_bench, remote_bench, running_server


@pytest.fixture(scope="package")
def pair(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A stock RunEngine at home, and an accelerated one with proxies, as a worker has it."""
    files = tmp_path_factory.mktemp("remote")
    with (
        local_bench(tmp_path_factory.mktemp("local")) as local,
        running_server(redis_settings, files) as server,
        remote_bench(server) as remote,
    ):
        yield Pair(local, remote)
