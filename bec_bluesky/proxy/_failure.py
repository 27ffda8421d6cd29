"""From what an answer carries to an exception."""

from typing import Any

import msgspec

from bec_bluesky.errors import DeviceServerLost
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.failures import raised

__all__ = ["error_from", "is_failure", "no_receiver", "was_in_call"]


def is_failure(payload: Any) -> bool:
    """Whether a decoded value is a Failure that came where a value was expected."""
    return isinstance(payload, dict) and payload.get("type") == "failure" and "kind" in payload


def error_from(payload: Any, *, may_import: bool = True) -> BaseException:
    """Make the exception that a `failed` answer tells."""
    return raised(msgspec.convert(payload, Failure), may_import=may_import)


def was_in_call(payload: Any) -> bool:
    """Whether the device's method itself raised what a `failed` answer tells."""
    return bool(payload.get("in_call"))


def no_receiver(server: str) -> DeviceServerLost:
    """Say that an instruction reached nobody: it was certainly not carried out."""
    return DeviceServerLost(
        f"device server {server!r} is not running: nobody received the instruction, nothing was done "
        "(`bec-bluesky status` shows the services)"
    )
