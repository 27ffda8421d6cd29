"""bluesky-httpserver's interface against a real system: its client, paths, codes, keys and sockets."""

import asyncio
import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openpyxl
import pytest
from bluesky_queueserver_api import BInst, BPlan
from bluesky_queueserver_api.http import REManagerAPI
from bluesky_queueserver_api.http.aio import REManagerAPI as AsyncREManagerAPI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bec_bluesky.documents import api_key
from bec_bluesky.people import PeopleBook
from bec_bluesky.settings import load
from tests.live_system import System
from tests.patience import PATIENCE
from tests.queueserver.conftest import KEY

COUNT = BPlan("count", ["det"], num=2)
SCAN = BPlan("scan", ["det"], "motor", -1, 1, num=3)
WAIT = BPlan("wait_long", 30)
ITEM = {"item_type": "plan", "name": "count", "args": [["det"]], "kwargs": {"num": 2}}


@pytest.fixture
def manager(url: str, http: httpx.Client) -> Iterator[REManagerAPI]:
    """The peer's client, with an open environment."""
    manager = REManagerAPI(
        http_server_uri=url, status_expiration_period=0.02, status_polling_period=0.05, timeout=PATIENCE
    )
    manager.set_authorization_key(api_key=KEY)
    manager.environment_open()
    manager.wait_for_idle(timeout=PATIENCE)
    try:
        yield manager
    finally:
        if manager.status(reload=True)["manager_state"] == "executing_queue":
            manager.re_pause("immediate")
            manager.wait_for_idle_or_paused(timeout=PATIENCE)
        if manager.status(reload=True)["manager_state"] == "paused":
            manager.re_halt()
        manager.wait_for_idle(timeout=PATIENCE)
        manager.environment_close()
        manager.wait_for_idle(timeout=PATIENCE)
        manager.history_clear()
        manager.close()


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


# ── the peer's client ──


def test_the_clients_methods_about_the_queue(manager: REManagerAPI) -> None:
    first = manager.item_add(COUNT)["item"]
    assert (first["user"], first["user_group"]) == ("UNAUTHENTICATED_SINGLE_USER", "primary")
    manager.item_add_batch([SCAN, BInst("queue_stop")])
    manager.item_move(uid=first["item_uid"], pos_dest="back")
    items = manager.queue_get(reload=True)["items"]
    assert names(items) == ["scan", "queue_stop", "count"]
    manager.item_move_batch(uids=[items[1]["item_uid"]], pos_dest="front")
    assert manager.item_get(pos="front")["item"]["name"] == "queue_stop"
    assert manager.item_get(uid=first["item_uid"])["item"]["name"] == "count"
    assert manager.item_update(first | {"kwargs": {"num": 5}})["item"]["kwargs"] == {"num": 5}
    assert manager.item_remove(pos="front")["item"]["name"] == "queue_stop"
    assert names(manager.item_remove_batch(uids=[first["item_uid"]])["items"]) == ["count"]
    manager.queue_mode_set(loop=False, ignore_failures=False)
    manager.queue_clear()
    assert manager.status(reload=True)["items_in_queue"] == 0
    with pytest.raises(manager.RequestFailedError, match="nosuchplan"):
        manager.item_add(BPlan("nosuchplan"))


def test_the_clients_methods_about_runs(manager: REManagerAPI) -> None:
    manager.item_add_batch([BPlan("wait_long", 3), WAIT])
    manager.queue_start()
    manager.queue_stop()
    manager.queue_stop_cancel()
    manager.wait_for_condition(lambda status: status["items_in_history"] == 1, timeout=PATIENCE)
    manager.re_pause("immediate")
    manager.wait_for_idle_or_paused(timeout=PATIENCE)
    manager.re_resume()
    manager.re_pause()
    manager.wait_for_idle_or_paused(timeout=PATIENCE)
    manager.re_abort()
    manager.wait_for_idle(timeout=PATIENCE)
    manager.queue_clear()
    manager.item_execute(COUNT)
    manager.wait_for_idle(timeout=PATIENCE)
    history = manager.history_get(reload=True)["items"]
    assert [(item["name"], item["result"]["exit_status"]) for item in history] == [
        ("wait_long", "completed"),
        ("wait_long", "aborted"),
        ("count", "completed"),
    ]
    (run,) = manager.re_runs()["run_list"]
    assert run["uid"] == history[2]["result"]["run_uids"][0]
    manager.queue_autostart(True)
    manager.queue_autostart(False)


def test_the_clients_methods_about_what_surrounds_the_queue(manager: REManagerAPI) -> None:
    assert {"count", "wait_long"} <= set(manager.plans_allowed()["plans_allowed"])
    assert {"det", "motor"} <= set(manager.devices_allowed()["devices_allowed"])
    assert "count" in manager.plans_existing()["plans_existing"]
    assert "det" in manager.devices_existing()["devices_existing"]
    rules = manager.permissions_get()["user_group_permissions"]
    manager.permissions_set(rules)
    manager.permissions_reload()
    assert manager.config_get()["config"] is not None
    manager.lock_all("key", note="alignment")
    assert manager.lock_info("key", reload=True)["lock_info"]["note"] == "alignment"
    with pytest.raises(manager.RequestFailedError, match="Invalid lock key"):
        manager.item_add(COUNT)
    manager.unlock("key")
    with pytest.raises(manager.RequestFailedError):
        manager.kernel_interrupt()


def test_the_clients_methods_about_keys(manager: REManagerAPI) -> None:
    assert manager.whoami()["identities"][0]["id"] == "UNAUTHENTICATED_SINGLE_USER"
    assert "write:queue:edit" in manager.api_scopes()["scopes"]
    made = manager.apikey_new(expires_in=900, scopes=["read:status", "user:apikeys"], note="a screen")
    assert (made["scopes"], made["note"]) == (["read:status", "user:apikeys"], "a screen")
    assert manager.apikey_info(api_key=made["secret"])["first_eight"] == made["first_eight"]
    assert manager.api_scopes(api_key=made["secret"])["scopes"] == ["read:status", "user:apikeys"]
    (principal,) = manager.principal_info()
    assert made["first_eight"] in [key["first_eight"] for key in principal["api_keys"]]
    assert "secret" not in json.dumps(principal)
    inherits = manager.apikey_new(expires_in=900, principal_uid=principal["uuid"])
    assert inherits["scopes"] == ["inherit"]
    manager.set_authorization_key(api_key=made["secret"])
    assert manager.status(reload=True)["manager_state"] == "idle"
    with pytest.raises(manager.HTTPClientError, match="401: Not enough permissions"):
        manager.queue_clear()
    with pytest.raises(manager.HTTPClientError, match=r"400: .*must be a subset"):
        manager.apikey_new(expires_in=900, scopes=["write:queue:edit"])
    assert manager.apikey_new(expires_in=900)["scopes"] == ["read:status", "user:apikeys"]
    manager.set_authorization_key(api_key=KEY)
    for each in (made, inherits):
        manager.apikey_delete(first_eight=each["first_eight"])
    with pytest.raises(manager.HTTPClientError, match="401: Invalid API key"):
        manager.whoami(api_key=made["secret"])
    with pytest.raises(manager.HTTPClientError, match="404"):
        manager.login("somebody", password="secret", provider="/toy/token")
    manager.logout()
    manager.set_authorization_key(api_key=KEY)


