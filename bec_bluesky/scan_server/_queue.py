"""The queue as a pure state machine: `step(state, event) -> (state, commands)`. Nothing here does I/O.

The commands are carried out in their order; the new state holds once its `Persist` is on Redis. An event that makes no
sense is refused with RefusedError (or UnknownItemError) and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from bec_bluesky.errors import RefusedError, UnknownItemError, choices
from bec_bluesky.messages.queue import ItemResult, QueueItem

__all__ = [
    "Added",
    "Change",
    "Cleared",
    "CloseLostRuns",
    "Command",
    "Ended",
    "Event",
    "Facts",
    "Finish",
    "Forget",
    "Insert",
    "Mode",
    "Persist",
    "Put",
    "QueueState",
    "Released",
    "Removed",
    "RunOnWorker",
    "Started",
    "StopAsked",
    "StopCancelled",
    "Take",
    "WorkerFree",
    "WorkerLost",
    "recover",
    "step",
]

Mode = Literal["stopped", "running", "stopping"]
_FINE = ("completed", "stopped")
"""Exit statuses after which the queue goes on."""


@dataclass(frozen=True)
class QueueState:
    """One queue. Each submitted item is waiting, running or in the history; the last is not kept here."""

    waiting: tuple[QueueItem, ...] = ()
    running: QueueItem | None = None
    mode: Mode = "stopped"
    revision: int = 0
    """Grows with every change."""
    has_worker: bool = False
    """Whether a worker waits for an item."""


# ── events ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Added:
    """Items were accepted: all go in, together, at `position` (none: the back)."""

    items: tuple[QueueItem, ...]
    position: int | None = None
    start: bool = False


@dataclass(frozen=True)
class Removed:
    item_id: str


@dataclass(frozen=True)
class Released:
    item_id: str


@dataclass(frozen=True)
class Cleared:
    pass


@dataclass(frozen=True)
class Started:
    pass


@dataclass(frozen=True)
class StopAsked:
    pass


@dataclass(frozen=True)
class StopCancelled:
    pass


@dataclass(frozen=True)
class WorkerFree:
    """Whether a worker waits for an item changed."""

    is_free: bool


@dataclass(frozen=True)
class WorkerLost:
    """The worker that ran items is gone; what was running on it ended with this result."""

    result: ItemResult
    has_worker: bool = False
    """Whether another one took its place."""


@dataclass(frozen=True)
class Ended:
    """The running item ended."""

    item_id: str
    result: ItemResult
    has_worker: bool = False
    """Whether its worker waits for the next one already (else `WorkerFree` says when)."""


Event = Added | Removed | Released | Cleared | Started | StopAsked | StopCancelled | WorkerFree | WorkerLost | Ended

# ── commands ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Put:
    """Write an item's record."""

    item: QueueItem


@dataclass(frozen=True)
class Insert:
    """Put an item into the order before another one (none: at the end)."""

    item_id: str
    before: str | None


@dataclass(frozen=True)
class Take:
    """Take an item out of the order."""

    item_id: str


@dataclass(frozen=True)
class Forget:
    """Drop an item's record."""

    item_id: str


@dataclass(frozen=True)
class Finish:
    """Append an item to the history and drop its record."""

    item: QueueItem


@dataclass(frozen=True)
class Facts:
    """Write what else makes up the state."""

    running: str
    mode: Mode
    revision: int


Change = Put | Insert | Take | Forget | Finish | Facts


@dataclass(frozen=True)
class Persist:
    """Write these changes in one transaction."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class RunOnWorker:
    item: QueueItem


@dataclass(frozen=True)
class CloseLostRuns:
    """Close the runs that this item left open."""

    item: QueueItem
    reason: str


Command = Persist | RunOnWorker | CloseLostRuns

# ── the machine ───────────────────────────────────────────────────────────────────────────────────


class _Draft:
    """A state under change, with the changes that make it durable."""

    def __init__(self, state: QueueState) -> None:
        self.before = state
        self.waiting = list(state.waiting)
        self.running = state.running
        self.mode: Mode = state.mode
        self.has_worker = state.has_worker
        self.changes: list[Change] = []
        self.first: list[Command] = []
        self.last: list[Command] = []

    def index(self, item_id: str) -> int:
        for index, item in enumerate(self.waiting):
            if item.item_id == item_id:
                return index
        if self.running is not None and self.running.item_id == item_id:
            raise RefusedError(f"Item {item_id} is running: abort it, or stop it, instead", "item_running")
        known = choices(item_id, (item.item_id for item in self.waiting), most=3)
        raise UnknownItemError(f"No item {item_id!r} waits in the queue: {known}")

    def insert(self, index: int, item: QueueItem) -> None:
        before = self.waiting[index].item_id if index < len(self.waiting) else None
        self.waiting.insert(index, item)
        self.changes += [Put(item), Insert(item.item_id, before)]

    def finish(self, result: ItemResult) -> None:
        assert self.running is not None
        done = msgspec.structs.replace(self.running, state="done", result=result)
        self.running = None
        self.changes.append(Finish(done))

    def advance(self) -> None:
        """Run the next item if there is one, and a worker for it; a queue that can't go on stops."""
        if self.mode == "stopping" and self.running is None:
            self.mode = "stopped"
        if self.mode != "running" or self.running is not None:
            return
        if not self.waiting or self.waiting[0].state == "held":
            self.mode = "stopped"
        elif self.has_worker:
            item = msgspec.structs.replace(self.waiting.pop(0), state="running")
            self.running, self.has_worker = item, False
            self.changes += [Take(item.item_id), Put(item)]
            self.last.append(RunOnWorker(item))

    def outcome(self) -> tuple[QueueState, tuple[Command, ...]]:
        before = self.before
        is_changed = bool(self.changes) or self.mode != before.mode
        revision = before.revision + is_changed
        state = QueueState(tuple(self.waiting), self.running, self.mode, revision, self.has_worker)
        if is_changed:
            running = "" if self.running is None else self.running.item_id
            self.first.append(Persist((*self.changes, Facts(running, self.mode, revision))))
        return state, (*self.first, *self.last)


