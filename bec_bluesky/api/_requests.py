"""The scan server over HTTP: every request that it takes, as a path, with the message itself as its schema."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response, status

from bec_bluesky.api._access import asking, must_have
from bec_bluesky.api._json_values import json_value
from bec_bluesky.api._message_schema import parameters_of, schema_of
from bec_bluesky.api._problems import REQUEST_PROBLEMS, Problem, ProblemError, problem_of
from bec_bluesky.bus import Caller
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages import around_queue as around
from bec_bluesky.messages import queue

__all__ = ["request_router"]

_LARGEST_BODY = 64 * 1024 * 1024
"""Bytes."""
_PATIENCE = 60.0
"""Seconds; a large batch takes its time to be checked."""
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class _Route:
    """A path, the message that it stands for, and what that is answered with."""

    verb: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    message: type[msgspec.Struct]
    reply: type[msgspec.Struct] | None
    code: int = status.HTTP_200_OK
    inside: str = ""
    """The field of the message that the body is; empty: the body is the message."""


_CREATED, _ACCEPTED = status.HTTP_201_CREATED, status.HTTP_202_ACCEPTED
_ROUTES = (
    _Route("GET", "/queue", queue.GetQueue, queue.Queue),
    _Route("GET", "/queue/status", queue.GetStatus, queue.ScanServerStatus),
    _Route("POST", "/queue/items", queue.AddItem, queue.ItemAccepted, _CREATED),
    _Route("POST", "/queue/items/batch", queue.AddItems, queue.ItemsChanged, _CREATED),
    _Route("POST", "/queue/items/execute", queue.ExecuteItem, queue.ItemAccepted, _CREATED, inside="item"),
    _Route("POST", "/queue/items/move", queue.MoveItems, queue.ItemsChanged),
    _Route("POST", "/queue/items/remove", queue.RemoveItems, queue.ItemsChanged),
    _Route("PUT", "/queue/items/{item_id}", queue.EditItem, queue.ItemAccepted, inside="item"),
    _Route("DELETE", "/queue/items/{item_id}", queue.RemoveItem, queue.QueueItem),
    _Route("POST", "/queue/items/{item_id}/hold", queue.HoldItem, queue.QueueItem),
    _Route("POST", "/queue/items/{item_id}/release", queue.ReleaseItem, queue.QueueItem),
    _Route("POST", "/queue/clear", queue.ClearQueue, queue.ScanServerStatus),
    _Route("POST", "/queue/start", queue.StartQueue, queue.ScanServerStatus),
    _Route("POST", "/queue/stop", queue.StopQueue, queue.ScanServerStatus),
    _Route("PUT", "/queue/mode", queue.SetQueueMode, queue.ScanServerStatus),
    _Route("POST", "/run/{action}", queue.ControlRun, queue.ScanServerStatus),
    _Route("GET", "/history", queue.GetHistory, queue.History),
    _Route("POST", "/plans/reload", around.ReloadPlans, around.PlansReloaded),
    _Route("GET", "/tasks", around.GetTasks, around.Tasks),
    _Route("POST", "/tasks/script", around.RunScript, around.Task, _ACCEPTED),
    _Route("POST", "/tasks/function", around.RunFunction, around.Task, _ACCEPTED),
    _Route("DELETE", "/tasks/{task_id}", around.EndTask, None),
    _Route("GET", "/lock", around.GetLock, around.LockState),
    _Route("PUT", "/lock", around.LockAll, around.LockState),
    _Route("DELETE", "/lock", around.Unlock, around.LockState),
    _Route("GET", "/rules", around.GetRules, around.Rules),
    _Route("PUT", "/rules", around.SetRules, around.Rules),
    _Route("POST", "/environment/{action}", around.SetEnvironment, None),
)
QueueName = Annotated[str, Query(description="which queue is meant; empty: the main one (of the history: all)")]
LockKey = Annotated[str, Header(description="opens what is locked with it")]


def request_router(caller: Caller) -> APIRouter:
    """Make the routes below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", tags=["scan server"], responses=REQUEST_PROBLEMS)
    for route in _ROUTES:
        router.add_api_route(
            route.path,
            _endpoint(route, caller),
            methods=[route.verb],
            status_code=route.code,
            summary=route.message.__name__,
            description=route.message.__doc__,
            response_model=None,
            openapi_extra=_description(route),
        )
    return router