def test_a_person_logs_in_with_a_password_and_is_who_items_say(manager: REManagerAPI, system: System) -> None:
    book = PeopleBook(system.data / "people.json")
    book.add("vera", "user", password="correct horse")
    book.add("otto", "observer", password="correct horse")
    try:
        with pytest.raises(manager.HTTPClientError, match="401: Incorrect username or password"):
            manager.login("vera", password="wrong horse", provider="/local/token")
        said = manager.login("vera", password="correct horse", provider="/local/token")
        assert said["token_type"] == "bearer"
        who = manager.whoami()
        assert (who["identities"][0]["id"], who["roles"]) == ("vera", ["user"])
        item = manager.item_add(BPlan("count", ["det"], num=1))["item"]
        assert (item["user"], item["user_group"]) == ("vera", "primary")
        with pytest.raises(manager.HTTPClientError, match="401: Not enough permissions"):
            manager.script_upload("1 + 1")
        key = manager.apikey_new(expires_in=900)
        assert manager.session_refresh()["token_type"] == "bearer"
        assert manager.whoami()["identities"][0]["id"] == "vera"
        manager.set_authorization_key(api_key=key["secret"])
        assert manager.whoami()["identities"][0]["id"] == "vera"
        manager.queue_clear()
        manager.login("otto", password="correct horse", provider="/local/token")
        assert manager.status(reload=True)["items_in_queue"] == 0
        with pytest.raises(manager.HTTPClientError, match="401: Not enough permissions"):
            manager.item_add(BPlan("count", ["det"], num=1))
        session = manager.whoami()["sessions"][0]["uuid"]
        manager.session_revoke(session_uid=session)
        with pytest.raises(manager.HTTPClientError, match="401"):
            manager.whoami()
    finally:
        manager.set_authorization_key(api_key=KEY)
        book.remove("vera")
        book.remove("otto")


def test_a_spoiled_file_of_people_is_told_to_who_logs_in_and_shuts_nobody_out(
    manager: REManagerAPI, url: str, system: System
) -> None:
    book = PeopleBook(system.data / "people.json")
    book.add("vera", "user", password="correct horse")
    well = book.path.read_text()
    try:
        manager.login("vera", password="correct horse", provider="/local/token")
        book.path.write_text(well.replace('"role": "user"', '"role": "usr"'))
        with pytest.raises(manager.HTTPServerError, match="503"):
            manager.login("vera", password="correct horse", provider="/local/token")
        form = {"username": "vera", "password": "correct horse"}
        told = httpx.post(f"{url}/api/auth/provider/local/token", data=form)
        assert re.search(r"line \d+: no role 'usr'", told.json()["detail"])
        assert manager.status(reload=True)["items_in_queue"] == 0
    finally:
        manager.set_authorization_key(api_key=KEY)
        book.path.write_text(well)
        book.remove("vera")


async def test_the_asynchronous_client(url: str, http: httpx.Client) -> None:
    before = asyncio.all_tasks()
    manager = AsyncREManagerAPI(http_server_uri=url, status_polling_period=0.05, timeout=PATIENCE)
    manager.set_authorization_key(api_key=KEY)
    try:
        manager.console_monitor.enable()
        await manager.environment_open()
        await manager.wait_for_idle(timeout=PATIENCE)
        await manager.item_add(COUNT)
        await manager.queue_start()
        await manager.wait_for_idle(timeout=PATIENCE)
        assert names((await manager.history_get(reload=True))["items"])[-1] == "count"
        async with asyncio.timeout(PATIENCE):
            while "Queue is empty" not in await manager.console_monitor.text(500):
                await asyncio.sleep(0.05)
        await manager.environment_close()
        await manager.wait_for_idle(timeout=PATIENCE)
    finally:
        await manager.close()
        left = asyncio.all_tasks() - before  # the peer's client does not wait for its own
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


# ── paths, codes, bodies ──


def test_gets_take_a_body_or_a_query(http: httpx.Client) -> None:
    item = http.post("/queue/item/add", json={"item": ITEM}).json()["item"]
    uid = item["item_uid"]
    by_body = http.request("GET", "/queue/item/get", json={"uid": uid}).json()
    assert by_body["item"] == http.get("/queue/item/get", params={"uid": uid}).json()["item"] == item
    assert http.get("/queue/item/get", params={"pos": 0}).json()["item"] == item
    assert http.get(f"/queue/item/{uid}").json()["item"] == item
    assert not http.get("/queue/item/nosuchitem").json()["success"]
    assert http.get("/console_output", params={"nlines": 1}).json()["text"].count("\n") == 1
    assert http.request("GET", "/console_output", json={"nlines": 2}).json()["text"].count("\n") == 2
    assert http.get("/task/status", params={"task_uid": "nosuchtask"}).json()["task_uid"] == "nosuchtask"
    assert http.get("/lock/info").json()["success"]


