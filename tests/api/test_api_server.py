"""The API as a real process: addresses, the key, profiles, and reading with and without the server."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from event_model import compose_run

from bec_bluesky.api import profile_name
from bec_bluesky.bus import Bus
from bec_bluesky.channels import SERVICES
from bec_bluesky.documents import api_key, find_catalog, open_catalog
from bec_bluesky.errors import SettingsError
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from writers.tiled import TiledWriter

READ_BACK = """
import json, sys
import databroker
from tiled.client import from_profile
name, uid = sys.argv[1:]
columns = [client[uid]["primary"]["det"].read().tolist() for client in (from_profile(name), databroker.catalog[name])]
print(json.dumps(columns))
"""


@pytest.fixture(scope="module")
def served(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return redis_settings.with_(beamline="api", data_dir=tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def url(served: Settings) -> Iterator[str]:
    with running_api(served) as url:
        yield url


def store_a_run(settings: Settings) -> str:
    """Write a run of three events with `det` = 1.5, 2.5, 3.5; give its uid."""
    address = find_catalog(settings)
    assert address is not None
    run = compose_run(metadata={"scan_id": 7})
    keys: Any = {"det": {"dtype": "number", "shape": [], "source": "sim"}}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    writer = TiledWriter(address.uri, address.api_key)
    writer("start", run.start_doc)
    writer("descriptor", stream.descriptor_doc)
    for value in (1.5, 2.5, 3.5):
        writer("event", stream.compose_event(data={"det": value}, timestamps={"det": 0.0}))
    writer("stop", run.compose_stop())
    assert writer.wait()
    writer.close()
    return run.start_doc["uid"]


async def test_the_heartbeat_says_where_it_answers(url: str, served: Settings) -> None:
    async with Bus(served.redis_url or "", served.beamline) as bus:
        beat = await bus.get(SERVICES, service="api")
    assert beat is not None
    assert beat.state == "running"
    assert beat.facts == {"url": url, "tiled": f"{url}/tiled/api/v1"}


def test_status_tells_the_services_to_whoever_has_the_key(url: str, served: Settings) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ready"}
    refused = httpx.get(f"{url}/api/v1/status")
    assert refused.status_code == 401
    assert "api.key" in refused.json()["detail"]
    answer = httpx.get(f"{url}/api/v1/status", headers={"Authorization": f"Apikey {api_key(served)}"}).json()
    assert answer["beamline"] == "api"
    assert answer["services"]["api"]["state"] == "running"
    assert answer["scan_server"] is None


def test_tiled_links_point_below_its_prefix_and_nothing_is_read_without_the_key(url: str, served: Settings) -> None:
    root = httpx.get(f"{url}/tiled/api/v1/metadata/", params={"api_key": api_key(served)}).json()
    assert root["data"]["links"]["self"] == f"{url}/tiled/api/v1/metadata/"
    assert root["data"]["attributes"]["specs"] == [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}]
    assert httpx.get(f"{url}/tiled/api/v1/metadata/").status_code == 401
    assert httpx.post(f"{url}/tiled/api/v1/metadata/", json={}).status_code == 401


def test_profiles_read_the_same_run_while_the_server_runs_and_after_it_stopped(
    redis_settings: Settings, tmp_path: Path
) -> None:
    settings = redis_settings.with_(beamline="profiled", data_dir=tmp_path / "data")
    with running_api(settings):
        uid = store_a_run(settings)
        assert read_back(settings, uid) == [[1.5, 2.5, 3.5]] * 2
    (profile,) = (settings.data_dir / "tiled-profiles").iterdir()
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600
    assert find_catalog(settings) is None
    assert read_back(settings, uid) == [[1.5, 2.5, 3.5]] * 2


def read_back(settings: Settings, uid: str) -> list[list[float]]:
    """Read `det` through the named profile with the Tiled client and with databroker, in a process of its own."""
    environment = os.environ | {"TILED_PROFILES": str(settings.data_dir / "tiled-profiles")}
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK, profile_name(settings), uid],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_open_catalog_reads_from_the_server(url: str, served: Settings) -> None:
    uid = store_a_run(served)
    catalog = open_catalog(served)
    try:
        assert catalog.uri.startswith(url)
        assert catalog[7].metadata["start"]["uid"] == uid
        assert catalog[-1]["primary"]["det"].read().tolist() == [1.5, 2.5, 3.5]
    finally:
        catalog.context.http_client.close()


def test_open_catalog_reads_the_files_when_the_server_is_down(redis_settings: Settings, tmp_path: Path) -> None:
    settings = redis_settings.with_(beamline="offline", data_dir=tmp_path / "data")
    with running_api(settings):
        uid = store_a_run(settings)
    script = f"""
from bec_bluesky.documents import open_catalog
from bec_bluesky.settings import load
print(open_catalog(load())[{uid!r}]["primary"]["det"].read().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | settings.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1.5, 2.5, 3.5]"


def test_no_catalogue_yet_is_said_with_the_way_out(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="run `bec-bluesky up`"):
        open_catalog(settings)


def test_a_port_in_use_is_one_sentence_that_names_the_port_and_the_setting(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "bec_bluesky.api"],
            env=os.environ | settings.with_(api_port=port).environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert str(port) in line
    assert "BEC_BLUESKY_API_PORT" in line


def test_the_key_is_private_and_the_same_for_all_who_ask_at_once(settings: Settings) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: api_key(settings), range(64)))
    assert len(keys) == 1
    path = settings.data_dir / "api.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in settings.data_dir.iterdir()] == ["api.key"]


def test_a_key_that_others_may_read_is_refused(settings: Settings) -> None:
    api_key(settings)
    (settings.data_dir / "api.key").chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        api_key(settings)
