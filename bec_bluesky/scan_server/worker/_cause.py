"""Why a plan failed, in one sentence."""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from bluesky.utils import FailedStatus

from bec_bluesky.errors import BecBlueskyError, DeviceServerLost
from bec_bluesky.proxy import NOT_DONE, RemoteStatus

__all__ = ["cause_of", "traceback_of"]

_LIBRARIES = ("site-packages", "bec_bluesky/", "lib/python", "<frozen")


def cause_of(error: BaseException) -> str:
    """Say in one line what went wrong, on which device, and where in the plan if it is a mistake in there."""
    if isinstance(error, BaseExceptionGroup):
        return cause_of(error.exceptions[0])
    error = _first_loss(error)
    if isinstance(error, FailedStatus):
        return _of_status(error)
    text = _one_line(str(error))
    if isinstance(error, BecBlueskyError):
        return text
    name = type(error).__name__
    in_vain = [note.removeprefix(NOT_DONE) for note in getattr(error, "__notes__", ()) if note.startswith(NOT_DONE)]
    if in_vain:
        text = f"not done in time: {', '.join(sorted(in_vain))}"
    return (f"{name}: {text}" if text else name) + _place(error.__traceback__)


def traceback_of(error: BaseException) -> str:
    """Give the whole traceback, causes included."""
    return "".join(traceback.format_exception(error))


def _first_loss(error: BaseException) -> BaseException:
    """Give what failed first when a device server was lost: cleaning up fails of that, too, and tells less."""
    first = error
    earlier = error.__context__ if isinstance(error, DeviceServerLost) else None
    while earlier is not None:
        if isinstance(earlier, FailedStatus):
            return earlier
        if isinstance(earlier, DeviceServerLost):
            first = earlier
        earlier = earlier.__context__
    return first


def _of_status(error: FailedStatus) -> str:
    """Unwrap what a status failed with; the status knows which device was asked for what."""
    status: Any = error.args[0] if error.args else None
    cause = error.__cause__
    why = repr(status) if cause is None else cause_of(cause)
    device = getattr(status, "device", None) or getattr(status, "obj", None)
    name = getattr(device, "path", None) or getattr(device, "name", "")
    verb = getattr(status, "verb", "")
    if not verb or not name:
        return why if not name or name in why else f"{name}: {why}"
    asked = status.told if isinstance(status, RemoteStatus) else f"{name}.{verb}"
    return f"{asked} failed: {why}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _place(trace: TracebackType | None) -> str:
    """Name the innermost line that is no library's."""
    own = [frame for frame in traceback.extract_tb(trace) if not any(part in frame.filename for part in _LIBRARIES)]
    return f" ({own[-1].name} in {Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
