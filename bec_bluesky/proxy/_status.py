"""bluesky's Status for something that happens on a device server."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from bec_bluesky.errors import DeviceServerLost, DeviceTimeout
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import Completion
from bec_bluesky.proxy._failure import was_in_call

if TYPE_CHECKING:
    from bec_bluesky.proxy._device import RemoteDevice
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["RemoteStatus"]

_log = logger(__name__)
Watcher = Callable[..., None]


class RemoteStatus:
    """The promise of a `set`, `trigger`, `stage` … on a device server.

    It is there at once; callbacks and watchers run in the thread of the link's loop. Errors are those that the device
    raised, or DeviceServerLost.
    """

    def __init__(
        self, link: "DeviceLink", device: "RemoteDevice", verb: str, args: tuple[Any, ...], *, is_quiet: bool = False
    ) -> None:
        self._link = link
        self.device = device
        self.verb = verb
        self.args = args
        self.was_refused = False
        """Whether the device's method raised: in process, no status would have come to be."""
        self._is_quiet = is_quiet
        self._lock = threading.Lock()
        self._done = False
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[RemoteStatus], None]] = []
        self._watchers: list[Watcher] = []
        self._progress: dict[str, Any] | None = None

    @property
    def told(self) -> str:
        """What was asked for, and how far that is: `slow.set(9) is at 0.03 mm`."""
        values = ", ".join(map(_written, self.args))
        call = f"{self.device.path}.{self.verb}({values})"
        at = None if self._progress is None else self._progress.get("current")
        if self._done or at is None:
            return call
        unit = (self._progress or {}).get("unit") or ""
        return f"{call} is at {at:.5g} {unit}".rstrip() if isinstance(at, int | float) else f"{call} is at {at}"

    # ── bluesky's protocol ──

    @property
    def done(self) -> bool:
        """Whether it ended, well or not."""
        return self._done

    @property
    def success(self) -> bool:
        """Whether it ended well."""
        return self._done and self._error is None

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """Give the error, None if there is none (yet).

        Another `timeout` (seconds; None: for ever) waits, which only another thread than the link's may do.
        """
        if timeout != 0.0 and not self._done:
            self._wait_in_thread(timeout)
        return self._error

    def add_callback(self, callback: "Callable[[RemoteStatus], None]") -> None:
        """Call `callback(self)` when it is done; at once if it is."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(name=, current=, initial=, target=, unit=, precision=, fraction=, …)` as it proceeds."""
        with self._lock:
            self._watchers.append(watcher)
            progress = self._progress
        if progress is not None:
            watcher(**progress)

    # ── for people and coroutines ──

    def wait(self, timeout: float | None = None) -> None:
        """Wait in this thread (never the link's own); raises what went wrong, DeviceTimeout after `timeout` seconds."""
        if not self._done:
            self._wait_in_thread(timeout)
        if self._error is not None:
            raise self._error

    def __await__(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if future.done():
                return
            if self._error is not None:
                future.set_exception(self._error)
            else:
                future.set_result(None)

        def wake(_: RemoteStatus) -> None:
            loop.call_soon_threadsafe(settle)

        self.add_callback(wake)
        return future.__await__()

    def _wait_in_thread(self, timeout: float | None) -> None:
        if self._link.is_in_loop_thread:
            raise RuntimeError(f"waiting for {self!r} here would block the loop that hears of its end: await it")
        ended = threading.Event()
        self.add_callback(lambda _: ended.set())
        if not ended.wait(timeout):
            raise DeviceTimeout(f"{self!r} is not done after {timeout:g} s")

    def __repr__(self) -> str:
        call = f"{self.device.path}.{self.verb}({', '.join(map(repr, self.args))})"
        if not self._done:
            return f"<Status of {call}: under way>"
        if self._error is None:
            return f"<Status of {call}: done>"
        return f"<Status of {call}: {type(self._error).__name__}: {self._error}>"

    # ── the link's side ──

    def take(self, code: str, payload: Any) -> bool:
        """Take an answer; give whether it was the last one."""
        if code == "progress":
            self._proceed(payload)
            return False
        if code == "failed":
            self.was_refused = was_in_call(payload)
            self.fail(self._link.make_error(payload))
        else:
            if code == "done" and payload is not None:
                self.device._complete(msgspec.convert(payload, Completion))
            self._finish(None)
        return True

    def fail(self, error: BaseException) -> None:
        """End it; clean-up on a lost server ends well, or its error would hide the cause."""
        if self._is_quiet and isinstance(error, DeviceServerLost):
            _log.warning("%s.%s was not carried out: %s", self.device.path, self.verb, error)
            self._finish(None)
        else:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        with self._lock:
            if self._done:
                return
            self._error = error
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
            self._watchers.clear()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001  # a stranger's callback must not cost others the news
                _log.exception("a callback of %r failed", self)

    def _proceed(self, progress: Any) -> None:
        self._progress = dict(progress)
        for watcher in tuple(self._watchers):
            with contextlib.suppress(Exception):  # a progress bar
                watcher(**self._progress)


def _written(value: Any) -> str:
    item = getattr(value, "item", None)  # numpy's numbers show their type otherwise
    return repr(item() if item is not None and getattr(value, "ndim", 1) == 0 else value)
