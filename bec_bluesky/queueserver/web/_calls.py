"""The routes that are methods of the manager."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response, status

from bec_bluesky.errors import BusError, NoReplyError
from bec_bluesky.log import logger
from bec_bluesky.people import Principal
from bec_bluesky.queueserver._methods import Methods
from bec_bluesky.queueserver.web._bodies import answer, check_keys, payload_of
from bec_bluesky.queueserver.web._door import Door
from bec_bluesky.queueserver.web._reduced_plans import reduce_plans

__all__ = ["call_router", "carry_out"]

_log = logger(__name__)


@dataclass(frozen=True)
class _Call:
    """A path, the method behind it and the scope that it needs."""

    verb: Literal["GET", "POST"]
    path: str
    method: str
    scope: str
    needs_body: bool = False
    needs: tuple[str, ...] = ()
    """Parameters without which it is a bad request; others that are missing are the manager's to refuse."""
    says: frozenset[str] = frozenset()
    """What is said of who asks: user, user_group."""
    fixed: dict[str, Any] = field(default_factory=dict[str, Any])


_USER = frozenset({"user"})
_GROUP = frozenset({"user_group"})
_BOTH = _USER | _GROUP
_EDIT, _CONTROL, _MANAGER, _PLAN = (
    "write:queue:edit",
    "write:queue:control",
    "write:manager:control",
    "write:plan:control",
)
_CALLS = (
    _Call("GET", "/", "ping", "read:status"),
    _Call("GET", "/ping", "ping", "read:status"),
    _Call("GET", "/status", "status", "read:status"),
    _Call("GET", "/config/get", "config_get", "read:config"),
    _Call("GET", "/queue/get", "queue_get", "read:queue"),
    _Call("POST", "/queue/start", "queue_start", _CONTROL),
    _Call("POST", "/queue/stop", "queue_stop", _CONTROL),
    _Call("POST", "/queue/stop/cancel", "queue_stop_cancel", _CONTROL),
    _Call("POST", "/queue/autostart", "queue_autostart", _CONTROL, needs_body=True, needs=("enable",)),
    _Call("POST", "/queue/mode/set", "queue_mode_set", _CONTROL, needs_body=True),
    _Call("POST", "/queue/clear", "queue_clear", _EDIT),
    _Call("POST", "/queue/item/add", "queue_item_add", _EDIT, says=_BOTH),
    _Call("POST", "/queue/item/add/batch", "queue_item_add_batch", _EDIT, needs_body=True, says=_BOTH),
    _Call("POST", "/queue/item/execute", "queue_item_execute", "write:execute", needs_body=True, says=_BOTH),
    _Call("POST", "/queue/item/update", "queue_item_update", _EDIT, needs_body=True, needs=("item",), says=_BOTH),
    _Call("POST", "/queue/item/remove", "queue_item_remove", _EDIT, needs_body=True),
    _Call("POST", "/queue/item/remove/batch", "queue_item_remove_batch", _EDIT, needs_body=True, needs=("uids",)),
    _Call("POST", "/queue/item/move", "queue_item_move", _EDIT, needs_body=True),
    _Call("POST", "/queue/item/move/batch", "queue_item_move_batch", _EDIT, needs_body=True),
    _Call("GET", "/queue/item/get", "queue_item_get", "read:queue"),
    _Call("GET", "/history/get", "history_get", "read:history"),
    _Call("POST", "/history/clear", "history_clear", "write:history:edit"),
    _Call("POST", "/environment/open", "environment_open", _MANAGER),
    _Call("POST", "/environment/close", "environment_close", _MANAGER),
    _Call("POST", "/environment/destroy", "environment_destroy", _MANAGER),
    _Call("POST", "/environment/update", "environment_update", _CONTROL),
    _Call("POST", "/re/pause", "re_pause", _PLAN),
    _Call("POST", "/re/resume", "re_resume", _PLAN),
    _Call("POST", "/re/stop", "re_stop", _PLAN),
    _Call("POST", "/re/abort", "re_abort", _PLAN),
    _Call("POST", "/re/halt", "re_halt", _PLAN),
    _Call("POST", "/re/runs", "re_runs", "read:monitor"),
    _Call("GET", "/re/runs/active", "re_runs", "read:monitor", fixed={"option": "active"}),
    _Call("GET", "/re/runs/open", "re_runs", "read:monitor", fixed={"option": "open"}),
    _Call("GET", "/re/runs/closed", "re_runs", "read:monitor", fixed={"option": "closed"}),
    _Call("GET", "/re/metadata", "re_metadata", "read:monitor"),
    _Call("GET", "/plans/allowed", "plans_allowed", "read:resources", says=_GROUP),
    _Call("GET", "/devices/allowed", "devices_allowed", "read:resources", says=_GROUP),
    _Call("GET", "/plans/existing", "plans_existing", "read:resources"),
    _Call("GET", "/devices/existing", "devices_existing", "read:resources"),
    _Call("POST", "/permissions/reload", "permissions_reload", "write:config"),
    _Call("GET", "/permissions/get", "permissions_get", "read:config"),
    _Call("POST", "/permissions/set", "permissions_set", "write:permissions", needs_body=True),
    _Call("POST", "/function/execute", "function_execute", "write:execute", needs_body=True, says=_BOTH),
    _Call("POST", "/script/upload", "script_upload", "write:scripts", needs_body=True),
    _Call("GET", "/task/status", "task_status", "read:monitor", needs_body=True),
    _Call("GET", "/task/result", "task_result", "read:monitor", needs_body=True),
    _Call("POST", "/lock", "lock", "write:lock", needs_body=True, needs=("lock_key",), says=_USER),
    _Call("POST", "/unlock", "unlock", "write:lock", needs_body=True, needs=("lock_key",)),
    _Call("GET", "/lock/info", "lock_info", "read:lock"),
    _Call("POST", "/kernel/interrupt", "kernel_interrupt", _CONTROL),
    _Call("POST", "/manager/stop", "manager_stop", "write:manager:stop"),
    _Call("POST", "/test/manager/kill", "manager_kill", "write:testing"),
)
_LISTS = ("plans_allowed", "plans_existing")
"""May be asked for in short (`reduced`)."""


