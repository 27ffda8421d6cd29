"""All methods of bluesky-queueserver's interface by name, with its parameters, fields and texts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bec_bluesky.errors import BecBlueskyError, BusError, NoReplyError
from bec_bluesky.log import logger
from bec_bluesky.queueserver._environment_methods import EnvironmentMethods
from bec_bluesky.queueserver._list_methods import ListMethods
from bec_bluesky.queueserver._queue_methods import QueueMethods
from bec_bluesky.queueserver._run_methods import RunMethods
from bec_bluesky.queueserver._scan_server import ScanServerAccess
from bec_bluesky.queueserver._task_methods import TaskMethods

__all__ = ["Methods"]

_log = logger(__name__)
_ALLOWED_KEYS = ("method", "params")


@dataclass(frozen=True)
class _Method:
    """One method."""

    parameters: tuple[str, ...] | None
    """None: any, they are ignored, and the answer is the status as it is."""
    call: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
    empty: Mapping[str, Any]
    """Fields of an answer that says no."""
    failing: str = "Error: "
    """Begin of the text of such an answer."""


class Methods:
    """Carries out calls; a wrong one is answered with `success: false` and one sentence, as its clients expect."""

    def __init__(self, access: ScanServerAccess) -> None:
        queue, run = QueueMethods(access), RunMethods(access)
        environment, tasks, lists = EnvironmentMethods(access), TaskMethods(access), ListMethods(access)
        item = {"qsize": None, "item": None}
        items = {"items": [], "qsize": None}
        task = {"task_uid": None}
        lock = {"lock_info": {}, "lock_info_uid": None}
        who = ("user_group", "user")
        place = ("pos", "before_uid", "after_uid", "lock_key")
        key = ("lock_key",)
        self._methods = {
            "ping": _Method(None, run.status, {}),
            "status": _Method(None, run.status, {}),
            "config_get": _Method((), environment.config, {"config": {}}, ""),
            "queue_get": _Method((), queue.get, {"items": [], "running_item": {}, "plan_queue_uid": ""}),
            "queue_mode_set": _Method(("mode", *key), queue.set_mode, {}, "Failed to set queue mode: "),
            "queue_item_add": _Method((*who, "item", *place), queue.add, item, "Failed to add an item: "),
            "queue_item_add_batch": _Method(
                (*who, "items", *place), queue.add_all, items | {"results": []}, "Failed to add an item: "
            ),
            "queue_item_update": _Method(
                (*who, "item", "replace", *key), queue.update, item, "Failed to add an item: "
            ),
            "queue_item_get": _Method(("pos", "uid"), queue.get_item, {"item": {}}, "Failed to get an item: "),
            "queue_item_remove": _Method(
                ("pos", "uid", *key), queue.remove, {"item": {}, "qsize": None}, "Failed to remove an item: "
            ),
            "queue_item_remove_batch": _Method(
                ("uids", "ignore_missing", *key), queue.remove_all, items, "Failed to remove a batch of items: "
            ),
            "queue_item_move": _Method(
                ("pos", "uid", "pos_dest", "before_uid", "after_uid", *key),
                queue.move,
                {"item": {}, "qsize": None},
                "Failed to move the item: ",
            ),
            "queue_item_move_batch": _Method(
                ("uids", "pos_dest", "before_uid", "after_uid", "reorder", *key),
                queue.move_all,
                items,
                "Failed to move the batch of items: ",
            ),
            "queue_item_execute": _Method(
                ("item", *who, *key), queue.execute, item, "Failed to start execution of the item: "
            ),
            "queue_clear": _Method(key, queue.clear, {}),
            "queue_start": _Method(key, queue.start, {}, ""),
            "queue_stop": _Method(key, queue.stop, {}, ""),
            "queue_stop_cancel": _Method(key, queue.cancel_stop, {}),
            "queue_autostart": _Method(("enable", *key), queue.set_autostart, {}),
            "history_get": _Method((), queue.history, {"items": [], "plan_history_uid": ""}),
            "history_clear": _Method((*key, "size", "item_uid"), queue.clear_history, {}),
            "environment_open": _Method(key, environment.open, {}, ""),
            "environment_close": _Method(key, environment.close, {}, ""),
            "environment_destroy": _Method(key, environment.destroy, {}, ""),
            "environment_update": _Method(("run_in_background", *key), tasks.update_environment, task),
            "manager_stop": _Method(("option",), environment.stop_manager, {}),
            "manager_kill": _Method((), environment.kill_manager, {}),
            "manager_test": _Method(("test_name",), environment.test_manager, {}),
            "kernel_interrupt": _Method(
                ("lock_key", "interrupt_task", "interrupt_plan"), environment.interrupt_kernel, {}, ""
            ),
            "re_pause": _Method(("option", *key), run.pause, {}, ""),
            "re_resume": _Method(key, run.resume, {}, ""),
            "re_stop": _Method(key, run.stop, {}, ""),
            "re_abort": _Method(key, run.abort, {}, ""),
            "re_halt": _Method(key, run.halt, {}, ""),
            "re_runs": _Method(("option",), run.runs, {"run_list": [], "run_list_uid": ""}),
            "re_metadata": _Method((), run.metadata, {"re_metadata": {}}),
            "plans_allowed": _Method(
                ("user_group",), lists.plans_allowed, {"plans_allowed": {}, "plans_allowed_uid": None}, ""
            ),
            "devices_allowed": _Method(
                ("user_group",), lists.devices_allowed, {"devices_allowed": {}, "devices_allowed_uid": None}, ""
            ),
            "plans_existing": _Method((), lists.plans, {"plans_existing": {}, "plans_existing_uid": None}, ""),
            "devices_existing": _Method((), lists.devices, {"devices_existing": {}, "devices_existing_uid": None}, ""),
            "permissions_reload": _Method(
                ("restore_plans_devices", "restore_permissions", *key), lists.reload_permissions, {}
            ),
            "permissions_get": _Method((), lists.permissions, {"user_group_permissions": {}}),
            "permissions_set": _Method(("user_group_permissions", *key), lists.set_permissions, {}),
            "script_upload": _Method(
                ("script", "update_lists", "update_re", "run_in_background", *key), tasks.upload_script, task
            ),
            "function_execute": _Method(
                ("item", *who, "run_in_background", *key), tasks.execute_function, task | {"item": None}
            ),
            "task_status": _Method(("task_uid",), tasks.status, {"task_uid": None, "status": None}),
            "task_result": _Method(("task_uid",), tasks.result, {"task_uid": None, "status": None, "result": None}),
            "lock": _Method(("lock_key", "note", "environment", "queue", "user"), environment.lock, lock),
            "lock_info": _Method(key, environment.lock_info, lock),
            "unlock": _Method(key, environment.unlock, lock),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """All methods."""
        return tuple(self._methods)

    def parameters(self, method: str) -> tuple[str, ...] | None:
        """Give the parameters that a method takes; None: any."""
        return self._methods[method].parameters

    async def answer(self, message: Any) -> dict[str, Any]:
        """Answer a decoded message `{"method": …, "params": {…}}`, whatever it is."""
        if isinstance(message, str):
            return _no(f"Failed to decode the request: {message}")
        if not isinstance(message, dict):
            return _no(f"Incorrect request type: {type(message)}. Dictionary is expected")
        if "method" not in message:
            return _no(f"Invalid request format: method is not specified: {message!r}"[:1_000])
        extra = [key for key in message if key not in _ALLOWED_KEYS]
        if extra:
            return _no(f"Request contains unexpected keys {extra}. Allowed keys: {_ALLOWED_KEYS}")
        return await self.call(message["method"], message.get("params", {}))

    async def call(self, method: str, params: Any, *, raises_no_reply: bool = False) -> dict[str, Any]:
        """Call a method by name; never raises for what a caller did.

        With `raises_no_reply`, NoReplyError and BusError are raised: some transports have other words for them.
        """
        found = self._methods.get(method) if isinstance(method, str) else None
        if found is None:
            return _no(f"Unknown method {method!r}")
        if not isinstance(params, dict):
            return _no(f"Parameters of {method} must be a dictionary, they are {type(params)}")
        try:
            if found.parameters is not None:
                _refuse_unsupported(params, found.parameters)
            answer = await found.call(params)
            return answer if found.parameters is None else {"success": True, "msg": ""} | answer
        except (BecBlueskyError, TypeError, ValueError, LookupError) as error:
            if raises_no_reply and isinstance(error, NoReplyError | BusError):
                raise
            if not isinstance(error, BecBlueskyError | ValueError):
                _log.warning("%s failed", method, exc_info=True)
            echoed = {"item": params.get("item")} if "item" in found.empty and "item" in params else {}
            echoed |= {"items": params["items"]} if "results" in found.empty and "items" in params else {}
            echoed |= {"task_uid": params.get("task_uid")} if method in ("task_status", "task_result") else {}
            extra = getattr(error, "fields", {})
            return _no(found.failing + str(error)) | dict(found.empty) | echoed | extra


def _no(text: str) -> dict[str, Any]:
    return {"success": False, "msg": text}


def _refuse_unsupported(params: Mapping[str, Any], supported: tuple[str, ...]) -> None:
    unknown = [name for name in params if name not in supported]
    if unknown:
        names = repr(unknown[0]) if len(unknown) == 1 else str(unknown)
        raise ValueError(
            f"API request contains unsupported parameters: {names}. Supported parameters: {list(supported)}"
        )
