"""Futures of asyncio and of `concurrent.futures` as waiters for one result."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from typing import Any

from bec_bluesky.errors import DeviceServerLost
from bec_bluesky.log import logger
from bec_bluesky.proxy._failure import error_from

__all__ = ["Promise", "QuietReply", "Reply"]

_log = logger(__name__)


class Promise(concurrent.futures.Future[Any]):
    """A future that may be awaited, too.

    `RE.resume()` calls `resume` of devices in the thread of the caller, and awaits what that gives in the loop.
    """

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self).__await__()


class Reply:
    """Sets a future to the result of an operation."""

    def __init__(self, future: Any, make_error: Callable[[Any], BaseException] = error_from) -> None:
        self._future = future
        self._make_error = make_error

    def take(self, code: str, payload: Any) -> bool:
        """Take an answer; give whether it was the last one."""
        if code == "progress":
            return False
        if code == "failed":
            self.fail(self._make_error(payload))
        elif not self._future.done():
            self._future.set_result(payload if code == "result" else None)
        return True

    def fail(self, error: BaseException) -> None:
        """Let whoever waits see the error."""
        if not self._future.done():
            self._future.set_exception(error)


class QuietReply(Reply):
    """Gives None when the server is lost or late, and says so in the log."""

    def __init__(self, future: Any, what: str) -> None:
        super().__init__(future)
        self._what = what

    def fail(self, error: BaseException) -> None:
        """End with None if the server is lost."""
        if not isinstance(error, DeviceServerLost):
            super().fail(error)
        elif not self._future.done():
            _log.warning("%s was not carried out: %s", self._what, error)
            self._future.set_result(None)

    def give_up(self) -> None:
        """Wait no longer."""
        if not self._future.done():
            _log.warning("%s: no answer in time", self._what)
            self._future.set_result(None)