def _endpoint(route: _Route, caller: Caller) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request, queue: QueueName = "", lock_key: LockKey = "") -> Response:
        message = _message(route, await _given(route, request))
        if getattr(message, "start", False):
            must_have(request, "write:queue:control")  # adding is not starting
        try:
            of_queue = "" if "queue" in route.message.__struct_fields__ else queue
            reply = await caller.ask(message, timeout=_PATIENCE, queue=of_queue, lock_key=lock_key, **asking(request))
        except (BecBlueskyError, ValueError, OverflowError, RecursionError) as error:
            raise problem_of(error) from error
        return Response(msgspec.json.encode(json_value(reply)), route.code, media_type="application/json")

    return endpoint


def _description(route: _Route) -> dict[str, Any]:
    described: dict[str, Any] = {"responses": {str(route.code): {"description": "done", **_content(route.reply)}}}
    asked = _body_type(route)
    in_path = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
    if route.verb in ("GET", "DELETE"):
        described["parameters"] = [
            each
            for each in parameters_of(route.message, in_path)
            if each["name"] != "queue"  # all routes have it
        ]
    else:
        described["parameters"] = parameters_of(route.message, in_path, only_path=True)
        described["requestBody"] = _content(asked, without=in_path)
    return described


def _content(message: type[msgspec.Struct] | None, without: Collection[str] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"} if message is None else schema_of(message, without)
    return {"content": {"application/json": {"schema": schema}}}


def _body_type(route: _Route) -> type[msgspec.Struct]:
    return queue.AddItem if route.inside else route.message


# ── what was asked ──


async def _given(route: _Route, request: Request) -> dict[str, Any]:
    """Give the fields of the message: of the body, or of the query; and of the path."""
    if route.verb in ("GET", "DELETE"):
        own = route.message.__struct_fields__
        names = [name for name in request.query_params if name in own or name not in ("queue", "api_key")]
        lists = {f.name for f in msgspec.structs.fields(route.message) if f.type == list[str]}
        asked: dict[str, Any] = {
            name: request.query_params.getlist(name) if name in lists else request.query_params[name] for name in names
        }
    else:
        asked = await _body(request)
    if route.inside:
        has_new_id = request.query_params.get("has_new_id")
        asked = {route.inside: asked} | ({"has_new_id": has_new_id == "true"} if has_new_id else {})
    return asked | request.path_params


async def _body(request: Request) -> dict[str, Any]:
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > _LARGEST_BODY:
            raise _bad(f"the body has more than {_LARGEST_BODY:,} bytes: send it in parts", 413, "too_large")
    if not read.strip():
        return {}
    try:
        decoded = _decode(bytes(read))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _bad(f"the body is no JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise _bad(f"the body is a JSON object, not {type(decoded).__name__}")
    return decoded


def _message(route: _Route, given: dict[str, Any]) -> Any:
    _refuse_unknown(route.message, given)
    try:
        return msgspec.convert(given, route.message, strict=route.verb not in ("GET", "DELETE"))
    except (msgspec.ValidationError, RecursionError) as error:
        raise _bad(f"{route.message.__name__}: {error}") from None


def _refuse_unknown(message: Any, given: dict[str, Any], where: str = "") -> None:
    """Refuse a misspelt name: it would be left out in silence."""
    names = message.__struct_fields__
    unknown = [name for name in given if name not in names]
    if unknown:
        raise _bad(f"no field {where}{str(unknown[0])[:50]!r}: there are {', '.join(names)}")
    inner = given.get("item")
    for place, item in [("item.", inner), *((f"items[{n}].", each) for n, each in enumerate(_items(given)))]:
        if isinstance(item, dict) and message is not queue.AddItem:
            _refuse_unknown(queue.AddItem, item, place)


def _items(given: dict[str, Any]) -> list[Any]:
    items = given.get("items")
    return items if isinstance(items, list) else []


def _bad(text: str, code: int = status.HTTP_422_UNPROCESSABLE_CONTENT, word: str = "bad_request") -> ProblemError:
    return ProblemError(code, Problem(detail=text, code=word))
