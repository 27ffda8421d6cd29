"""The instruction `wait` as a plan, so that it can be paused, skipped and aborted like any other."""

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from bluesky import Msg

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.proxy import value_of

__all__ = ["wait_here"]

_PERIOD = 0.2
"""Seconds between two looks at a condition."""


def wait_here(arguments: Mapping[str, Any], devices: Mapping[str, Any], tell: Callable[[str], None]) -> Any:
    """Wait for some seconds, or for a condition on a device, which is only read; `tell` takes what is waited for.

    Raises TimeoutError if a condition does not hold within its `timeout`.
    """
    if "device" in arguments:
        return _until(arguments, devices, tell)
    return _for_seconds(float(arguments["seconds"]), tell)


def _for_seconds(seconds: float, tell: Callable[[str], None]) -> Generator[Msg, Any, None]:
    end = time.monotonic() + seconds
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    tell(f"{seconds:g} s, until {clock}")
    while True:
        yield Msg("checkpoint")
        left = end - time.monotonic()
        if left <= 0:
            return
        yield Msg("sleep", None, min(left, _PERIOD))


def _until(
    arguments: Mapping[str, Any], devices: Mapping[str, Any], tell: Callable[[str], None]
) -> Generator[Msg, Any, None]:
    path = arguments["device"]
    wanted = _words(arguments)
    end = time.monotonic() + arguments.get("timeout", float("inf"))
    while True:
        yield Msg("checkpoint")
        reading = yield Msg("read", devices[path])
        value = _value(reading, devices[path].name, path)
        if _holds(value, arguments):
            return
        if time.monotonic() >= end:
            raise TimeoutError(f"{path} was not {wanted} within {arguments['timeout']:g} s: it is {value}")
        tell(f"until {path} is {wanted}; it is {value}")
        yield Msg("sleep", None, _PERIOD)


def _value(reading: dict[str, dict[str, Any]], name: str, path: str) -> Any:
    if name in reading or len(reading) == 1:
        return value_of(reading, name)["value"]
    raise BadArgumentError(f"wait: {path} has several values ({', '.join(reading)}): name one of its signals")


def _holds(value: Any, arguments: Mapping[str, Any]) -> bool:
    return (
        ("above" not in arguments or bool(value > arguments["above"]))
        and ("below" not in arguments or bool(value < arguments["below"]))
        and ("equals" not in arguments or bool(value == arguments["equals"]))
    )


def _words(arguments: Mapping[str, Any]) -> str:
    words = {"above": "above", "below": "below", "equals": "equal to"}
    return " and ".join(f"{word} {arguments[name]}" for name, word in words.items() if name in arguments)