def call_router(methods: Methods, door: Door) -> APIRouter:
    """Make the routes of all methods, and of one item by its uid."""
    router = APIRouter(tags=["queue server"])
    for call in _CALLS:
        router.add_api_route(
            call.path, _endpoint(call, methods, door), methods=[call.verb], name=call.method, response_model=None
        )

    @router.get("/queue/item/{uid}", name="item by its uid", response_model=None)
    async def item(uid: str, request: Request) -> Response:
        """Give an item of the queue, as `/queue/item/get` with its uid."""
        door.admit(request, "read:queue")
        return answer(await carry_out(methods, "queue_item_get", {"uid": uid}))

    return router


def _endpoint(call: _Call, methods: Methods, door: Door) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        principal = door.admit(request, call.scope)
        payload = await payload_of(request, is_required=call.needs_body)
        is_reduced = bool(payload.pop("reduced", False)) if call.method in _LISTS else False
        if call.verb == "GET":
            payload.pop("reload", None)
        known = methods.parameters(call.method)
        check_keys(payload, required=call.needs, optional=tuple(payload) if known is None else known)
        said = await carry_out(methods, call.method, payload | call.fixed | _who(principal, call.says))
        if is_reduced and said.get("success"):
            said = said | {call.method: reduce_plans(said[call.method])}
        return answer(said)

    endpoint.__doc__ = f"The method `{call.method}`; needs the scope `{call.scope}`."
    return endpoint


def _who(principal: Principal, says: frozenset[str]) -> dict[str, str]:
    """What a request says of itself does not count: the key tells who asks."""
    return {name: value for name, value in (("user", principal.name), ("user_group", principal.group)) if name in says}


async def carry_out(methods: Methods, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Call a method; raises HTTPException 408 if the scan server does not answer, and 400 for what nobody foresaw."""
    try:
        return await methods.call(method, params, raises_no_reply=True)
    except (NoReplyError, BusError) as error:
        raise HTTPException(status.HTTP_408_REQUEST_TIMEOUT, f"Request timeout: {error}") from error
    except Exception as error:
        _log.warning("%s failed", method, exc_info=True)
        raise HTTPException(status.HTTP_400_BAD_REQUEST, f"{type(error).__name__}: {error}"[:1_000]) from error
