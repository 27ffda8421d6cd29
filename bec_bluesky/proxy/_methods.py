"""What the methods of remote devices do, by name."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

from bec_bluesky.proxy import _limits
from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._failure import error_from, is_failure
from bec_bluesky.proxy._status import RemoteStatus
from bec_bluesky.proxy._subscription import value_of

__all__ = ["method"]

_STATUS_VERBS = ("trigger", "prepare", "kickoff", "complete", "stage")
_STOP_TIMEOUT = 1.0
"""Seconds: the RunEngine stops every device it moved, one after the other, and has no timeout of its own."""


def read(self: RemoteDevice, *args: Any, **kwargs: Any) -> Any:
    """Give {key: {value, timestamp}}: a dict if a fresh reading is here, else an awaitable."""
    reading = self._reading_at_hand
    if reading is None and not args and not kwargs:
        reading = self._link.take_reading(self)
    if reading is not None:
        return reading
    return self._ask("read", args, kwargs)


def set_(self: RemoteDevice, *args: Any, **kwargs: Any) -> RemoteStatus:
    """Move; raises ophyd's LimitError here if an ophyd positioner would."""
    if args and self._info.layer == "ophyd" and "position" in self._info.properties:
        _limits.check(self._info, args[0])
    return self._start("set", args, kwargs)


def unstage(self: RemoteDevice) -> RemoteStatus:
    """Unstage; a lost server is no error, or it would hide why the plan ended."""
    return self._start("unstage", is_quiet=True)


def stop(self: RemoteDevice, *args: Any, **kwargs: Any) -> Any:
    """Stop; answers within a second, and a lost server is no error."""
    return self._link.request_quietly(self.path, "stop", args, kwargs, timeout=_STOP_TIMEOUT)


def subscribe(self: RemoteDevice, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call `function(reading)` at every change; with `event_type` or `run` as ophyd does: `function(value=, …)`."""
    event_type = args[0] if args else kwargs.get("event_type")
    is_ophyd_style = bool(args) or "event_type" in kwargs or "run" in kwargs
    self._subscribe(function, (event_type or "value") if is_ophyd_style else None)


def clear_sub(self: RemoteDevice, function: Callable[..., None], *_args: Any, **_kwargs: Any) -> None:
    """Call `function` no more."""
    self._unsubscribe(function)


def get(self: RemoteDevice, *args: Any, **kwargs: Any) -> Any:
    """Give the value now: the one last pushed to a subscription, else asked for, which blocks this thread."""
    subscription = self._subscription
    if not args and not kwargs and subscription is not None and subscription.reading:
        return value_of(subscription.reading, self.name)["value"]
    if "get" in self._info.methods:
        return self._link.ask(self.path, "get", *args, **kwargs)
    return value_of(self._link.ask(self.path, "read"), self.name)["value"]


def check_value(self: RemoteDevice, *args: Any, **kwargs: Any) -> Any:
    """Raise if `set` would refuse the value: at once for limits of an ophyd positioner, else when awaited."""
    if args and self._info.layer == "ophyd" and "position" in self._info.properties:
        _limits.check(self._info, args[0])
        return None
    return self._ask("check_value", args, kwargs)


async def collect_asset_docs(self: RemoteDevice, *args: Any, **kwargs: Any) -> AsyncIterator[tuple[str, Any]]:
    """Yield (name, document) of what was written since the last time."""
    async for name, document in _each(self, "collect_asset_docs", args, kwargs):
        yield name, document


async def collect(self: RemoteDevice) -> AsyncIterator[Any]:
    """Yield partial events."""
    async for event in _each(self, "collect"):
        yield event


async def collect_pages(self: RemoteDevice) -> AsyncIterator[Any]:
    """Yield partial event pages."""
    async for page in _each(self, "collect_pages"):
        yield page


async def _each(
    self: RemoteDevice, verb: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> AsyncIterator[Any]:
    """Yield what the device's generator gave, then raise what it raised."""
    for item in await self._ask(verb, args, kwargs):
        if is_failure(item):
            raise error_from(item)
        yield item


_SPECIAL: dict[str, Callable[..., Any]] = {
    "read": read,
    "set": set_,
    "unstage": unstage,
    "stop": stop,
    "subscribe": subscribe,
    "clear_sub": clear_sub,
    "get": get,
    "check_value": check_value,
    "collect_asset_docs": collect_asset_docs,
    "collect": collect,
    "collect_pages": collect_pages,
}


@functools.cache
def method(verb: str) -> Callable[..., Any]:
    """Give the function that does `verb` on a remote device."""
    found = _SPECIAL.get(verb)
    if found is not None:
        return found
    if verb in _STATUS_VERBS:

        def start(self: RemoteDevice, *args: Any, **kwargs: Any) -> RemoteStatus:
            return self._start(verb, args, kwargs)

        function: Callable[..., Any] = start
    else:

        def ask(self: RemoteDevice, *args: Any, **kwargs: Any) -> Any:
            return self._ask(verb, args, kwargs)

        function = ask
    function.__name__ = verb
    function.__qualname__ = f"RemoteDevice.{verb}"
    function.__doc__ = f"Do `{verb}` on the device server."
    return function
