"""bluesky-queueserver's own programs and functions against a real system; whatever may arrive on the socket."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from bluesky_queueserver.manager import profile_ops
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.zmq.aio import REManagerAPI

from tests.live_system import System, until

PROGRAMS = Path(sys.executable).parent
COUNT = '{"name": "count", "args": [["det"]], "kwargs": {"num": 2}}'


def variables(system: System) -> dict[str, str]:
    return os.environ | {
        "QSERVER_ZMQ_CONTROL_ADDRESS": system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"],
        "QSERVER_ZMQ_INFO_ADDRESS": system.extra["BEC_BLUESKY_QSERVER_INFO_ADDRESS"],
        "PYTHONUNBUFFERED": "1",
    }


def qserver(system: System, *arguments: str) -> str:
    """Call the program as a person does; it says what it was answered."""
    done = subprocess.run(
        [PROGRAMS / "qserver", *arguments],
        env=variables(system),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(system: System, request: bytes) -> dict[str, Any]:
    """Send one frame, whatever it is, and give the answer."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 30_000)
        socket.connect(system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"])
        socket.send(request)
        return json.loads(socket.recv())


def call(system: System, method: str, **params: Any) -> dict[str, Any]:
    return ask(system, json.dumps({"method": method, "params": params}).encode())


@pytest.fixture
def clean(system: System) -> Iterator[System]:
    """The system, idle, empty and closed before and after, whatever earlier tests made of it."""
    make_idle(system)
    yield system
    make_idle(system)


def make_idle(system: System) -> None:
    call(system, "queue_autostart", enable=False)
    call(system, "queue_mode_set", mode="default")
    call(system, "queue_clear")
    until(lambda: call(system, "status")["manager_state"] == "idle", "idle")
    call(system, "history_clear")
    call(system, "environment_close")
    until(lambda: not call(system, "status")["worker_environment_exists"], "closed")


def test_a_session_of_qserver_adds_runs_and_looks_back(clean: System) -> None:
    assert "'manager_state': 'idle'" in qserver(clean, "status")
    assert "'success': True" in qserver(clean, "environment", "open")
    until(lambda: call(clean, "status")["worker_environment_exists"], "open")
    assert "'qsize': 1" in qserver(clean, "queue", "add", "plan", COUNT)
    assert "'qsize': 2" in qserver(clean, "queue", "add", "instruction", "queue-stop")
    assert "'qsize': 1" in qserver(clean, "queue", "item", "remove", "back")
    assert "'success': True" in qserver(clean, "queue", "start")
    until(lambda: call(clean, "status")["items_in_history"] == 1, "the item")
    assert "'exit_status': 'completed'" in qserver(clean, "history", "get")
    assert "'scan'" in qserver(clean, "allowed", "plans")


def test_the_monitor_shows_what_the_console_says(clean: System, tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w") as shown:
        monitor = subprocess.Popen([PROGRAMS / "qserver-console-monitor"], env=variables(clean), stdout=shown)

    def shows() -> bool:
        call(clean, "queue_clear")
        return "Clearing the queue" in (tmp_path / "shown").read_text()

    try:
        until(shows, "the line")
    finally:
        monitor.terminate()
        monitor.wait(30)


def test_the_asyncio_client_runs_an_item(clean: System) -> None:
    async def session() -> list[dict[str, Any]]:
        manager = REManagerAPI(
            zmq_control_addr=clean.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"],
            zmq_info_addr=clean.extra["BEC_BLUESKY_QSERVER_INFO_ADDRESS"],
            status_expiration_period=0.02,
            status_polling_period=0.05,
        )
        try:
            await manager.environment_open()
            await manager.wait_for_idle(timeout=30)
            await manager.item_execute(BPlan("count", ["det"], num=2))
            await manager.wait_for_idle(timeout=30)
            return (await manager.history_get(reload=True))["items"]
        finally:
            await manager.close()

    (item,) = asyncio.run(session())  # in a loop of its own: the client leaves tasks to it
    assert (item["name"], item["result"]["exit_status"]) == ("count", "completed")


def test_the_peers_functions_take_every_description(system: System) -> None:
    plans = call(system, "plans_existing")["plans_existing"]
    assert {"count", "scan", "grid_scan", "mv", "wait_long"} <= plans.keys()
    for name, plan in plans.items():
        assert len(profile_ops.construct_parameters(plan["parameters"])) == len(plan["parameters"]), name
        assert profile_ops.format_text_descriptions(plan)["description"], name
        try:
            profile_ops.bind_plan_arguments(plan_args=[], plan_kwargs={}, plan_parameters=plan)
        except TypeError as error:
            assert re.match("missing a required", str(error)), name


@pytest.mark.parametrize(
    ("item", "is_right"),
    [
        ({"name": "count", "args": [["det"]], "kwargs": {"num": 2, "delay": 0.1}}, True),
        ({"name": "count", "args": [["det"]], "kwargs": {"num": "many"}}, False),
        ({"name": "scan", "args": [["det"], "motor", -1, 1], "kwargs": {"num": 3}}, True),
        ({"name": "grid_scan", "args": [["det"], "motor", -1, 1, 3]}, True),
        ({"name": "mv", "args": ["motor", 1]}, True),
        ({"name": "wait_long", "kwargs": {"minutes": 1}}, False),
    ],
)
def test_the_peer_judges_items_by_our_descriptions_as_we_do(
    system: System, item: dict[str, Any], is_right: bool
) -> None:
    plans = call(system, "plans_allowed", user_group="primary")["plans_allowed"]
    devices = call(system, "devices_allowed", user_group="primary")["devices_allowed"]
    plan = {"item_type": "plan", **item}
    valid, why = profile_ops.validate_plan(plan, allowed_plans=plans, allowed_devices=devices)
    assert valid == is_right, why
    added = call(system, "queue_item_add", item=plan, user="somebody", user_group="primary")
    assert added["success"] == is_right, added["msg"]
    call(system, "queue_clear")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"", "Failed to decode"),
        (b"\xff\xfe\x00", "Failed to decode"),
        (b"[" * 100_000, "Failed to decode"),
        (b"[]", "Dictionary is expected"),
        (b'{"params": {}}', "method is not specified"),
        (b'{"method": "status", "more": 1}', "unexpected keys"),
        (b'{"method": ["status"]}', "Unknown method"),
        (b'{"method": "status", "params": null}', "must be a dictionary"),
        (b'{"method": "queue_item_get", "params": {"pos": 1e999}}', "Failed to get an item"),
    ],
)
def test_a_malformed_request_is_answered_with_what_is_wrong(system: System, request_: bytes, answer: str) -> None:
    reply = ask(system, request_)
    assert (reply["success"], answer in reply["msg"]) == (False, True), reply


def test_frames_without_an_envelope_cost_nobody_else_an_answer(system: System) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 1_000)
        socket.connect(system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"])
        socket.send(b'{"method": "ping"}')
        socket.send_multipart([b"", b"", b"", b'{"method": "ping"}'])
    assert call(system, "ping")["msg"].startswith("RE Manager")
