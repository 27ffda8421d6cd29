"""People with keys of their own, over real HTTP: what their roles and their groups' rules open, and what they read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tiled.client import from_uri

from bec_bluesky.documents import api_key
from bec_bluesky.people import CommandFile, PeopleBook
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.api.test_request_routes import SERVER, status_of, until
from tests.client.device_process import DeviceProcess, running_devices
from tests.patience import PATIENCE

GROUPS: dict[str, Any] = {
    "root": {"allowed_plans": [None], "allowed_devices": [None], "allowed_functions": [None]},
    "primary": {"allowed_plans": [None], "allowed_devices": [None], "allowed_functions": [None]},
    "chemists": {"allowed_plans": [":^quick$"], "allowed_devices": [":^temperature"]},
}


@pytest.fixture(scope="module")
def beamline(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    directory = tmp_path_factory.mktemp("people")
    settings = redis_settings.with_(data_dir=directory / "data")
    with running_devices(settings, directory, "people") as server:
        (directory / "profile" / "profile_collection" / "profile.toml").write_text('title = "people"\n')
        yield server


@pytest.fixture(scope="module")
def url(beamline: DeviceProcess) -> Iterator[str]:
    environment = os.environ | beamline.settings.environment()
    process = subprocess.Popen([sys.executable, "-c", SERVER], env=environment)
    try:
        with running_api(beamline.settings) as url:
            until(lambda: status_of(url, beamline.settings) == "idle")
            yield url
    finally:
        process.terminate()
        process.wait(30)


class People:
    """HTTP clients, each with the key of somebody."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = f"{url}/api/v1"
        self.book = PeopleBook(settings.people)
        self.open: list[httpx.Client] = []
        self.secrets: dict[str, str] = {}
        self.instrument = self._client(api_key(settings))

    def add(self, name: str, role: str, *, group: str | None = None, scopes: list[str] | None = None) -> httpx.Client:
        self.book.add(name, role, group=group)
        owner = self.book.named(name)
        assert owner is not None
        _, self.secrets[name] = self.book.make_key(owner, scopes, None, None)
        return self._client(self.secrets[name])

    def _client(self, key: str) -> httpx.Client:
        self.open.append(httpx.Client(base_url=self.url, headers={"Authorization": f"ApiKey {key}"}, timeout=PATIENCE))
        return self.open[-1]


@pytest.fixture
def people(url: str, beamline: DeviceProcess) -> Iterator[People]:
    people = People(url, beamline.settings)
    try:
        yield people
        people.instrument.post("/queue/clear")
    finally:
        for client in people.open:
            client.close()
        for user in people.book.users:
            people.book.remove(user.name)


def test_an_observer_looks_at_everything_and_changes_nothing(people: People) -> None:
    observer = people.add("otto", "observer")
    described = people.instrument.get("/openapi.json").json()["paths"]
    tried = 0
    for path, verbs in described.items():
        for verb in verbs.keys() & {"post", "put", "patch", "delete"}:
            if not path.startswith("/api/v1/"):
                continue
            said = observer.request(verb.upper(), path.removeprefix("/api/v1").replace("{", "").replace("}", ""))
            assert said.status_code == 403, (verb, path, said.text)
            assert "otto may not" in said.json()["detail"]
            tried += 1
    assert tried > 25
    for path in ("/queue", "/queue/status", "/history", "/plans", "/devices", "/devices/samx", "/runs", "/alarms"):
        assert observer.get(path).status_code == 200, path
    for path in ("/commands", "/console", "/lock", "/rules", "/tasks", "/status", "/device_file"):
        assert observer.get(path).status_code == 200, path


def test_a_user_runs_plans_in_their_own_name_and_sets_nothing_up(people: People, beamline: DeviceProcess) -> None:
    user = people.add("vera", "user")
    added = user.post("/queue/items", json={"plan": "quick"})
    assert added.status_code == 201
    assert added.json()["item"]["user"] == "vera"
    assert user.post("/devices/samx/move", json={"value": 1.5}).json()["value"] == 1.5
    for path in ("/tasks/script", "/device_file/reload"):
        assert user.post(path, json={}).status_code == 403
    for path in ("/lock", "/rules"):
        assert user.put(path, json={}).status_code == 403
    file = CommandFile(beamline.settings.data_dir, beamline.settings.beamline)
    until(lambda: any(each.user == "vera" and each.host == "127.0.0.1" for each in file.newest()))


