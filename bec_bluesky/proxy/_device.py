"""Remote devices: one class for each set of methods, one object for each device and link.

bluesky asks `isinstance(device, Protocol)` by attributes, so a class has exactly the methods of the real one.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bec_bluesky.messages.devices import Completion, DeviceInfo
from bec_bluesky.proxy._status import RemoteStatus
from bec_bluesky.proxy._subscription import Subscription

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["RemoteDevice"]


class RemoteDevice:
    """A device that lives in a device server; `DeviceLink` makes it, with the methods that the real one has.

    `name`, `parent`, `hints`, children, limits and `repr` are known here. `read()` and its kin give awaitables; `set`,
    `trigger`, `stage` … give a RemoteStatus at once.
    """

    def __init__(self, link: "DeviceLink", info: DeviceInfo) -> None:
        self._link = link
        self._info = info
        self._subscription: Subscription | None = None
        self._reading_at_hand: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """bluesky's name, as it stands in documents."""
        return self._info.name

    @property
    def parent(self) -> "RemoteDevice | None":
        """The device of which this is a part."""
        return None if self._info.parent is None else self._link.device(self._info.parent)

    @property
    def path(self) -> str:
        """Dotted path by which it is found: `samx.velocity`."""
        return self._info.path

    @property
    def info(self) -> DeviceInfo:
        """What its server says of it."""
        return self._info

    @property
    def steps_on(self) -> str:
        """Server by which this can be triggered and read in a step of one instruction (`_step.py`); empty: none can.

        Devices that write files cannot: their documents must go with the reading.
        """
        return self._info.server if self._link.does_steps and "collect_asset_docs" not in self._info.methods else ""

    def __repr__(self) -> str:
        return self._info.representation or f"<remote {self._info.device_class} {self.path!r}>"

    # ── operations ──

    def _ask(self, verb: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Ask for a verb; give an awaitable of its result."""
        return self._link.request(self.path, verb, *args, **(kwargs or {}))

    def _start(
        self, verb: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, *, is_quiet: bool = False
    ) -> RemoteStatus:
        """Start a verb that takes its time."""
        status = RemoteStatus(self._link, self, verb, args, is_quiet=is_quiet)
        self._link.submit(self.path, verb, args, kwargs or {}, status)
        return status

    # ── what the link does with it ──

    def _complete(self, completion: Completion) -> None:
        """Take over what changed; `describe` is never kept here, so its generation does not matter."""
        if completion.hints is not None:
            self._link.directory.change_hints(self.path, completion.hints)

    def _rebind(self, info: DeviceInfo, cls: "type[RemoteDevice]") -> None:
        """Become what the server says now; plans and caches keep this very object."""
        self._info = info
        if self.__class__ is not cls:
            object.__setattr__(self, "__class__", cls)

    def _subscribe(self, callback: Callable[..., None], event_type: str | None) -> None:
        if self._subscription is None:
            self._subscription = Subscription(self)
        self._subscription.add(callback, event_type)
        self._link.watch(self, self._subscription)

    async def _has_begun(self) -> None:
        """Wait until the server monitors it, if it is to; raises why it cannot."""
        if self._subscription is not None:
            await self._subscription.has_begun()

    def _unsubscribe(self, callback: Callable[..., None]) -> None:
        if self._subscription is not None:
            self._subscription.remove(callback)
            if self._subscription.is_empty:
                self._link.unwatch(self, self._subscription)
                self._subscription = None

    @contextlib.contextmanager
    def _answering_read(self, reading: dict[str, Any]) -> Iterator[None]:
        """Let `read()` give this reading, at once, while the block lasts."""
        self._reading_at_hand = reading
        try:
            yield
        finally:
            self._reading_at_hand = None
