"""Methods about scripts and functions that run on the server."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.around_queue import GetTasks, RunFunction, RunScript, SetEnvironment, Task, Tasks
from bec_bluesky.queueserver._items import item_type_of
from bec_bluesky.queueserver._scan_server import ScanServerAccess

__all__ = ["TaskMethods"]


class TaskMethods:
    """`script_upload`, `function_execute`, `environment_update`, `task_…`."""

    def __init__(self, access: ScanServerAccess) -> None:
        self._access = access

    async def upload_script(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Run a script; the answer names its task."""
        script = params.get("script")
        if script is None:
            raise BadArgumentError("Required 'script' parameter is is missing in API call.")
        if not isinstance(script, str):
            raise BadArgumentError("Type of the 'script' parameter in API call is incorrect.")
        self._access.feed.say("Uploading script to RE environment ...")
        asked = RunScript(script=script, update_lists=bool(params.get("update_lists", True)))
        return {"task_uid": await self._start(asked, params)}

    async def update_environment(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """List plans and devices anew."""
        self._access.feed.say("Updating RE environment ...")
        return {"task_uid": await self._start(SetEnvironment(action="update"), params)}

    async def execute_function(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function; the answer names its task."""
        if "item" not in params:
            raise BadArgumentError("Incorrect request format: request contains no item info")
        item = params["item"]
        item_type_of(item, ("function",))
        user, group = self._access.user_of(params)
        name, arguments, keywords = item.get("name"), item.get("args") or [], item.get("kwargs") or {}
        if not isinstance(name, str) or not name:
            raise BadArgumentError(f"Function name is not specified: {item}")
        if not isinstance(arguments, list | tuple):
            raise BadArgumentError(f"Parameter 'args' is not a tuple or a list: {type(arguments)}")
        if not isinstance(keywords, Mapping) or not all(isinstance(key, str) for key in keywords):
            raise BadArgumentError(f"Parameter 'kwargs' is not a dictionary: {type(keywords)}")
        asked = RunFunction(name=name, args=list(arguments), kwargs=dict(keywords))
        task_uid = await self._start(asked, params)
        known = {key: value for key, value in item.items() if key in ("item_type", "name", "args", "kwargs", "meta")}
        return {"item": known | {"user": user, "user_group": group, "item_uid": task_uid}, "task_uid": task_uid}

    async def _start(self, asked: Any, params: Mapping[str, Any]) -> str:
        is_foreground = not params.get("run_in_background", False)
        if not self._access.has_environment:
            raise RefusedError("RE Worker environment is not open", "no_environment")
        if is_foreground and self._access.state != "idle":
            state = self._access.state
            raise RefusedError(
                f"Failed to start the task: RE Manager must be in idle state. Manager state: '{state}'", "not_idle"
            )
        task: Task = await self._access.change(asked, params)
        if is_foreground and task.state == "running":
            self._access.foreground = task.task_id
        return task.task_id

    # ── results ──

    async def status(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Tell how one task, or several, stand."""
        asked = _asked(params)
        uids = [asked] if isinstance(asked, str) else asked
        if not isinstance(uids, list) or not all(isinstance(uid, str) for uid in uids):
            raise BadArgumentError(f"'task_uid' must be a string or a list of strings: type(task_uid)={type(asked)!r}")
        known = await self._tasks(uids)
        states = {uid: _word(known.get(uid)) for uid in uids}
        return {"task_uid": asked, "status": states[asked] if isinstance(asked, str) else states}

    async def result(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give what became of a task."""
        asked = _asked(params)
        if not isinstance(asked, str):
            raise BadArgumentError(f"'task_uid' must be a string: type(task_uid)={type(asked)!r}")
        task = (await self._tasks([asked])).get(asked)
        if task is None:
            return {"task_uid": asked, "status": "not_found", "result": {}}
        result: dict[str, Any] = {"task_uid": asked, "time_start": task.time_start}
        if task.state != "running":
            result |= {
                "success": task.state == "completed",
                "msg": task.reason,
                "traceback": task.traceback,
                "return_value": task.value,
                "time_stop": task.time_stop,
            }
        return {"task_uid": asked, "status": _word(task), "result": result}

    async def _tasks(self, uids: list[str]) -> dict[str, Task]:
        if not uids:
            return {}
        found: Tasks = await self._access.ask(GetTasks(task_ids=uids, limit=len(uids)))
        if any(task.state != "running" for task in found.tasks):  # what it changed is shown from now on
            await self._access.mirror.refresh()
        return {task.task_id: task for task in found.tasks}


def _asked(params: Mapping[str, Any]) -> Any:
    if params.get("task_uid") is None:
        raise BadArgumentError("Required 'task_uid' parameter is missing in the API call.")
    return params["task_uid"]


def _word(task: Task | None) -> str:
    if task is None:
        return "not_found"
    return "running" if task.state == "running" else "completed"
