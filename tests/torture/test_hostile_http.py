"""Hostile HTTP: every operation that the API describes is given values that it does not expect, and never breaks."""

import json
import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bec_bluesky.documents import api_key
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.client.device_process import DeviceProcess, running_devices
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED
from tests.torture.live_scan_server import live_scan_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NESTED: Any = 1
for _ in range(300):
    NESTED = [NESTED]
TEXTS = st.one_of(
    st.sampled_from(["", "samx", "..", "%00", "-1", "nan", "1e999", "' OR 1=1", "{sim}:epoch", "\u202e"]),
    st.text(max_size=10),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, math.nan, math.inf, 1e308]),
    TEXTS,
    st.builds(lambda: NESTED),
)
BODIES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
RAW = st.one_of(
    BODIES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=200), st.builds(lambda: b"[" * 100_000)
)
OPTIONS = hypothesis_settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def beamline(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    with running_devices(redis_settings, tmp_path_factory.mktemp("devices"), "hostile-http") as server:
        yield server


@pytest.fixture(scope="module")
def http(beamline: DeviceProcess) -> Iterator[httpx.Client]:
    beamline.settings.profile.joinpath("profile_collection", "profile.toml").write_text('title = "hostile"\n')
    headers = {"Authorization": f"Apikey {api_key(beamline.settings)}"}
    with (
        live_scan_server(beamline.settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT),
        running_api(beamline.settings) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30.0) as client,
    ):
        yield client


def operations(http: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    paths: dict[str, Any] = http.get("/api/v1/openapi.json").json()["paths"]
    return [(method, path, facts) for path, each in paths.items() for method, facts in each.items()]


def named(facts: dict[str, Any], place: str) -> list[str]:
    return [each["name"] for each in facts.get("parameters", []) if each["in"] == place]


def hostile_request(facts: dict[str, Any]) -> Any:
    """Give a strategy for one operation: some of what it takes is as it should be, some is not."""
    in_path = st.fixed_dictionaries(dict.fromkeys(named(facts, "path"), TEXTS))
    in_query = st.dictionaries(st.sampled_from([*named(facts, "query"), "nonsense"]), TEXTS, max_size=3)
    body = facts.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    fields = st.dictionaries(
        st.sampled_from(["value", "verb", "args", "kwargs", "timeout", "path"]), BODIES, max_size=4
    )
    content = (RAW | fields.map(lambda value: json.dumps(value).encode())) if body is not None else st.just(b"")
    return st.tuples(in_path, in_query, content)


def test_no_operation_breaks(http: httpx.Client) -> None:
    described = operations(http)
    assert len(described) > 10
    broken: list[str] = []
    for method, path, facts in described:
        broken += attacked(http, method, path, facts)
    assert broken == [], "\n".join(broken[:10])
    assert http.get("/healthz").status_code == 200


def attacked(http: httpx.Client, method: str, path: str, facts: dict[str, Any]) -> list[str]:
    """Attack one operation; give what broke it."""
    broken: list[str] = []

    @OPTIONS
    @given(request=hostile_request(facts))
    def attack(request: tuple[dict[str, str], dict[str, str], bytes]) -> None:
        in_path, in_query, content = request
        address = path
        for name, value in in_path.items():
            address = address.replace(f"{{{name}}}", quote(value))
        asked = f"{method} {address} {in_query} {content[:200]!r}"
        try:
            with http.stream(method.upper(), address, params=in_query, content=content) as answer:
                if answer.status_code == 500:
                    broken.append(f"{asked}: {answer.read()[:300]!r}")
        except httpx.TimeoutException as error:
            broken.append(f"{asked}: {error!r}")

    attack()
    return broken
