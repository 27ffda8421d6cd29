"""One family of errors.

BecBlueskyError
├── SettingsError (ValueError)            a setting, a profile or a device file is wrong
├── PlugInError (ImportError)             a plug-in cannot be found or imported
├── BusError (ConnectionError)            Redis is not there, or refuses
│   ├── NoRedisError                      none could be found or started
│   ├── StreamGapError                    entries of a stream are missing, or another writer was here
│   └── FencedError                       this writer lost its right to write
├── NoReplyError (TimeoutError)           a service did not answer before the deadline
├── RefusedError (ValueError)             a request was understood and refused; `code` is stable
│   ├── UnknownPlanError (…, LookupError)
│   ├── UnknownDeviceError (…, LookupError)
│   ├── UnknownItemError (…, LookupError)
│   ├── DeviceHeld                        somebody else holds the device; the text says who
│   └── BadArgumentError
├── PlanFailedError (RuntimeError)        a plan that a person waits for did not complete; `item` has the facts
├── TaskFailedError (RuntimeError)        a script or function that a person waits for failed; `task` has the facts
└── DeviceError (RuntimeError)            something on the other side of a proxy
    ├── DeviceServerLost                  the server that owns the device is gone
    ├── DeviceFailed                      the device could not be built or connected
    ├── DeviceDisconnected (…, ConnectionError)   its control system went away while something was under way
    ├── StaleDevice                       the device was built anew, or removed, while something was under way on it
    ├── DeviceTimeout (…, TimeoutError)   an operation on the device passed its deadline
    └── RemoteError                       an exception of a class that is not known here

Every text says what was asked, what is there, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BadArgumentError",
    "BecBlueskyError",
    "BusError",
    "DeviceDisconnected",
    "DeviceError",
    "DeviceFailed",
    "DeviceHeld",
    "DeviceServerLost",
    "DeviceTimeout",
    "FencedError",
    "NoRedisError",
    "NoReplyError",
    "PlanFailedError",
    "PlugInError",
    "RefusedError",
    "RemoteError",
    "SettingsError",
    "StaleDevice",
    "StreamGapError",
    "TaskFailedError",
    "UnknownDeviceError",
    "UnknownItemError",
    "UnknownPlanError",
    "choices",
]


_MOST_COMPARED = 1000
"""Names, and letters of one: to find what is near costs about a millisecond for ten names."""


def choices(asked: str, known: Iterable[str], *, most: int = 12) -> str:
    """Say what could have been meant: the near misses of `asked`, else the first `most` of `known`."""
    names = sorted(known)
    is_short = len(asked) <= _MOST_COMPARED and len(names) <= _MOST_COMPARED
    near = get_close_matches(asked, names, n=3, cutoff=0.6) if is_short else []
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    if not names:
        return "there are none"
    shown = ", ".join(names[:most])
    return f"there are {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")


class BecBlueskyError(Exception):
    """Base of every error that this package raises."""


class SettingsError(BecBlueskyError, ValueError):
    """A setting, a profile or a device file is wrong."""


class PlugInError(BecBlueskyError, ImportError):
    """A plug-in cannot be found or imported."""


class BusError(BecBlueskyError, ConnectionError):
    """Redis is not there, or refuses."""


class NoRedisError(BusError):
    """No Redis could be found or started."""


class StreamGapError(BusError):
    """Entries of a stream are missing; `last` is the newest entry that is there."""

    def __init__(self, text: str, last: int = 0) -> None:
        super().__init__(text)
        self.last = last


class FencedError(BusError):
    """This writer was replaced by another and must stop writing."""


class NoReplyError(BecBlueskyError, TimeoutError):
    """A service did not answer before the deadline; whether it acted is unknown unless the text says so."""


class RefusedError(BecBlueskyError, ValueError):
    """A request was understood and refused.

    `code` is stable and for programs, the text is one sentence for people.
    """

    code = "refused"

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        if code is not None:
            self.code = code


class UnknownPlanError(RefusedError, LookupError):
    """The profile has no plan of that name."""

    code = "unknown_plan"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"No plan {name!r}: {choices(name, known)}")


class UnknownDeviceError(RefusedError, LookupError):
    """No device server has a device of that name."""

    code = "unknown_device"

    def __init__(self, name: str, known: Iterable[str], *, where: str = "") -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}no device {name!r}: {choices(name, known)}")


class UnknownItemError(RefusedError, LookupError):
    """The queue has no such item."""

    code = "unknown_item"


class DeviceHeld(RefusedError):
    """Somebody else holds the device, such as a running plan: only its holder may change it."""

    code = "device_held"

    def __init__(self, device: str, holder: str, remedy: str) -> None:
        super().__init__(f"{device} is held by {holder}: {remedy}")


class BadArgumentError(RefusedError):
    """An argument of a plan is missing, superfluous, of the wrong type or out of range."""

    code = "bad_argument"


class PlanFailedError(BecBlueskyError, RuntimeError):
    """A plan that a person waits for did not complete; `item` is the finished queue item."""

    def __init__(self, text: str, item: object = None) -> None:
        super().__init__(text)
        self.item = item


class TaskFailedError(BecBlueskyError, RuntimeError):
    """A script or function that a person waits for failed; `task` is the finished task."""

    def __init__(self, text: str, task: object = None) -> None:
        super().__init__(text)
        self.task = task


class DeviceError(BecBlueskyError, RuntimeError):
    """Something went wrong on the other side of a proxy."""


class DeviceServerLost(DeviceError):
    """The server that owns the device does not answer; whether the instruction was carried out is unknown."""


class DeviceFailed(DeviceError):
    """The device could not be built or connected; the text gives the reason."""


class StaleDevice(DeviceError):
    """The device was built anew, or removed, while something was under way on it; the next call reaches the new one."""


class DeviceDisconnected(DeviceError, ConnectionError):
    """The device's control system went away while something was under way; whether that was carried out is unknown."""


class DeviceTimeout(DeviceError, TimeoutError):
    """An operation on the device passed its deadline."""


class RemoteError(DeviceError):
    """An exception of a class that is not known here; `kind` is its name on the other side."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind
