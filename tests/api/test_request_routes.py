"""The queue, history, plans, locks and what happens, over real HTTP, with real scan server and API processes."""

import asyncio
import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bec_bluesky.api._requests import _ROUTES
from bec_bluesky.bus import Bus
from bec_bluesky.channels import POINTS, RUNS
from bec_bluesky.documents import api_key
from bec_bluesky.messages.products import Point, RunOpened
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.patience import PATIENCE
from tests.scan_server.scan_server_harness import SCRIPTED

SERVER = (
    "import sys; from bec_bluesky.scan_server import ScanServer; from bec_bluesky.service import main; "
    f"sys.exit(main(lambda settings: ScanServer(settings, worker_command={SCRIPTED!r}), name='scan_server'))"
)


@pytest.fixture(scope="module")
def served(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return redis_settings.with_(beamline="requests", data_dir=tmp_path_factory.mktemp("requests"))


@pytest.fixture(scope="module")
def url(served: Settings) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], env=os.environ | served.environment())
    try:
        with running_api(served) as url:
            until(lambda: status_of(url, served) == "idle")
            yield url
    finally:
        process.terminate()
        process.wait(30)


def status_of(url: str, served: Settings) -> str | None:
    found = httpx.get(f"{url}/api/v1/status", params={"api_key": api_key(served)}).json()["scan_server"]
    return None if found is None else found["run_state"]


@pytest.fixture
def http(url: str, served: Settings) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Apikey {api_key(served)}"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=PATIENCE) as client:
        yield client
        client.request("DELETE", "/lock", params={"key": "key"})
        client.post("/run/abort")
        until(lambda: client.get("/queue/status").json()["run_state"] == "idle")
        client.post("/queue/clear")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def add(http: httpx.Client, plan: str = "quick", **more: Any) -> str:
    added = http.post("/queue/items", json={"plan": plan, **more})
    assert added.status_code == 201, added.text
    return added.json()["item"]["item_id"]


def waiting(http: httpx.Client) -> list[str]:
    return [item["item_id"] for item in http.get("/queue").json()["waiting"]]


def test_items_are_added_moved_edited_held_and_removed(http: httpx.Client) -> None:
    first, second = add(http, title="first"), add(http)
    batch = http.post("/queue/items/batch", json={"items": [{"plan": "quick"}, {"plan": "wait"}], "position": 0})
    assert batch.status_code == 201
    third, fourth = (item["item_id"] for item in batch.json()["items"])
    assert waiting(http) == [third, fourth, first, second]
    http.post("/queue/items/move", json={"item_ids": [second, first], "before": third})
    assert waiting(http) == [second, first, third, fourth]
    edited = http.put(f"/queue/items/{first}", json={"plan": "quick", "kwargs": {"note": "b"}}).json()["item"]
    assert (edited["item_id"], edited["kwargs"]) == (first, {"note": "b"})
    anew = http.put(f"/queue/items/{first}", params={"has_new_id": "true"}, json={"plan": "quick"}).json()["item"]
    assert anew["item_id"] != first
    assert http.post(f"/queue/items/{second}/hold", json={"reason": "beam"}).status_code == 200
    held = http.get(f"/queue/items/{second}").json()
    assert (held["state"], held["held"]) == ("held", f"held by {getpass.getuser()}: beam")
    assert http.post(f"/queue/items/{second}/release").status_code == 200
    assert http.delete(f"/queue/items/{second}").status_code == 200
    removed = http.post("/queue/items/remove", json={"item_ids": [third, fourth]}).json()
    assert [item["item_id"] for item in removed["items"]] == [third, fourth]
    assert waiting(http) == [anew["item_id"]]
    assert http.post("/queue/clear").json()["waiting"] == 0
    assert waiting(http) == []


def test_a_run_is_controlled_and_found_in_the_history(http: httpx.Client) -> None:
    item_id = add(http, "wait", title="alignment of the slit", start=True)
    until(lambda: http.get("/queue/status").json()["run_state"] == "running")
    assert http.post("/run/abort", json={"reason": "enough", "item_id": "another"}).status_code == 409
    assert http.post("/run/abort", json={"reason": "enough", "item_id": item_id}).status_code == 200
    until(lambda: http.get("/queue/status").json()["run_state"] == "idle")
    found = http.get("/history", params={"text": "SLIT", "limit": 1}).json()
    assert [(item["item_id"], item["result"]["exit_status"]) for item in found["items"]] == [(item_id, "aborted")]
    queue = http.get("/history", params={"queue": "main", "limit": 1}).json()["items"]
    assert [item["item_id"] for item in queue] == [item_id]
    assert http.get("/history", params={"queue": "align"}).json()["items"] == []
    add(http, start=True)
    until(lambda: http.get("/history", params={"plan": "quick"}).json()["items"])
    first = http.get("/history", params={"limit": 1}).json()
    second = http.get("/history", params={"limit": 1, "before": first["next"]}).json()
    assert first["items"][0]["item_id"] != second["items"][0]["item_id"]
    assert http.post("/queue/items/execute", json={"plan": "quick"}).status_code == 201


def test_mode_plans_alarms_runs_lock_and_rules_are_told(http: httpx.Client) -> None:
    http.put("/queue/mode", json={"loop": True})
    assert http.get("/queue/status").json()["loop"]
    http.put("/queue/mode", json={"loop": False})
    assert http.get("/plans").json()[0]["name"] == "brief"
    assert http.get("/plans/quick").json()["parameters"][0]["name"] == "note"
    assert http.get("/plans/quick/form").json()["properties"] == {"note": {"default": ""}}
    assert isinstance(http.get("/alarms").json(), list) and isinstance(http.get("/runs").json(), list)
    assert http.put("/lock", json={"key": "key", "queue": True, "note": "mine"}).json()["note"] == "mine"
    refused = http.post("/queue/items", json={"plan": "quick"})
    assert (refused.status_code, refused.json()["code"]) == (423, "locked")
    assert http.post("/queue/items", json={"plan": "quick"}, headers={"Lock-Key": "key"}).status_code == 201
    assert not http.request("DELETE", "/lock", params={"key": "key"}).json()["queue"]
    seen = http.get("/commands", params={"verb": "add_item", "only_refused": True, "limit": 1}).json()
    assert [(each["code"], each["program"], each["host"]) for each in seen] == [("locked", "HTTP API", "127.0.0.1")]
    rules = http.get("/rules").json()
    assert http.put("/rules", json={"user_groups": rules["user_groups"]}).json()["user_groups"] == rules["user_groups"]


def test_a_refusal_has_a_code_and_one_sentence(http: httpx.Client) -> None:
    def said(verb: str, path: str, **more: Any) -> tuple[int, str]:
        answer = http.request(verb, path, **more)
        assert answer.json().keys() == {"detail", "code"}, answer.text
        return answer.status_code, answer.json()["code"]

    assert said("POST", "/queue/items", json={"plan": "quik"}) == (404, "unknown_plan")
    assert said("POST", "/queue/items", json={"plan": "quick", "kwargs": {"nose": 1}}) == (422, "bad_argument")
    assert said("POST", "/queue/items", json={"plan": "quick", "argz": []}) == (422, "bad_request")
    assert said("POST", "/queue/items/batch", json={"items": [{"plan": "quick", "a": 1}]}) == (422, "bad_request")
    assert said("POST", "/queue/items", json={"plan": 3}) == (422, "bad_request")
    assert said("POST", "/queue/items", content=b"{") == (422, "bad_request")
    assert said("DELETE", "/queue/items/nosuchitem") == (404, "unknown_item")
    assert said("GET", "/queue/items/nosuchitem") == (404, "unknown_item")
    assert said("GET", "/plans/nosuchplan") == (404, "unknown_plan")
    assert said("GET", "/queue", params={"queue": "nosuchqueue"}) == (404, "unknown_queue")
    assert said("POST", "/run/explode") == (422, "bad_request")
    assert said("POST", "/queue/start") == (409, "queue_empty")
    assert said("POST", "/run/stop") == (409, "nothing_runs")
    assert said("GET", "/history", params={"limit": "x"}) == (422, "bad_request")


