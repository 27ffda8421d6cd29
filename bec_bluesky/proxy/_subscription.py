"""Readings that are pushed to callbacks, in bluesky's style and in ophyd's."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bec_bluesky.log import logger
from bec_bluesky.proxy._failure import error_from

if TYPE_CHECKING:
    from bec_bluesky.proxy._device import RemoteDevice

__all__ = ["Subscription", "value_of"]

_log = logger(__name__)
Callback = Callable[..., None]


class Subscription:
    """All callbacks of one device; one operation on its server keeps them informed."""

    def __init__(self, device: "RemoteDevice") -> None:
        self._device = device
        self._callbacks: dict[Callback, str | None] = {}
        """With the `event_type` of those who want to be called as by ophyd."""
        self._reading: dict[str, Any] | None = None
        self.operation = 0
        self._began: asyncio.Future[None] | None = None

    def asked(self, began: "asyncio.Future[None]") -> None:
        """Its server is being asked: `began` is to tell how that went, to whoever wants to know."""
        began.add_done_callback(_seen)
        self._began = began

    async def has_begun(self) -> None:
        """Wait until the device is monitored; raises what its `subscribe` raised, or DeviceServerLost."""
        if self._began is not None:
            await asyncio.shield(self._began)

    @property
    def reading(self) -> dict[str, Any] | None:
        """The latest reading that was pushed."""
        return self._reading

    @property
    def is_empty(self) -> bool:
        return not self._callbacks

    def add(self, callback: Callback, event_type: str | None) -> None:
        """Call `callback(reading)`, or with an `event_type` as ophyd does; at once if a reading was pushed before."""
        self._callbacks[callback] = event_type
        if self._reading is not None:
            self._tell(callback, event_type, self._reading)

    def remove(self, callback: Callback) -> None:
        """Call it no more."""
        self._callbacks.pop(callback, None)

    def take(self, code: str, payload: Any) -> bool:
        """Take an answer; there is no last one unless the subscription failed."""
        if code == "result":
            self._tell_how_it_went(None)
        elif code == "value":
            self._reading = payload
            for callback, event_type in list(self._callbacks.items()):
                self._tell(callback, event_type, payload)
        elif code == "failed":
            error = error_from(payload)
            _log.error("%s cannot be monitored: %s", self._device.path, error)
            self.operation = 0
            self._tell_how_it_went(error)
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """The server is gone: it is asked again when it is back (the link does that)."""
        self.operation = 0
        self._tell_how_it_went(error)
        _log.warning("monitoring of %s is interrupted: %s", self._device.path, error)

    def _tell_how_it_went(self, error: BaseException | None) -> None:
        if self._began is None or self._began.done():
            return
        if error is None:
            self._began.set_result(None)
        else:
            self._began.set_exception(error)

    def _tell(self, callback: Callback, event_type: str | None, reading: dict[str, Any]) -> None:
        try:
            if event_type is None:
                callback(reading)
            else:
                self._tell_like_ophyd(callback, event_type, reading)
        except Exception:  # noqa: BLE001  # a stranger's callback must not stop the others
            _log.exception("a callback of %s failed", self._device.path)

    def _tell_like_ophyd(self, callback: Callback, event_type: str, reading: dict[str, Any]) -> None:
        entry = value_of(reading, self._device.name)
        # a callback that knows readings only through `read()` (bluesky's `monitor`) gets this very one
        with self._device._answering_read(reading):
            callback(
                value=entry["value"],
                timestamp=entry["timestamp"],
                obj=self._device,
                sub_type=event_type,
                reading=reading,
            )


def _seen(began: "asyncio.Future[None]") -> None:
    if not began.cancelled():
        began.exception()  # if nobody waits for it, the log has it


def value_of(reading: dict[str, Any], name: str) -> dict[str, Any]:
    """Give the entry that stands for the device: the one with its name, else the first."""
    entry = reading.get(name)
    return entry if entry is not None else next(iter(reading.values()))