def test_rules_of_a_group_hold_for_its_plans_and_devices(people: People) -> None:
    assert people.instrument.put("/rules", json={"user_groups": GROUPS}).status_code == 200
    chemist = people.add("ada", "user", group="chemists")
    assert chemist.post("/queue/items", json={"plan": "quick"}).status_code == 201
    refused = chemist.post("/queue/items", json={"plan": "brief"})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    for verb, body in (("move", {"value": 2}), ("set", {"value": 2}), ("trigger", {})):
        refused = chemist.post(f"/devices/samx/{verb}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted"), verb
    assert chemist.post("/devices/temperature/set", json={"value": 30.0}).status_code == 200
    assert chemist.post("/devices/samx/stop").status_code == 200, "stopping is never refused"
    staff = people.add("stan", "staff")
    assert staff.post("/devices/samx/move", json={"value": 0.5}).status_code == 200
    assert staff.put("/rules", json={"user_groups": GROUPS}).status_code == 200


def test_any_scope_to_write_is_enough_to_stop_in_ones_own_name(people: People, beamline: DeviceProcess) -> None:
    helper = people.add("eve", "user", scopes=["write:history:edit"])
    assert helper.get("/queue").status_code == 403
    assert helper.post("/queue/start").status_code == 403
    people.instrument.post("/queue/items", json={"plan": "wait", "start": True})
    until(lambda: people.instrument.get("/queue/status").json()["run_state"] == "running")
    stopped = helper.post("/devices/stop_all")
    assert (stopped.status_code, stopped.json()["complete"]) == (200, True)
    until(lambda: people.instrument.get("/queue/status").json()["run_state"] == "idle")
    file = CommandFile(beamline.settings.data_dir, beamline.settings.beamline)
    until(lambda: any((each.verb, each.user) == ("control_run abort", "eve") for each in file.newest()))


def test_who_may_only_add_does_not_start(people: People) -> None:
    helper = people.add("mona", "user", scopes=["write:queue:edit"])
    assert helper.post("/queue/items", json={"plan": "quick"}).status_code == 201
    refused = helper.post("/queue/items", json={"plan": "quick", "start": True})
    assert refused.status_code == 403
    assert "mona may not do that: it needs write:queue:control" in refused.json()["detail"]
    status = people.instrument.get("/queue/status").json()
    assert (status["queue_state"], status["waiting"]) == ("stopped", 1)


def test_a_revoked_key_opens_nothing_at_once(people: People) -> None:
    user = people.add("vera", "user")
    assert user.get("/queue").status_code == 200
    people.book.remove("vera")
    assert user.get("/queue").status_code == 401


def test_people_read_the_catalogue_with_their_own_keys_and_do_not_write_it(people: People, url: str) -> None:
    people.add("otto", "observer")
    people.add("mona", "observer", scopes=["read:status"])
    tiled = f"{url}/tiled/api/v1"
    client = from_uri(tiled, api_key=people.secrets["otto"])
    assert list(client) == []
    client.context.close()
    by_query = httpx.get(f"{tiled}/metadata/", params={"api_key": people.secrets["otto"]})
    assert by_query.status_code == 200
    assert people.secrets["otto"] not in by_query.text
    shown = {"Authorization": f"Apikey {people.secrets['otto']}"}
    assert httpx.post(f"{tiled}/metadata/", headers=shown, json={}).status_code == 403
    assert httpx.delete(f"{tiled}/metadata/x", headers=shown).status_code == 403
    assert (
        httpx.get(f"{tiled}/metadata/", headers={"Authorization": f"Apikey {people.secrets['mona']}"}).status_code
        == 403
    )
    assert httpx.get(f"{tiled}/metadata/", headers={"Authorization": "Apikey nonsense"}).status_code == 401