def test_every_path_needs_the_key_and_is_described(url: str, http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for route in _ROUTES:
        assert httpx.request(route.verb, f"{url}/api/v1{route.path}").status_code == 401
        assert "200" in paths[f"/api/v1{route.path}"][route.verb.lower()]["responses"] or route.code != 200
    body = paths["/api/v1/queue/items"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["plan"] and body["properties"]["position"]["anyOf"]
    assert "$ref" not in json.dumps(paths["/api/v1/queue/items/batch"]["post"]["requestBody"])


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
FIELDS = st.sampled_from(["plan", "args", "kwargs", "items", "item_ids", "position", "before", "limit", "metadata"])
LEFT_OUT = ("/lock", "/environment/{action}", "/plans/reload")
"""They would change the system for the requests that follow, or ask the scripted worker what it does not know."""
ROUTES = [route for route in _ROUTES if route.path not in LEFT_OUT]


@hypothesis_settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    route=st.sampled_from(ROUTES),
    body=st.dictionaries(FIELDS, VALUES, max_size=3) | st.binary(max_size=20),
    query=st.dictionaries(FIELDS, st.text(max_size=6), max_size=2),
)
def test_hostile_requests_get_no_500_and_refused_ones_change_no_queue(
    http: httpx.Client, route: Any, body: Any, query: dict[str, str]
) -> None:
    before = http.get("/queue").json()
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    said = http.request(route.verb, route.path, params=query, **sent)
    assert said.status_code < 500, said.text
    if said.status_code >= 400:
        assert said.json()["detail"]
        assert http.get("/queue").json()["waiting"] == before["waiting"]


def live(url: str, served: Settings, kinds: str = "") -> ClientConnection:
    return connect(f"{url.replace('http', 'ws', 1)}/api/v1/live?kinds={kinds}&api_key={api_key(served)}")


def next_of(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message = json.loads(socket.recv(timeout=PATIENCE))
        if message["type"] == kind:
            return message["data"]


async def publish_a_point(served: Settings) -> None:
    """Write as the scan server and the bundler do."""
    async with Bus(served.redis_url or "", served.beamline) as bus:
        await bus.append(RUNS, RunOpened(run_uid="r1", scan_id=1, time=1.0))
        point = Point(run_uid="r1", scan_id=1, stream="primary", index=1, time=2.0, data={"det": float("nan")})
        await bus.append_at(POINTS, 1, point, run="r1")


def test_the_socket_tells_status_runs_and_points_as_they_come(url: str, served: Settings, http: httpx.Client) -> None:
    with live(url, served) as socket, live(url, served, "point") as points_only:
        assert next_of(socket, "status")["run_state"] == "idle"
        item_id = add(http)
        assert next_of(socket, "status")["waiting"] == 1
        http.post("/queue/start")
        assert next_of(socket, "item_done")["item"]["item_id"] == item_id
        asyncio.run(publish_a_point(served))
        assert next_of(socket, "point")["data"] == {"det": "NaN"}
        assert json.loads(points_only.recv(timeout=PATIENCE))["data"]["run_uid"] == "r1"
    page = http.get("/runs/r1/points").json()
    assert [point["index"] for point in page["points"]] == [1]
    assert http.get("/runs/r1/points", params={"after": page["next"]}).json()["points"] == []
    assert http.get("/runs/r1/points", params={"after": "x"}).status_code == 422


def test_the_socket_tells_who_asked_for_what(url: str, served: Settings, http: httpx.Client) -> None:
    with live(url, served, "command") as socket:
        item_id = add(http)
        assert http.post("/queue/items", json={"plan": "nosuch"}).status_code >= 400
        done, refused = (next_of(socket, "command") for _ in range(2))
    assert (done["verb"], done["items"], done["outcome"], done["host"]) == ("add_item", [item_id], "done", "127.0.0.1")
    assert (refused["outcome"], refused["code"]) == ("refused", "unknown_plan")


def test_a_late_joiner_gets_the_present_run_whole(url: str, served: Settings, http: httpx.Client) -> None:
    add(http, "wait", start=True)
    until(lambda: http.get("/queue/status").json()["run_uid"])
    with live(url, served) as socket:
        status = next_of(socket, "status")
        assert status["run_state"] == "running" and status["running"]["plan"] == "wait"
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url.replace('http', 'ws', 1)}/api/v1/live")
    assert refused.value.response.status_code == 401