def test_status_codes_are_the_peers(http: httpx.Client) -> None:
    refused = http.post("/queue/item/add", json={"item": {**ITEM, "name": "nosuchplan"}})
    assert (refused.status_code, refused.json()["success"], refused.json()["qsize"]) == (200, False, None)
    assert http.post("/queue/item/add").json()["msg"].endswith("request contains no item info")
    assert http.post("/queue/start", headers={"Content-Type": "application/json"}, content=b"").status_code == 200
    assert http.post("/queue/clear", json={"zzz": 1}).status_code == 400
    assert http.post("/queue/item/update", json={"replace": True}).status_code == 400
    assert http.post("/queue/item/remove").status_code == 422
    assert http.post("/queue/item/add", content=b"{").status_code == 422
    assert http.post("/queue/item/add", content=b"[1]").status_code == 422
    assert http.get("/task/result").status_code == 422
    assert http.get("/no/such/path").status_code == 404
    assert http.request("GET", "/test/server/sleep", json={"time": 0}).json() == {"success": True, "msg": ""}
    assert http.get("/test/server/sleep", params={"time": "1e9"}).status_code == 400


def test_whoever_asks_is_told_by_the_key_and_not_by_the_body(http: httpx.Client) -> None:
    said = http.post("/queue/item/add", json={"item": ITEM, "user": "somebody", "user_group": "root"}).json()
    assert (said["item"]["user"], said["item"]["user_group"]) == ("UNAUTHENTICATED_SINGLE_USER", "primary")


def test_plans_are_described_in_short(http: httpx.Client) -> None:
    plan = http.get("/plans/allowed", params={"reduced": "true"}).json()["plans_allowed"]["wait_long"]
    (seconds,) = plan["parameters"]
    assert (seconds["type"], seconds["default"], seconds["is_optional"]) == ("float", 60.0, True)
    assert isinstance(http.get("/plans/existing").json()["plans_existing"]["count"]["parameters"][0]["kind"], dict)


# ── keys ──


def test_a_key_is_taken_from_header_query_and_cookie(url: str, system: System) -> None:
    of_system = api_key(load(data_dir=system.data))
    for headers in ({"Authorization": f"apikey {KEY}"}, {"Authorization": f"Bearer {of_system}"}):
        assert httpx.get(f"{url}/api/queue/get", headers=headers).status_code == 200
    with httpx.Client(base_url=f"{url}/api") as browser:
        assert browser.get("/queue/get").status_code == 401
        assert browser.get("/queue/get", params={"api_key": KEY}).status_code == 200
        assert browser.get("/queue/get").status_code == 200  # the cookie has it now
        forged = browser.post("/queue/clear")
        assert (forged.status_code, "x-csrf" in forged.text) == (403, True)
        token = browser.cookies["bluesky_httpserver_csrf"]
        assert browser.post("/queue/clear", headers={"X-CSRF": token}).status_code == 200


def test_without_a_key_nothing_is_told(url: str) -> None:
    for path in ("/status", "/plans/existing", "/queue/get", "/console_output", "/auth/principal"):
        refused = httpx.get(f"{url}/api{path}")
        assert refused.status_code == 401
        assert refused.json()["detail"].startswith("Not enough permissions. Requires scopes ['")
    wrong = httpx.get(f"{url}/api/status", headers={"Authorization": "ApiKey wrong"})
    assert (wrong.status_code, wrong.json()) == (401, {"detail": "Invalid API key"})
    assert httpx.get(f"{url}/api/status", headers={"Authorization": "Basic eA=="}).status_code == 400


