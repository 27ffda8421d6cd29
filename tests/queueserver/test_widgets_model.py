"""The model behind the GUI of bluesky-widgets (Queue Monitor), without its windows, by 0MQ and by HTTP.

It is no requirement, since it wants an older suitcase-utils: `pip install --no-deps bluesky-widgets bluesky-live`.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_system import System, until
from tests.queueserver.conftest import KEY

client: Any = pytest.importorskip("bluesky_widgets.models.run_engine_client")
pytestmark = pytest.mark.slow
COUNT = {"item_type": "plan", "name": "count", "args": [["det"]], "kwargs": {"num": 2}}
SCAN = {"item_type": "plan", "name": "scan", "args": [["det"], "motor", -1, 1], "kwargs": {"num": 3}}
WAIT = {"item_type": "plan", "name": "wait_long"}


@pytest.fixture(params=["0MQ", "HTTP"])
def model(request: pytest.FixtureRequest, system: System) -> Iterator[Any]:
    """A model whose environment is open, with an empty queue and history."""
    if request.param == "0MQ":
        addresses = (system.extra[f"BEC_BLUESKY_QSERVER_{what}_ADDRESS"] for what in ("CONTROL", "INFO"))
        model = client.RunEngineClient(**dict(zip(("zmq_control_addr", "zmq_info_addr"), addresses, strict=True)))
    else:
        url = f"http://127.0.0.1:{system.extra['BEC_BLUESKY_QSERVER_HTTP_PORT']}"
        model = client.RunEngineClient(http_server_uri=url, http_server_api_key=KEY)
    model.clear()
    model.manager_connecting_ops()
    if not status(model)["worker_environment_exists"]:
        model.environment_open(30)
    model.queue_clear()
    model.history_clear()
    yield model
    model.queue_clear()
    model.environment_close(30)
    model._client.close()


def status(model: Any) -> dict[str, Any]:
    model.load_re_manager_status(unbuffered=True)
    return model.re_manager_status


def is_(model: Any, state: str) -> Callable[[], bool]:
    return lambda: status(model)["manager_state"] == state


def queue(model: Any) -> list[str]:
    status(model)
    model.load_plan_queue()
    return [item["name"] for item in model._plan_queue_items]


def test_the_forms_of_all_plans_and_arguments_are_understood(model: Any) -> None:
    assert {"count", "scan", "wait_long"} <= set(model.get_allowed_plan_names())
    assert "det" in model._allowed_devices
    for name in model.get_allowed_plan_names():
        assert model.get_allowed_plan_parameters(name=name)["name"] == name
    assert model.get_bound_item_arguments(SCAN)[1] == {"detectors": ["det"], "args": ("motor", -1, 1), "num": 3}


def test_items_are_added_moved_changed_copied_and_removed(model: Any, tmp_path: Path) -> None:
    model.queue_item_add_batch(items=[COUNT, {"item_type": "instruction", "name": "queue_stop"}, COUNT])
    model.queue_item_add(item=SCAN, params={"pos": "front"})
    assert queue(model) == ["scan", "count", "queue_stop", "count"]
    ids = [item["item_uid"] for item in model._plan_queue_items]
    model.selected_queue_item_uids = [ids[-1]]
    for move, names in (
        ("up", ["scan", "count", "count", "queue_stop"]),
        ("down", ["scan", "count", "queue_stop", "count"]),
        ("to_top", ["count", "scan", "count", "queue_stop"]),
        ("to_bottom", ["scan", "count", "queue_stop", "count"]),
    ):
        getattr(model, f"queue_items_move_{move}")()
        assert queue(model) == names
    model.queue_items_move_in_place_of(ids[0])
    assert queue(model) == ["count", "scan", "count", "queue_stop"]
    model.queue_item_update(item=model.queue_item_by_uid(ids[-1]) | {"kwargs": {"num": 7}})
    queue(model)
    assert model._plan_queue_items[0]["kwargs"] == {"num": 7}
    model.queue_item_copy_to_queue()
    assert queue(model) == ["count", "count", "scan", "count", "queue_stop"]
    model.queue_items_remove()
    assert queue(model) == ["count", "scan", "count", "queue_stop"]
    model.queue_clear()
    sheet = tmp_path / "plans.csv"
    sheet.write_text("plan_name,detectors,num\ncount,\"['det']\",2\ncount,\"['det']\",3\n")
    model.queue_upload_spreadsheet(file_path=str(sheet))
    assert queue(model) == ["count", "count"]
    model.queue_mode_loop_enable(True)
    assert status(model)["plan_queue_mode"]["loop"]
    model.queue_mode_loop_enable(False)


def test_what_ran_is_in_the_history_and_runs_again(model: Any, tmp_path: Path) -> None:
    printed: list[str] = []
    model.start_console_output_monitoring()

    def listen() -> None:
        while not model._stop_console_monitor:
            printed.append(str(model.console_monitoring_thread()))

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        model.queue_item_add_batch(items=[COUNT, SCAN])
        model.queue_start()
        until(lambda: status(model)["items_in_history"] == 2 and is_(model, "idle")(), "the queue")
        until(lambda: any("Queue is empty" in each for each in printed), "the console")
    finally:
        model.stop_console_output_monitoring()
        listener.join(20)
    model.load_plan_history()
    model.load_run_list()
    assert [item["result"]["exit_status"] for item in model._plan_history_items] == ["completed", "completed"]
    assert [run["is_open"] for run in model._run_list] == [False]
    for file_format in ("json", "yaml", "txt"):
        file = tmp_path / f"history.{file_format}"
        model.save_plan_history_to_file(file_path=str(file), file_format=file_format)
        assert "scan" in file.read_text()
    model.selected_history_item_pos = [1]
    model.history_item_add_to_queue()
    assert queue(model) == ["scan"]


@pytest.mark.parametrize(
    ("option", "end", "ended"),
    [("deferred", "re_abort", "aborted"), ("immediate", "re_stop", "stopped"), ("immediate", "re_halt", "halted")],
)
def test_a_plan_is_paused_resumed_and_ended(model: Any, option: str, end: str, ended: str) -> None:
    model.queue_item_add(item=WAIT)
    model.queue_start()
    until(is_(model, "executing_queue"), "the plan")
    queue(model)
    model.running_item_add_to_queue()
    model.queue_stop()
    model.queue_stop_cancel()
    model.queue_stop()
    model.re_pause(20, option=option)
    until(is_(model, "paused"), "the pause")
    model.re_resume(20)
    until(is_(model, "executing_queue"), "the plan again")
    model.re_pause(20, option=option)
    until(is_(model, "paused"), "the second pause")
    getattr(model, end)(20)
    until(is_(model, "idle"), "the end")
    model.load_plan_history()
    assert model._plan_history_items[-1]["result"]["exit_status"] == ended


def test_the_environment_is_updated_closed_and_destroyed(model: Any) -> None:
    model.environment_update()
    until(is_(model, "idle"), "the update")
    model.environment_close(30)
    assert not status(model)["worker_environment_exists"]
    model.environment_open(30)
    model.activate_env_destroy(True)
    model.environment_destroy(30)
    assert not status(model)["worker_environment_exists"]
    model.environment_open(30)
