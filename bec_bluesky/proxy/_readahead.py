"""Readings that come with the completion of a batch, or in one batch with the first reading of an event.

An event with N devices then costs one round trip instead of N + 1. What to read ahead is learned from the events of the
same run. A reading is used only if nobody could tell it from one taken when the plan asks:

- once, inside an event (between `create` and `save`);
- if the commands whose completion brought it were all that was under way, on any server;
- if no command to any device, and no pause of the plan, came after it was asked for;
- within `_FRESH` seconds;
- never of a device that writes files, whose documents must go with the reading.

Anything else is asked for as ever.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from bec_bluesky.messages.devices import Op
from bec_bluesky.proxy._failure import is_failure

if TYPE_CHECKING:
    from bec_bluesky.proxy._device import RemoteDevice
    from bec_bluesky.proxy._link import DeviceLink
    from bec_bluesky.proxy._operations import ServerState

__all__ = ["ReadAhead"]

_FRESH = 0.05
"""Seconds."""
_LOOKING = frozenset(
    {
        *("read", "describe", "read_configuration", "describe_configuration", "describe_collect"),
        *("locate", "get", "get_index", "collect_asset_docs", "check_value", "subscribe", "clear_sub"),
    }
)
"""Verbs that change nothing; any other is a command."""
Batch = tuple[str, tuple[tuple[str, str], ...]]


class ReadAhead:
    """Learns and keeps what is read ahead; in the link's loop, driven by the RunEngine's messages."""

    def __init__(self, link: "DeviceLink") -> None:
        self._link = link
        self._is_in_event = False
        self._order: list[str] = []
        """Devices read in this event, without those that write files."""
        self._last_batch: Batch | None = None
        """The commands that were sent last, if no event was saved since."""
        self._after: dict[Batch, tuple[str, ...]] = {}
        self._following: dict[str, tuple[str, ...]] = {}
        """What is read in the same event after this device."""
        self._running: set[int] = set()
        """Commands under way."""
        self._awaited_batch = 0
        self._at_hand: dict[str, tuple[float, Any]] = {}
        """{device: (loop time of its coming, reading)}"""
        self._under_way: dict[str, tuple[float, asyncio.Future[Any]]] = {}

    # ── the RunEngine's messages ──

    def begin_run(self) -> None:
        """Forget what was learned: another plan reads other things."""
        self._after.clear()
        self._following.clear()
        self.discard()

    def begin_event(self) -> None:
        """An event was opened."""
        self._is_in_event = True
        self._order.clear()

    def end_event(self, *, is_saved: bool) -> None:
        """An event was saved or dropped."""
        if is_saved and self._order:
            if self._last_batch is not None:
                self._after[self._last_batch] = tuple(self._order)
            for number, path in enumerate(self._order):
                self._following[path] = tuple(self._order[number + 1 :])
        self._is_in_event = False
        self._last_batch = None
        self.discard()

    def discard(self) -> None:
        """Trust nothing that was read ahead."""
        self._awaited_batch = 0
        self._at_hand.clear()
        self._under_way.clear()

    # ── operations ──

    def note(self, number: int, verb: str) -> None:
        """An operation is asked for: after a command, earlier readings are history."""
        if verb not in _LOOKING:
            if number:  # else nobody will hear of its end
                self._running.add(number)
            self.discard()

    def ended(self, number: int) -> None:
        """An operation ended, well or not."""
        self._running.discard(number)

    def attach(self, server: "ServerState", ops: list[Op]) -> list[str]:
        """Give the devices to read when the operations of this batch are done."""
        if not all(op.id and op.verb not in _LOOKING for op in ops):
            return []
        self._last_batch = (server.name, tuple((op.verb, op.device) for op in ops))
        self._awaited_batch = ops[-1].id
        if len(self._running) != len(ops):  # something else moves: what is read before it ends is not what a plan reads
            return []
        wanted = self._after.get(self._last_batch, ())
        return [path for path in wanted if self._link.directory.info(path).server == server.name]

    def arrived(self, number: int, readings: Any) -> None:
        """Keep the readings that came with the completion of a batch."""
        if number != self._awaited_batch:
            return
        now = self._link.loop.time()
        self._at_hand = {path: (now, reading) for path, reading in readings.items() if not is_failure(reading)}

    # ── reading ──

    def take(self, device: "RemoteDevice") -> Any:
        """Give a reading that was taken ahead, an awaitable of one, or None: then it must be asked for."""
        path = device.path
        if not self._is_in_event or "collect_asset_docs" in device.info.methods:
            return None
        self._order.append(path)
        now = self._link.loop.time()
        came, reading = self._at_hand.pop(path, (0.0, None))
        if now - came < _FRESH:
            return reading
        asked, future = self._under_way.pop(path, (0.0, None))
        if future is not None and now - asked < _FRESH:
            return future
        for other in self._following.get(path, ()):
            if other not in self._at_hand and other not in self._under_way:
                self._under_way[other] = (now, self._ask(other))
        return None

    def _ask(self, path: str) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._link.request(path, "read")
        future.add_done_callback(_seen)  # if the plan does not read it after all, its failure is nobody's business
        return future


def _seen(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