def test_pages_of_allowed_origins_may_call(url: str) -> None:
    asked = {"Origin": "http://finch.example", "Access-Control-Request-Method": "POST"}
    assert (
        httpx.options(f"{url}/api/queue/start", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
    )
    asked["Origin"] = "http://evil.example"
    assert "access-control-allow-origin" not in httpx.options(f"{url}/api/queue/start", headers=asked).headers


# ── spreadsheets ──


def workbook(rows: list[list[Any]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_plans_of_a_spreadsheet_are_queued(http: httpx.Client) -> None:
    rows = [["plan_name", "args", "num"], ["count", "['det']", 3], [None], ["'scan'", "['det'], 'motor', -1, 1", 4]]
    text = "plan_name,args,num\ncount,['det'],3\n,,\n\"'scan'\",\"['det'], 'motor', -1, 1\",4\n"
    for name, content in (("plans.xlsx", workbook(rows)), ("plans.csv", text.encode())):
        said = http.post("/queue/upload/spreadsheet", files={"spreadsheet": (name, content)}).json()
        assert said["success"], said
        assert [(item["name"], item["args"], item["kwargs"]) for item in said["items"]] == [
            ("count", [["det"]], {"num": 3}),
            ("scan", [["det"], "motor", -1, 1], {"num": 4}),
        ]
    assert len(http.get("/queue/get").json()["items"]) == 4


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"plan,args\ncount,__import__('os').getpid()\n", "no Python literal"),
        ("a.csv", b"plan,args\ncount,['nosuchdet']\n", "validation of 1 out of 1"),
        ("a.csv", b"plan,args\n3+4,1\n", "not a valid plan name"),
        ("a.csv", b"\xff\xfe", "UTF-8"),
        ("a.csv", b"", "at least 1 column"),
        ("a.xlsx", b"PK but no workbook", "cannot be read as a workbook"),
        ("a.exe", b"", "not supported"),
    ],
)
def test_a_bad_spreadsheet_queues_nothing(http: httpx.Client, name: str, content: bytes, text: str) -> None:
    answer = http.post("/queue/upload/spreadsheet", files={"spreadsheet": (name, content)})
    assert (answer.status_code, answer.json()["success"]) == (200, False)
    assert text in answer.json()["msg"]
    assert http.get("/queue/get").json()["items"] == []


# ── sockets ──


def test_sockets_tell_console_and_status(url: str, http: httpx.Client) -> None:
    address = f"{url.replace('http', 'ws', 1)}/api"
    header = {"Authorization": f"ApiKey {KEY}"}
    with (
        connect(f"{address}/console_output/ws", additional_headers=header) as console,
        connect(f"{address}/status/ws?api_key={KEY}") as states,
        connect(f"{address}/info/ws", subprotocols=["api_key", KEY]) as info,  # pyright: ignore[reportArgumentType]
    ):
        assert info.subprotocol == "api_key"
        http.post("/queue/item/add", json={"item": ITEM})
        text = ""
        while "Item added: success=True" not in text:
            text += json.loads(console.recv(timeout=PATIENCE))["msg"]
        for socket in (states, info):
            while json.loads(socket.recv(timeout=PATIENCE))["msg"]["status"]["items_in_queue"] != 1:
                pass


def test_sockets_refuse_whoever_lacks_the_scope(url: str, http: httpx.Client) -> None:
    address = f"{url.replace('http', 'ws', 1)}/api"
    body = {"expires_in": 60, "scopes": ["read:status"]}
    narrow = http.post("/auth/apikey", json=body).json()["secret"]
    for path in ("console_output/ws", "status/ws", "info/ws"):
        for query in ("", "?scopes=", f"?api_key={narrow}", f"?scopes=&api_key={narrow}"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"{address}/{path}{query}")
            assert refused.value.response.status_code == 403


def test_the_console_is_polled_and_streamed(http: httpx.Client) -> None:
    uid = http.get("/console_output/uid").json()["console_output_uid"]
    http.post("/queue/item/add", json={"item": ITEM})
    news = http.request("GET", "/console_output_update", json={"last_msg_uid": uid}).json()
    assert "Item added: success=True" in "".join(message["msg"] for message in news["console_output_msgs"])
    again = http.get("/console_output_update", params={"last_msg_uid": news["last_msg_uid"]}).json()
    assert again["console_output_msgs"] == []
    deadline = time.monotonic() + PATIENCE
    with http.stream("GET", "/stream_console_output") as stream:
        for line in stream.iter_lines():
            assert time.monotonic() < deadline
            if "Item added: success=True" in json.loads(line)["msg"]:
                break