def step(state: QueueState, event: Event) -> tuple[QueueState, tuple[Command, ...]]:
    """Give the next state and what must be done for it."""
    draft = _Draft(state)
    _HANDLERS[type(event)](draft, event)
    draft.advance()
    return draft.outcome()


def _add(draft: _Draft, event: Added) -> None:
    size = len(draft.waiting)
    position = size if event.position is None else event.position
    if position < 0:
        position = max(0, size + 1 + position)
    for offset, item in enumerate(event.items):
        draft.insert(min(position, size) + offset, item)
    if event.start and draft.mode != "stopping":  # somebody wants the queue to stop: adding does not undo that
        _start(draft, event)


def _remove(draft: _Draft, event: Removed) -> None:
    item = draft.waiting.pop(draft.index(event.item_id))
    draft.changes += [Take(item.item_id), Forget(item.item_id)]


def _release(draft: _Draft, event: Released) -> None:
    index = draft.index(event.item_id)
    item = draft.waiting[index]
    if item.state != "held":
        raise RefusedError(f"Item {item.item_id} ({item.plan}) is not held: it waits for its turn", "not_held")
    draft.waiting[index] = msgspec.structs.replace(item, state="waiting", held="")
    draft.changes.append(Put(draft.waiting[index]))


def _clear(draft: _Draft, event: Cleared) -> None:
    for item in draft.waiting:
        draft.changes += [Take(item.item_id), Forget(item.item_id)]
    draft.waiting.clear()


def _start(draft: _Draft, event: Any) -> None:
    if draft.running is None and not draft.waiting:
        raise RefusedError("The queue is empty: add an item first", "queue_empty")
    if draft.running is None and draft.waiting[0].state == "held":
        item = draft.waiting[0]
        raise RefusedError(
            f"Item {item.item_id} ({item.plan}) in front is held: {item.held}; release it or remove it, then start",
            "item_held",
        )
    draft.mode = "running"


def _stop(draft: _Draft, event: StopAsked) -> None:
    if draft.mode == "running":
        draft.mode = "stopping"


def _cancel_stop(draft: _Draft, event: StopCancelled) -> None:
    if draft.mode == "stopped":
        raise RefusedError("The queue has stopped already: start it", "queue_stopped")
    draft.mode = "running"


def _worker_free(draft: _Draft, event: WorkerFree) -> None:
    draft.has_worker = event.is_free


def _worker_lost(draft: _Draft, event: WorkerLost) -> None:
    draft.has_worker = event.has_worker
    if draft.running is not None:  # it is over and known to be: the queue goes on with the next one
        draft.first.append(CloseLostRuns(draft.running, event.result.reason))
        draft.finish(event.result)


def _end(draft: _Draft, event: Ended) -> None:
    if draft.running is None or draft.running.item_id != event.item_id:
        raise UnknownItemError(f"Item {event.item_id!r} ended but is not the one that runs")
    draft.finish(event.result)
    draft.has_worker = event.has_worker
    if event.result.exit_status not in _FINE:
        draft.mode = "stopped"


_HANDLERS: dict[type, Callable[[_Draft, Any], None]] = {
    Added: _add,
    Removed: _remove,
    Released: _release,
    Cleared: _clear,
    Started: _start,
    StopAsked: _stop,
    StopCancelled: _cancel_stop,
    WorkerFree: _worker_free,
    WorkerLost: _worker_lost,
    Ended: _end,
}


def recover(state: QueueState, reason: str) -> tuple[QueueState, tuple[Command, ...]]:
    """Take up a queue as an earlier scan server left it: stopped, and what was running is held in front.

    Whether that item completed is unknown, so running it again is a person's decision.
    """
    draft = _Draft(replace(state, has_worker=False))
    draft.mode = "stopped"
    if draft.running is not None:
        draft.first.append(CloseLostRuns(draft.running, reason))
        held = msgspec.structs.replace(draft.running, state="held", held=reason)
        draft.running = None
        draft.insert(0, held)
    return draft.outcome()
