"""Devices over real HTTP and a real WebSocket, with real device server and API processes."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from bec_bluesky.api._live_devices import LiveSocket
from bec_bluesky.bus import Bus
from bec_bluesky.client import Client, open_device_access
from bec_bluesky.documents import api_key
from bec_bluesky.messages.devices import Readback
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.client.device_process import DeviceProcess, running_devices, wait_for
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def beamline(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProcess]:
    with running_devices(redis_settings, tmp_path_factory.mktemp("devices"), "http") as server:
        yield server


@pytest.fixture(scope="module")
def url(beamline: DeviceProcess) -> Iterator[str]:
    with running_api(beamline.settings) as url:
        yield url


@pytest.fixture
def http(url: str, beamline: DeviceProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Apikey {api_key(beamline.settings)}"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=PATIENCE) as client:
        yield client


def live(url: str, beamline: DeviceProcess, devices: str) -> ClientConnection:
    address = url.replace("http", "ws", 1)
    return connect(f"{address}/api/v1/devices/live?devices={devices}&api_key={api_key(beamline.settings)}")


def until_value(socket: ClientConnection, device: str, key: str, value: float) -> list[dict[str, Any]]:
    """Receive until a device reads a value; give all messages."""
    messages: list[dict[str, Any]] = []
    while True:
        messages.append(json.loads(socket.recv(timeout=PATIENCE)))
        if messages[-1]["device"] == device and messages[-1]["reading"].get(key, {}).get("value") == value:
            return messages


def test_devices_are_listed_by_label_state_readout_and_server(http: httpx.Client) -> None:
    listed = {device["path"]: device for device in http.get("/devices").json()}
    assert {"bank", "broken", "samx", "theta"} <= listed.keys()
    assert listed["theta"]["limits"] == [-180.0, 180.0]
    assert listed["theta"]["state"] == "connected" and listed["theta"]["holder"] is None
    assert listed["broken"]["reason"] == "it did not connect within 0.2 s"

    def chosen(**asked: str) -> list[str]:
        return [device["path"] for device in http.get("/devices", params=asked).json()]

    assert chosen(label="motors") == ["samx", "theta"]
    assert chosen(label="motors", readout="baseline") == []
    assert chosen(state="failed", server="main") == ["broken"]


def test_a_device_is_shown_read_and_moved(http: httpx.Client) -> None:
    assert http.post("/devices/theta/move", json={"value": 12.5}).json() == {"path": "theta", "value": 12.5}
    assert http.post("/devices/theta/move", json={"value": -2.5, "relative": True}).json()["value"] == 10.0
    assert http.get("/devices/theta/value").json() == {"path": "theta", "value": 10.0}
    at = http.post("/devices/samx/move", json={"value": 1.5}).json()["value"]
    assert http.post("/devices/samx/move", json={"value": 1, "relative": True}).json()["value"] == at + 1
    reading = http.get("/devices/theta/reading").json()
    assert reading["reading"]["theta"]["value"] == 10.0
    wait_for(lambda: http.get("/devices/theta").json()["value"] == 10.0, lambda: "not published")
    shown = http.get("/devices/theta").json()
    assert shown["units"] == "deg" and shown["connected"]
    assert "theta.velocity" in shown["parts"]
    assert {"set", "read", "stop"} <= set(shown["methods"])
    part = http.get("/devices/theta.velocity").json()
    assert part["parent"] == "theta" and part["path"] == "theta.velocity"
    assert http.get("/devices/theta.velocity/value").json()["value"] == 20.0


def test_a_set_is_taken_at_once_or_waited_for_and_a_stop_ends_it(http: httpx.Client) -> None:
    taken = http.post("/devices/slow/set", json={"value": 60.0})
    assert (taken.status_code, taken.json()) == (202, {"path": "slow", "done": False})
    assert http.post("/devices/slow/stop").json() == {"path": "slow", "done": True}
    late = http.post("/devices/slow/move", json={"value": 60.0, "timeout": 0.05})
    assert late.status_code == 504
    assert "it goes on" in late.json()["detail"]
    assert http.post("/devices/slow/stop").status_code == 200
    written = http.post("/devices/temperature/set", json={"value": 30, "wait": True})
    assert (written.status_code, written.json()["done"]) == (200, True)
    assert http.post("/devices/det/trigger").json() == {"path": "det", "done": True}


def test_stop_all_reaches_every_server(http: httpx.Client) -> None:
    http.post("/devices/slow/set", json={"value": 70.0})
    report = http.post("/devices/stop_all").json()
    assert report["complete"] and report["servers"] == ["main"], report


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/devices/thetta", None, 404, "did you mean 'theta'"),
        ("GET", "/devices/theta.speed/value", None, 404, "theta: no device 'theta.speed'"),
        ("POST", "/devices/samx/move", {"value": 100}, 422, "100 is outside its limits, -20 to 20"),
        ("POST", "/devices/samx/set", {"value": 100}, 422, "100 is outside its limits, -20 to 20"),
        ("POST", "/devices/samx/move", {"value": "left"}, 422, "moves to a number, -20 to 20"),
        ("POST", "/devices/det/move", {"value": 1, "relative": True}, 422, "det cannot set"),
        ("POST", "/devices/theta/move", {"value": 1, "timeot": 3}, 422, "timeot"),
        ("POST", "/devices/theta/move", {"value": {"a": 1}}, 422, ""),
        ("POST", "/devices/theta/move", {"value": "x", "relative": True}, 422, ""),
        ("POST", "/devices/theta/move", {}, 422, ""),
        ("POST", "/devices/theta/move", {"value": 1, "timeout": -1}, 422, ""),
        ("POST", "/devices/theta/trigger", None, 422, "theta cannot trigger"),
        ("POST", "/devices/det/set", {"value": 1}, 422, "det cannot set"),
        ("POST", "/devices/broken/move", {"value": 1}, 409, "broken is failed"),
        ("GET", "/devices/broken/value", None, 409, "broken is failed"),
    ],
)
def test_bad_input_is_answered_with_what_is_wrong(
    http: httpx.Client, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert words in str(answer.json()["detail"])


def test_arrays_and_what_is_no_number_in_json(http: httpx.Client, beamline: DeviceProcess) -> None:
    image = http.get("/devices/image/value").json()["value"]
    assert len(image) == len(image[0]) == 200
    with Client(beamline.settings) as bl:
        bl.dev.temperature.put(float("nan"))
        assert http.get("/devices/temperature/value").json()["value"] == "NaN"
        bl.dev.temperature.put(21.5)


def test_devices_need_the_key_and_are_in_the_schema(url: str, http: httpx.Client) -> None:
    assert httpx.get(f"{url}/api/v1/devices").status_code == 401
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"{url.replace('http', 'ws', 1)}/api/v1/devices/live?devices=x"),
    ):
        pass
    assert refused.value.response.status_code == 401
    paths = http.get("/openapi.json").json()["paths"]
    assert "/api/v1/devices/{path}/set" in paths and "409" in paths["/api/v1/devices/{path}/set"]["post"]["responses"]


def test_the_socket_begins_with_the_present_and_pushes_what_changes(
    url: str, http: httpx.Client, beamline: DeviceProcess
) -> None:
    http.post("/devices/theta/move", json={"value": 0.0})
    with live(url, beamline, "theta,theta.velocity,broken") as socket:
        first = until_value(socket, "theta", "theta", 0.0)[-1]
        assert first["state"] == "connected" and first["connected"] and first["units"] == {"theta": "deg"}
        http.post("/devices/theta/move", json={"value": 4.0})
        messages = until_value(socket, "theta", "theta", 4.0)
        assert {message["device"] for message in messages} <= {"theta", "theta.velocity", "broken"}
        http.post("/devices/theta.velocity/set", json={"value": 25.0, "wait": True})
        until_value(socket, "theta.velocity", "theta-velocity", 25.0)
    with live(url, beamline, "broken") as socket:
        said = json.loads(socket.recv(timeout=PATIENCE))
        assert (said["state"], said["connected"], said["reading"]) == ("failed", False, {})


def test_a_socket_for_an_unknown_device_is_refused(url: str, beamline: DeviceProcess) -> None:
    with pytest.raises(InvalidStatus) as refused, live(url, beamline, "theta,thetta"):
        pass
    assert refused.value.response.status_code == 404
    assert b"did you mean 'theta'" in refused.value.response.body


async def test_a_reader_that_is_slow_gets_the_newest_only(beamline: DeviceProcess) -> None:
    """The real socket class and the real server, on a transport that does not take what is sent."""
    let_go, blocked, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    coming = iter([{"type": "websocket.connect"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in coming:
            return message
        await gone.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            blocked.set()
            await let_go.wait()
            sent.append(json.loads(message["text"]))

    settings = beamline.settings
    async with Bus(settings.redis_url or "", settings.beamline) as bus, open_device_access(bus) as access:
        following = asyncio.create_task(access.live.run())
        socket = LiveSocket(WebSocket({"type": "websocket", "headers": []}, receive, send), access)
        serving = asyncio.create_task(socket.serve(["temperature"]))
        await blocked.wait()
        arrived = {number: asyncio.Event() for number in range(10, 20)}

        def hear(readback: Readback) -> None:
            arrived.get(readback.reading["temperature"]["value"], asyncio.Event()).set()

        access.live.add("temperature", hear)
        for number, event in arrived.items():
            await access.link.request("temperature", "put", float(number))
            await event.wait()
        assert sent == []
        let_go.set()
        while not sent or sent[-1]["reading"]["temperature"]["value"] != 19.0:
            await asyncio.sleep(0.01)
        assert len(sent) <= 3  # what was under way, the newest, and perhaps the state once more
        gone.set()
        await serving
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_a_server_that_hangs_is_503_and_said_on_the_socket(
    url: str, http: httpx.Client, beamline: DeviceProcess
) -> None:
    with live(url, beamline, "theta") as socket:
        while json.loads(socket.recv(timeout=PATIENCE))["state"] != "connected":
            pass
        beamline.pause()
        answer = http.get("/devices/theta/value")
        assert (answer.status_code, answer.json()["code"]) == (503, "server_lost")
        while json.loads(socket.recv(timeout=PATIENCE))["state"] != "no server":
            pass
        assert http.get("/devices/theta").json()["state"] == "no server"
        beamline.resume()
        while True:
            said = json.loads(socket.recv(timeout=PATIENCE))
            if said["state"] == "connected" and said["connected"]:
                break
    assert http.get("/devices/theta/value").status_code == 200
