"""bluesky-queueserver's own client, over 0MQ, against a real system: every method."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky_queueserver_api import BInst, BPlan
from bluesky_queueserver_api.zmq import REManagerAPI

from tests.live_system import System
from tests.patience import PATIENCE

pytestmark = [  # the peer's client leaves its context to the garbage collector
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNT = BPlan("count", ["det"], num=2)
SCAN = BPlan("scan", ["det"], "motor", -1, 1, num=3)
WAIT = BPlan("wait_long", 30)


@pytest.fixture
def manager(system: System) -> Iterator[REManagerAPI]:
    """The client of a group of its own, with everything as it was before."""
    manager = REManagerAPI(
        zmq_control_addr=system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"],
        zmq_info_addr=system.extra["BEC_BLUESKY_QSERVER_INFO_ADDRESS"],
        request_fail_exceptions=True,
        status_expiration_period=0.02,
        status_polling_period=0.05,
        timeout_recv=PATIENCE,
        timeout_send=PATIENCE,
    )
    manager.set_user_name_to_login_name()
    try:
        yield manager
    finally:
        settle(manager)
        manager.close()


def settle(manager: REManagerAPI) -> None:
    status = manager.status(reload=True)
    if any(status["lock"].values()):
        manager.unlock("break-glass")
    if status["manager_state"] in ("executing_queue", "paused"):
        if status["manager_state"] == "executing_queue":
            manager.re_pause("immediate")
            manager.wait_for_idle_or_paused(timeout=PATIENCE)
        if manager.status(reload=True)["manager_state"] == "paused":
            manager.re_halt()
    manager.queue_autostart(False)
    manager.queue_mode_set(mode="default")
    manager.queue_clear()
    if manager.status(reload=True)["worker_environment_exists"]:
        manager.wait_for_idle(timeout=PATIENCE)
        manager.environment_close()
        manager.wait_for_idle(timeout=PATIENCE)
    manager.history_clear()


@pytest.fixture
def opened(manager: REManagerAPI) -> REManagerAPI:
    manager.environment_open()
    manager.wait_for_idle(timeout=PATIENCE)
    assert manager.status(reload=True)["worker_environment_exists"]
    return manager


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


FIELDS = {
    "msg",
    "time",
    "items_in_queue",
    "items_in_history",
    "running_item_uid",
    "manager_state",
    "queue_stop_pending",
    "queue_autostart_enabled",
    "worker_environment_exists",
    "worker_environment_state",
    "worker_background_tasks",
    "re_state",
    "ip_kernel_state",
    "ip_kernel_captured",
    "pause_pending",
    "status_uid",
    "run_list_uid",
    "plan_queue_uid",
    "plan_history_uid",
    "devices_existing_uid",
    "plans_existing_uid",
    "devices_allowed_uid",
    "plans_allowed_uid",
    "plan_queue_mode",
    "task_results_uid",
    "lock_info_uid",
    "lock",
}


def test_the_status_has_all_fields_and_words(manager: REManagerAPI) -> None:
    status = manager.status(reload=True)
    assert set(status) == FIELDS
    assert status["msg"].startswith("RE Manager v")
    assert (status["manager_state"], status["worker_environment_state"], status["re_state"]) == ("idle", "closed", None)
    assert manager.ping()["manager_state"] == "idle"


def test_items_are_added_found_moved_changed_and_removed(manager: REManagerAPI) -> None:
    first = manager.item_add(COUNT)["item"]
    assert (first["name"], first["args"], first["kwargs"]) == ("count", [["det"]], {"num": 2})
    manager.item_add(SCAN, pos="front")
    manager.item_add(BInst("queue_stop"), after_uid=first["item_uid"])
    manager.item_add(WAIT, before_uid=first["item_uid"])
    queue = manager.queue_get(reload=True)
    assert names(queue["items"]) == ["scan", "wait_long", "count", "queue_stop"]
    assert queue["running_item"] == {}
    assert manager.item_get(uid=first["item_uid"])["item"]["name"] == "count"
    assert manager.item_get(pos="front")["item"]["name"] == "scan"
    manager.item_move(uid=first["item_uid"], pos_dest="front")
    assert names(manager.queue_get(reload=True)["items"]) == ["count", "scan", "wait_long", "queue_stop"]
    manager.item_move(pos=0, pos_dest=2)
    assert names(manager.queue_get(reload=True)["items"]) == ["scan", "wait_long", "count", "queue_stop"]
    uids = [item["item_uid"] for item in manager.queue_get(reload=True)["items"]]
    manager.item_move_batch(uids=[uids[2], uids[0]], pos_dest="back")
    assert names(manager.queue_get(reload=True)["items"]) == ["wait_long", "queue_stop", "count", "scan"]
    changed = manager.item_get(uid=first["item_uid"])["item"]
    changed["kwargs"] = {"num": 7}
    updated = manager.item_update(changed)["item"]
    assert (updated["kwargs"], updated["item_uid"]) == ({"num": 7}, first["item_uid"])
    replaced = manager.item_update(updated, replace=True)["item"]
    assert replaced["item_uid"] != first["item_uid"]
    assert manager.item_remove(pos="front")["item"]["name"] == "wait_long"
    removed = manager.item_remove_batch(uids=[uids[3], "no such item"])
    assert (names(removed["items"]), removed["qsize"]) == (["queue_stop"], 2)
    manager.queue_clear()
    assert manager.status(reload=True)["items_in_queue"] == 0


def test_a_batch_is_added_wholly_or_not_at_all_and_says_what_is_wrong_with_each(manager: REManagerAPI) -> None:
    added = manager.item_add_batch([COUNT, SCAN])
    assert [result["success"] for result in added["results"]] == [True, True]
    with pytest.raises(manager.RequestFailedError) as failed:
        manager.item_add_batch([COUNT, BPlan("count", ["nosuchdet"]), BPlan("nosuchplan")])
    answer = failed.value.response
    assert "validation of 2 out of 3 submitted items failed" in answer["msg"]
    assert [result["success"] for result in answer["results"]] == [True, False, False]
    assert "nosuchdet" in answer["results"][1]["msg"]
    assert manager.status(reload=True)["items_in_queue"] == 2


def test_ids_change_when_and_only_when_their_object_does(manager: REManagerAPI) -> None:
    before = manager.status(reload=True)
    assert manager.status(reload=True)["status_uid"] == before["status_uid"]
    manager.item_add(COUNT)
    after = manager.status(reload=True)
    changed = {name for name in FIELDS if name.endswith("_uid") and before[name] != after[name]}
    assert changed == {"status_uid", "plan_queue_uid"}
    manager.queue_mode_set(loop=True)
    assert manager.status(reload=True)["plan_queue_uid"] == after["plan_queue_uid"]


def test_the_queue_runs_and_its_items_are_in_the_history(opened: REManagerAPI) -> None:
    opened.item_add_batch([COUNT, SCAN])
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    history = opened.history_get(reload=True)["items"]
    assert [(item["name"], item["result"]["exit_status"]) for item in history] == [
        ("count", "completed"),
        ("scan", "completed"),
    ]
    result = history[0]["result"]
    assert len(result["run_uids"]) == len(result["scan_ids"]) == 1
    assert result["time_stop"] > result["time_start"] > 0
    runs = opened.re_runs()["run_list"]
    assert [(run["uid"], run["is_open"], run["exit_status"]) for run in runs] == [
        (history[1]["result"]["run_uids"][0], False, "success")
    ]
    opened.history_clear(size=1)
    assert names(opened.history_get(reload=True)["items"]) == ["scan"]
    assert opened.status(reload=True)["items_in_history"] == 1


def test_a_plan_is_paused_resumed_and_aborted_and_goes_back_to_the_front(opened: REManagerAPI) -> None:
    opened.item_add(WAIT)
    opened.queue_start()
    uid = opened.status(reload=True)["running_item_uid"]
    with pytest.raises(opened.RequestFailedError, match="RE Manager is not paused: current state is 'executing_queue'"):
        opened.re_abort()
    opened.re_pause()
    opened.wait_for_idle_or_paused(timeout=PATIENCE)
    status = opened.status(reload=True)
    assert (status["manager_state"], status["re_state"], status["pause_pending"]) == ("paused", "paused", False)
    opened.re_resume()
    opened.re_pause("immediate")
    opened.wait_for_idle_or_paused(timeout=PATIENCE)
    opened.re_abort()
    opened.wait_for_idle(timeout=PATIENCE)
    (back,) = opened.queue_get(reload=True)["items"]
    assert (back["name"], back["item_uid"] != uid) == ("wait_long", True)
    assert opened.history_get(reload=True)["items"][-1]["result"]["exit_status"] == "aborted"


def test_a_failed_item_tells_why_and_goes_back(opened: REManagerAPI) -> None:
    opened.item_add_batch([BPlan("fail_at_once"), COUNT])
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    assert names(opened.queue_get(reload=True)["items"]) == ["fail_at_once", "count"]
    result = opened.history_get(reload=True)["items"][-1]["result"]
    assert result["exit_status"] == "failed"
    assert "the sample fell off" in result["msg"]
    assert "RuntimeError" in result["traceback"]
    opened.queue_mode_set(ignore_failures=True)
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    assert names(opened.queue_get(reload=True)["items"]) == []


def test_an_item_is_executed_past_the_queue(opened: REManagerAPI) -> None:
    opened.item_add(SCAN)
    opened.item_execute(COUNT)
    opened.wait_for_idle(timeout=PATIENCE)
    assert names(opened.queue_get(reload=True)["items"]) == ["scan"]
    assert names(opened.history_get(reload=True)["items"]) == ["count"]


def test_the_queue_stops_loops_and_starts_by_itself(opened: REManagerAPI) -> None:
    opened.item_add_batch([BPlan("wait_long", 1), COUNT])
    opened.queue_start()
    opened.queue_stop()
    assert opened.status(reload=True)["queue_stop_pending"]
    opened.queue_stop_cancel()
    assert not opened.status(reload=True)["queue_stop_pending"]
    opened.queue_stop()
    opened.wait_for_idle(timeout=PATIENCE)
    assert names(opened.queue_get(reload=True)["items"]) == ["count"]
    opened.queue_autostart(True)
    opened.wait_for_idle(timeout=PATIENCE)
    assert opened.status(reload=True)["items_in_queue"] == 0
    opened.item_add(COUNT)
    opened.wait_for_idle(timeout=PATIENCE)
    deadline = time.monotonic() + 20
    while opened.status(reload=True)["items_in_history"] < 3:
        assert time.monotonic() < deadline
    opened.queue_autostart(False)
    opened.item_add_batch([COUNT, BInst("queue_stop")])
    opened.queue_mode_set(loop=True)
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    assert names(opened.queue_get(reload=True)["items"]) == ["count", "queue_stop"]


def test_nothing_starts_without_an_environment(manager: REManagerAPI) -> None:
    manager.item_add(COUNT)
    for call in (manager.queue_start, lambda: manager.item_execute(COUNT)):
        with pytest.raises(manager.RequestFailedError, match="RE Worker environment does not exist"):
            call()
    with pytest.raises(manager.RequestFailedError, match="RE environment does not exist"):
        manager.environment_destroy()


def test_destroying_the_environment_ends_what_runs_and_keeps_the_item(opened: REManagerAPI) -> None:
    opened.item_add(WAIT)
    opened.queue_start()
    with pytest.raises(opened.RequestFailedError, match="Queue execution is in progress"):
        opened.environment_close()
    opened.environment_destroy()
    opened.wait_for_idle(timeout=PATIENCE)
    assert not opened.status(reload=True)["worker_environment_exists"]
    assert names(opened.queue_get(reload=True)["items"]) == ["wait_long"]
    assert opened.history_get(reload=True)["items"][-1]["result"]["exit_status"] == "failed"


def test_locks_keep_others_out_until_they_are_taken_away(manager: REManagerAPI) -> None:
    with pytest.raises(manager.RequestFailedError):
        manager.lock("key", environment=False, queue=False)
    info = manager.lock_queue("key", note="alignment")["lock_info"]
    assert (info["queue"], info["environment"], info["note"]) == (True, False, "alignment")
    assert manager.status(reload=True)["lock"] == {"environment": False, "queue": True}
    with pytest.raises(manager.RequestFailedError, match="Invalid lock key"):
        manager.item_add(COUNT)
    with pytest.raises(manager.RequestFailedError, match="Invalid lock key"):
        manager.lock_info("wrong", reload=True)
    manager.item_add(COUNT, lock_key="key")
    with pytest.raises(manager.RequestFailedError, match="Invalid lock key"):
        manager.unlock("wrong")
    manager.unlock("break-glass")
    manager.item_add(COUNT)
    assert manager.lock_info(reload=True)["lock_info"]["emergency_lock_key_is_set"]


def test_groups_see_and_may_use_what_their_rules_say(manager: REManagerAPI) -> None:
    everything = manager.permissions_get()["user_group_permissions"]
    only_count = {"allowed_plans": [":^count$"], "allowed_devices": [":^det"], "allowed_functions": []}
    rules = {"user_groups": everything["user_groups"] | {"visitors": only_count}}
    manager.permissions_set(rules)
    assert manager.permissions_get()["user_group_permissions"] == rules
    manager.user_group = "visitors"
    try:
        assert set(manager.plans_allowed(reload=True)["plans_allowed"]) == {"count"}
        assert set(manager.devices_allowed(reload=True)["devices_allowed"]) == {"det"}
        manager.item_add(COUNT)
        with pytest.raises(manager.RequestFailedError, match="not allowed"):
            manager.item_add(SCAN)
        with pytest.raises(manager.RequestFailedError, match="not allowed"):
            manager.item_add(BPlan("count", ["motor"]))
    finally:
        manager.user_group = "primary"
        manager.permissions_reload()
    assert "visitors" not in manager.permissions_get()["user_group_permissions"]["user_groups"]
    assert {"count", "scan", "wait_long"} <= set(manager.plans_existing(reload=True)["plans_existing"])
    assert {"det", "motor"} <= set(manager.devices_existing(reload=True)["devices_existing"])
    with pytest.raises(manager.RequestFailedError, match="user_groups"):
        manager.permissions_set({"groups": {}})


def test_a_call_with_unknown_names_is_answered_in_one_sentence(manager: REManagerAPI) -> None:
    send: Any = manager.send_request
    with pytest.raises(manager.RequestFailedError, match="Unknown method 'explode'"):
        send(method="explode")
    with pytest.raises(manager.RequestFailedError, match="unsupported parameters: 'zzz'"):
        send(method="queue_start", params={"zzz": 1})


def test_console_and_status_are_published(opened: REManagerAPI) -> None:
    opened.console_monitor.enable()
    opened.item_add(COUNT)
    opened.queue_start()
    opened.wait_for_idle(timeout=PATIENCE)
    text = ""
    deadline = time.monotonic() + 10
    wanted = [
        "Item added: success=True",
        "Starting queue processing",
        "Processing the next queue item",
        "Starting the plan",
        "Queue is empty",
    ]
    while not all(line in text for line in wanted):
        assert time.monotonic() < deadline, text
        text = opened.console_monitor.text(1_000)
        time.sleep(0.05)
    opened.console_monitor.disable_wait(timeout=5)


def test_updating_the_environment_is_a_task_that_can_be_asked_for(opened: REManagerAPI) -> None:
    task = opened.environment_update()["task_uid"]
    opened.wait_for_completed_task(task, timeout=PATIENCE)
    assert opened.task_status(task)["status"] == "completed"
    assert opened.task_result(task)["result"]["success"]
    assert opened.task_status("no such task")["status"] == "not_found"
