"""The sockets that Finch takes from ophyd-websocket: its messages, as its pages send them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.patience import PATIENCE
from tests.queueserver.conftest import KEY


@contextmanager
def opened(url: str, name: str, key: str = KEY) -> Iterator[ClientConnection]:
    with connect(f"{url.replace('http', 'ws', 1)}/api/v1/{name}?api_key={key}") as socket:
        yield socket


def until(socket: ClientConnection, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    while True:
        message = json.loads(socket.recv(timeout=PATIENCE))
        if is_it(message):
            return message


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def test_a_device_is_subscribed_set_and_let_go(url: str) -> None:
    with opened(url, "device-socket") as socket:
        say(socket, action="subscribe", device="motor")
        assert json.loads(socket.recv(timeout=PATIENCE)) == {"message": "Subscribed to motor"}
        first = until(socket, lambda message: "value" in message)
        assert first["device"] == first["signal"] == "motor"
        assert first["connected"] and first["read_access"] and first["write_access"]
        facts = until(socket, lambda message: message.get("sub_type") == "meta")
        assert (facts["lower_ctrl_limit"], facts["upper_ctrl_limit"], facts["obj"]) == (-10, 10, "motor")
        say(socket, action="set", device="motor", value=2.5)
        assert until(socket, lambda message: message.get("value") == 2.5)["timestamp"] > 0
        say(socket, action="refresh")
        until(socket, lambda message: message.get("value") == 2.5)
        say(socket, action="set", device="motor", value=11)
        assert "11" in until(socket, lambda message: "error" in message)["error"]
        say(socket, action="unsubscribe", device="motor")
        until(socket, lambda message: message.get("message") == "Unsubscribed from motor")


def test_several_are_subscribed_at_once_and_those_that_cannot_be_are_named(url: str) -> None:
    with opened(url, "pv-socket") as socket:
        say(socket, action="subscribe", pv="det")
        say(socket, action="subscribe", pvs=["det", "motor", "nosuchpv"])
        summary = until(socket, lambda message: "subscribed" in message)
        assert summary["subscribed"] == ["motor"]
        assert summary["already_subscribed"] == ["det"]
        assert summary["failed"] == ["nosuchpv"]
        assert until(socket, lambda message: message.get("pv") == "motor")
        say(socket, action="unsubscribe", pvs=["motor", "det", "nosuchpv"])
        summary = until(socket, lambda message: "unsubscribed" in message)
        assert (summary["unsubscribed"], summary["not_subscribed"]) == (["motor", "det"], ["nosuchpv"])


def test_what_cannot_be_done_is_said_and_the_socket_lives_on(url: str) -> None:
    with opened(url, "pv-socket") as socket:
        for text in ("{", "[]", "{}", '{"action": "set", "pv": "motor"}', '{"action": "subscribe", "pv": 3}'):
            socket.send(text)
            until(socket, lambda message: message.get("error"))
        say(socket, action="subscribeReadOnly", pv="motor")
        assert not until(socket, lambda message: "value" in message)["write_access"]
        say(socket, action="set", pv="motor", value=1)
        assert "read-only" in until(socket, lambda message: "error" in message)["error"]


def test_who_may_only_look_sets_nothing_and_others_see_nothing(url: str, http: httpx.Client) -> None:
    scopes = ["read:monitor", "read:console"]
    looker = http.post("/auth/apikey", json={"expires_in": 60, "scopes": scopes}).json()["secret"]
    with opened(url, "device-socket", looker) as socket:
        say(socket, action="set", device="motor", value=1)
        assert "does not allow it" in until(socket, lambda message: "error" in message)["error"]
    for name in ("device-socket", "pv-socket", "qs-console-socket"):
        with pytest.raises(InvalidStatus), opened(url, name, "wrong"):
            pass


def test_the_console_is_told_as_finch_reads_it(url: str, http: httpx.Client) -> None:
    with opened(url, "qs-console-socket") as socket:
        http.post("/queue/item/add", json={"item": {"item_type": "plan", "name": "count", "args": [["det"]]}})
        message = until(socket, lambda message: message["msg"].startswith("Item added: success=True"))
        assert message["time"] > 0
