"""Scripts, functions and the console through bluesky-queueserver's own clients, on both transports."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from bluesky_queueserver_api import BFunc, BPlan
from bluesky_queueserver_api.http import REManagerAPI as HttpManager
from bluesky_queueserver_api.zmq import REManagerAPI as ZmqManager

from tests.live_system import System, until
from tests.patience import PATIENCE
from tests.queueserver.conftest import KEY

pytestmark = [  # the peer's client leaves its context to the garbage collector
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SCRIPT = """
import bluesky.plan_stubs as bps

print("the script says so")

def tide(by: float = 1.0):
    "Move with the tide."
    print("the tide is", by)
    yield from bps.mvr(motor, by)

def depth(x, *, scale=1):
    print("sounding")
    return {"depth": x * scale}
"""


def zmq(system: System) -> Any:
    manager = ZmqManager(
        zmq_control_addr=system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"],
        zmq_info_addr=system.extra["BEC_BLUESKY_QSERVER_INFO_ADDRESS"],
        status_expiration_period=0.02,
        status_polling_period=0.05,
    )
    manager.set_user_name_to_login_name()
    return manager


def over_http(system: System) -> Any:
    port = system.extra["BEC_BLUESKY_QSERVER_HTTP_PORT"]
    manager = HttpManager(
        http_server_uri=f"http://127.0.0.1:{port}", status_expiration_period=0.02, status_polling_period=0.05
    )
    manager.set_authorization_key(api_key=KEY)
    return manager


Make = Callable[[System], Any]
BOTH = pytest.mark.parametrize("opened", [zmq, over_http], ids=["zmq", "http"], indirect=True)


@pytest.fixture
def opened(request: pytest.FixtureRequest, system: System) -> Iterator[Any]:
    """A manager whose environment is open; on 0MQ unless a test says otherwise."""
    make: Make = getattr(request, "param", zmq)
    manager = make(system)
    try:
        if not manager.status(reload=True)["worker_environment_exists"]:
            manager.environment_open()
            manager.wait_for_idle(timeout=PATIENCE)
        yield manager
        manager.wait_for_idle(timeout=PATIENCE)
        manager.queue_clear()
    finally:
        manager.close()


@pytest.fixture(scope="module", autouse=True)
def closed_in_the_end(system: System) -> Iterator[None]:
    yield
    manager = zmq(system)
    try:
        if manager.status(reload=True)["worker_environment_exists"]:
            manager.environment_close()
            manager.wait_for_idle(timeout=PATIENCE)
        manager.history_clear()
    finally:
        manager.close()


def result(manager: Any, task_uid: str) -> dict[str, Any]:
    manager.wait_for_completed_task(task_uid, timeout=PATIENCE)
    found = manager.task_result(task_uid)
    assert found["status"] == "completed"
    return found["result"]


@BOTH
def test_a_script_defines_a_plan_that_the_queue_runs_and_a_function(opened: Any) -> None:
    opened.console_monitor.enable()
    before = opened.status(reload=True)["task_results_uid"]
    done = result(opened, opened.script_upload(SCRIPT)["task_uid"])
    assert (done["success"], done["msg"], done["traceback"]) == (True, "", "")
    assert done["time_stop"] >= done["time_start"]
    assert opened.status(reload=True)["task_results_uid"] != before
    assert opened.plans_allowed(reload=True)["plans_allowed"]["tide"]["description"] == "Move with the tide."
    opened.item_add(BPlan("tide", 0.5))
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    assert opened.history_get(reload=True)["items"][-1]["result"]["exit_status"] == "completed"
    asked = opened.function_execute(BFunc("depth", 3, scale=4))
    assert asked["item"]["item_uid"] == asked["task_uid"] and asked["item"]["name"] == "depth"
    assert result(opened, asked["task_uid"])["return_value"] == {"depth": 12}
    wanted = ("the script says so", "the tide is 0.5", "sounding")
    until(lambda: all(line in opened.console_monitor.text(1_000) for line in wanted), "what was printed")
    opened.console_monitor.disable_wait(timeout=5)


@BOTH
def test_what_fails_is_told_with_its_traceback(opened: Any) -> None:
    done = result(opened, opened.script_upload("x = 1\nraise ValueError('no tide')")["task_uid"])
    assert not done["success"] and done["msg"].startswith("ValueError: no tide")
    assert "line 2" in done["traceback"]
    done = result(opened, opened.function_execute(BFunc("no_such_function"))["task_uid"])
    assert not done["success"] and "no_such_function" in done["msg"]
    odd = "def odd():\n    return {1, 2}, object()\n"
    assert result(opened, opened.script_upload(odd)["task_uid"])["success"]
    done = result(opened, opened.function_execute(BFunc("odd"))["task_uid"])
    assert done["success"] and "object" in json.dumps(done["return_value"])


def test_in_the_foreground_the_queue_waits_and_in_the_background_it_does_not(opened: Any, system: System) -> None:
    task = opened.function_execute(BFunc("function_sleep", 60))["task_uid"]
    status = opened.status(reload=True)
    assert (status["manager_state"], status["worker_background_tasks"]) == ("executing_task", 0)
    opened.item_add(BPlan("count", ["det"]))
    for refused in (opened.queue_start, opened.environment_close, lambda: opened.script_upload("x = 1")):
        with pytest.raises(opened.RequestFailedError):
            refused()
    assert opened.task_status(task)["status"] == "running"
    background = opened.function_execute(BFunc("function_sleep", 0.01), run_in_background=True)["task_uid"]
    assert result(opened, background)["return_value"] == {"success": True, "time": 0.01}
    end(system, task)
    done = result(opened, task)
    assert not done["success"] and done["msg"].startswith("ended by ")
    opened.wait_for_idle(timeout=PATIENCE)
    task = opened.function_execute(BFunc("function_sleep", 60), run_in_background=True)["task_uid"]
    status = opened.status(reload=True)
    assert (status["manager_state"], status["worker_background_tasks"]) == ("idle", 1)
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    assert opened.history_get(reload=True)["items"][-1]["name"] == "count"
    end(system, task)


def end(system: System, task_uid: str) -> None:
    """End a task by our own interface: bluesky-queueserver has no method for it."""
    with system.connect() as bl:
        bl.tasks[task_uid].end()


def test_lists_that_are_not_updated_show_new_plans_with_the_next_update(opened: Any) -> None:
    text = "def ebb():\n    yield from ()\n"
    assert result(opened, opened.script_upload(text, update_lists=False)["task_uid"])["success"]
    assert "ebb" not in opened.plans_allowed(reload=True)["plans_allowed"]
    assert result(opened, opened.environment_update()["task_uid"])["success"]
    assert "ebb" in opened.plans_allowed(reload=True)["plans_allowed"]
    opened.environment_close()
    opened.wait_for_idle(timeout=PATIENCE)
    with pytest.raises(opened.RequestFailedError, match="environment is not open"):
        opened.script_upload("x = 1")
    opened.environment_open()
    opened.wait_for_idle(timeout=PATIENCE)
    # the list is told anew when a worker without it is ready
    until(lambda: "ebb" not in opened.plans_allowed(reload=True)["plans_allowed"], "the list without it")


def test_what_was_printed_is_polled_and_comes_on_the_socket(system: System, http: httpx.Client) -> None:
    with system.connect() as bl:
        uid = http.get("/console_output/uid").json()["console_output_uid"]
        task = bl.tasks.script("print('to those who poll')")
        task.wait(PATIENCE)
    until(lambda: "to those who poll" in http.get("/console_output").json()["text"], "the line in the last lines")
    news = http.request("GET", "/console_output_update", json={"last_msg_uid": uid}).json()["console_output_msgs"]
    assert "to those who poll\n" in [message["msg"] for message in news]


def test_our_own_api_runs_shows_and_ends_tasks(system: System) -> None:
    facts = system.status()["services"]["api"]["facts"]
    key = (system.data / "api.key").read_text().strip()
    headers = {"Authorization": f"Apikey {key}"}
    with httpx.Client(base_url=f"{facts['url']}/api/v1", headers=headers, timeout=PATIENCE) as api:
        task = api.post("/tasks/script", json={"script": "print('one')", "title": "one"})
        assert task.status_code == 202 and task.json()["state"] == "running"
        shown: list[Any] = []

        def has_ended(task_id: str) -> bool:
            shown[:] = api.get("/tasks", params={"task_ids": task_id}).json()["tasks"]
            return shown[0]["state"] != "running"

        until(lambda: has_ended(task.json()["task_id"]), "the script")
        assert (shown[0]["state"], shown[0]["output"], shown[0]["title"]) == ("completed", "one\n", "one")
        printed = api.get("/console", params={"lines": 5, "source": shown[0]["task_id"]}).json()
        assert [text["text"] for text in printed] == ["one\n"]
        task = api.post("/tasks/function", json={"name": "function_sleep", "args": [60]}).json()
        assert api.delete(f"/tasks/{task['task_id']}").status_code == 200
        assert has_ended(task["task_id"]) and shown[0]["reason"].startswith("ended")
        refused = api.delete("/tasks/nosuchtask")
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_task")
        refused = api.post("/tasks/script", json={"script": " "})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_argument")
