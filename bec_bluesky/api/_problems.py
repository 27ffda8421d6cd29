"""Errors as HTTP answers: a status code that says whose fault it is, a stable code, and one sentence."""

from fastapi import Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from bec_bluesky.errors import (
    BecBlueskyError,
    BusError,
    DeviceDisconnected,
    DeviceFailed,
    DeviceHeld,
    DeviceServerLost,
    NoReplyError,
    RefusedError,
    RemoteError,
)

__all__ = ["PROBLEMS", "REQUEST_PROBLEMS", "Problem", "ProblemError", "problem_of", "say_invalid", "say_problem"]


class Problem(BaseModel):
    """What went wrong."""

    detail: str
    """One sentence for people."""
    code: str
    """Stable, for programs."""


PROBLEMS: dict[int | str, dict[str, object]] = {
    404: {"model": Problem, "description": "There is no such device; the text gives near matches"},
    409: {"model": Problem, "description": "The device is held by somebody, disabled, failed or read-only"},
    422: {"model": Problem, "description": "The value is outside the limits or of the wrong kind, or no such verb"},
    502: {"model": Problem, "description": "The device raised an error"},
    503: {"model": Problem, "description": "The device server, the control system or Redis is away"},
    504: {"model": Problem, "description": "It took longer than was allowed"},
}

REQUEST_PROBLEMS: dict[int | str, dict[str, object]] = {
    403: {"model": Problem, "description": "The rules of the group do not permit it"},
    404: {"model": Problem, "description": "There is no such item, plan, queue, task or device"},
    409: {"model": Problem, "description": "It does not fit with what is there or what runs now"},
    413: {"model": Problem, "description": "It is too large"},
    422: {"model": Problem, "description": "What was asked is wrong; `code` says how"},
    423: {"model": Problem, "description": "It is locked; send the key in the header `Lock-Key`"},
    503: {"model": Problem, "description": "The scan server or Redis is away"},
}

_BY_CODE = {
    "not_permitted": status.HTTP_403_FORBIDDEN,
    "locked": status.HTTP_423_LOCKED,
    "too_large": status.HTTP_413_CONTENT_TOO_LARGE,
    **dict.fromkeys(("unknown_queue", "unknown_module", "unknown_request", "unknown_task"), status.HTTP_404_NOT_FOUND),
    **dict.fromkeys(
        (
            *("item_running", "no_worker", "not_closed", "not_held", "not_idle", "not_paused", "nothing_runs"),
            *("queue_empty", "queue_stopped", "halting", "other_item_runs", "too_many_scripts", "too_many_tasks"),
        ),
        status.HTTP_409_CONFLICT,
    ),
}
"""Of refusals whose class says nothing of whose fault it is."""
_BY_CLASS: tuple[tuple[type[BaseException], int, str], ...] = (
    (LookupError, status.HTTP_404_NOT_FOUND, "unknown"),
    (DeviceHeld, status.HTTP_409_CONFLICT, "device_held"),
    (DeviceFailed, status.HTTP_409_CONFLICT, "device_failed"),
    (DeviceDisconnected, status.HTTP_503_SERVICE_UNAVAILABLE, "device_disconnected"),
    (DeviceServerLost, status.HTTP_503_SERVICE_UNAVAILABLE, "server_lost"),
    (BusError, status.HTTP_503_SERVICE_UNAVAILABLE, "bus"),
    (NoReplyError, status.HTTP_503_SERVICE_UNAVAILABLE, "no_reply"),
    (TimeoutError, status.HTTP_504_GATEWAY_TIMEOUT, "timeout"),
    (ValueError, status.HTTP_422_UNPROCESSABLE_CONTENT, "bad_value"),
    (TypeError, status.HTTP_422_UNPROCESSABLE_CONTENT, "bad_value"),
)
"""The first that fits; RefusedErrors that fit none of the former are ValueErrors."""
_BY_KIND = {
    "LimitError": (status.HTTP_422_UNPROCESSABLE_CONTENT, "limits"),
    "ReadOnlyError": (status.HTTP_409_CONFLICT, "read_only"),
    "DisconnectedError": (status.HTTP_503_SERVICE_UNAVAILABLE, "device_disconnected"),
    "NotConnectedError": (status.HTTP_503_SERVICE_UNAVAILABLE, "device_disconnected"),
}
"""Of classes of ophyd and ophyd-async, which are not imported here."""


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(self, status_code: int, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.status_code = status_code
        self.problem = problem


def problem_of(error: Exception) -> ProblemError:
    """Say in HTTP's words what went wrong on a device; what fits nothing is the device's own error."""
    kind = (error.kind if isinstance(error, RemoteError) else type(error).__name__).rpartition(".")[2]
    found = _BY_KIND.get(kind)
    if isinstance(error, RefusedError) and error.code in _BY_CODE:
        found = _BY_CODE[error.code], error.code
    if found is None:
        classes = ((number, code) for cls, number, code in _BY_CLASS if isinstance(error, cls))
        found = next(classes, (status.HTTP_502_BAD_GATEWAY, "device_error"))
    status_code, code = found
    text = str(error) if isinstance(error, BecBlueskyError) or kind in _BY_KIND else f"{kind}: {error}"
    return ProblemError(status_code, Problem(detail=text, code=error.code if isinstance(error, RefusedError) else code))


async def say_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer with a problem."""
    assert isinstance(error, ProblemError)
    return JSONResponse(error.problem.model_dump(), status_code=error.status_code)


async def say_invalid(request: Request, error: Exception) -> JSONResponse:
    """Refuse what does not fit, without quoting it: it may be bytes, or NaN, which JSON has no words for."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"type": each["type"], "loc": list(each["loc"]), "msg": each["msg"]} for each in error.errors()]
    return JSONResponse({"detail": wrong}, status_code=status.HTTP_422_UNPROCESSABLE_CONTENT)
