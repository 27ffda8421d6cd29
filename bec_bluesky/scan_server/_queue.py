"""The queue as a pure state machine: `step(state, event) -> (state, commands)`. Nothing here does I/O.

The commands are carried out in their order; the new state holds once its `Persist` is on Redis. An event that makes no
sense is refused with RefusedError (or UnknownItemError) and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from bec_bluesky.errors import RefusedError, UnknownItemError, choices
from bec_bluesky.messages.queue import ItemResult, QueueItem
from bec_bluesky.scan_server._queue_events import (
    Added,
    AutostartSet,
    Change,
    Cleared,
    CloseLostRuns,
    Command,
    Edited,
    Ended,
    Event,
    Executed,
    Facts,
    Finish,
    Forget,
    Held,
    Insert,
    Mode,
    ModeSet,
    Moved,
    Nudged,
    Persist,
    Place,
    Put,
    Released,
    Removed,
    RunOnWorker,
    Started,
    StopAsked,
    StopCancelled,
    Take,
    WorkerLost,
)

__all__ = ["STOP_HERE", "QueueState", "blocked", "devices_of", "next_to_run", "recover", "step"]

STOP_HERE = "queue_stop"
"""The instruction at which the queue stops; it is spent then."""
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
    """Whether a worker waits for an item; known from outside, and not changed here."""
    taken: Mapping[str, str] = field(default_factory=dict[str, str])
    """Devices that others use now, and who; known from outside, and not changed here."""
    loop: bool = False
    """Whether an item that ended well goes to the back again."""
    ignore_failures: bool = False
    """Whether the queue goes on after an item that failed."""
    autostart: bool = False
    """Whether the queue starts by itself when there is something to run."""


def devices_of(item: QueueItem) -> list[str]:
    """Give the top-level devices that an item uses, as far as its check found them; an instruction uses none."""
    if item.kind == "instruction":
        return []
    return list(dict.fromkeys(str(path).partition(".")[0] for path in item.properties.get("devices") or ()))


def blocked(state: QueueState, item: QueueItem) -> str:
    """Say which device of an item somebody else uses, and who; empty: none."""
    if not state.taken:
        return ""
    return next((f"{name} is held by {state.taken[name]}" for name in devices_of(item) if name in state.taken), "")


def next_to_run(state: QueueState) -> QueueItem | None:
    """Give the item that would run now if there were room for it."""
    if state.mode != "running" or state.running is not None or not state.waiting:
        return None
    item = state.waiting[0]
    return None if item.state == "held" or _is_stop(item) else item


def _is_stop(item: QueueItem) -> bool:
    return item.kind == "instruction" and item.plan == STOP_HERE


# ── the machine ───────────────────────────────────────────────────────────────────────────────────


class _Draft:
    """A state under change, with the changes that make it durable."""

    def __init__(self, state: QueueState) -> None:
        self.before = state
        self.waiting = list(state.waiting)
        self.running = state.running
        self.mode: Mode = state.mode
        self.loop = state.loop
        self.ignore_failures = state.ignore_failures
        self.autostart = state.autostart
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

    def index_at(self, place: Place) -> int:
        """Give the index of a place in the waiting items."""
        if place.before:
            return self.index(place.before)
        if place.after:
            is_running = self.running is not None and self.running.item_id == place.after
            return 0 if is_running else self.index(place.after) + 1
        size = len(self.waiting)
        index = size if place.index is None else place.index
        return min(index, size) if index >= 0 else max(0, size + 1 + index)

    def insert(self, index: int, item: QueueItem) -> None:
        before = self.waiting[index].item_id if index < len(self.waiting) else None
        self.waiting.insert(index, item)
        self.changes += [Put(item), Insert(item.item_id, before)]

    def take(self, index: int) -> QueueItem:
        """Take a waiting item out of the order; its record stays."""
        item = self.waiting.pop(index)
        self.changes.append(Take(item.item_id))
        return item

    def remove(self, index: int) -> None:
        self.changes.append(Forget(self.take(index).item_id))

    def finish(self, result: ItemResult) -> QueueItem:
        assert self.running is not None
        done = msgspec.structs.replace(self.running, state="done", result=result)
        self.running = None
        self.changes.append(Finish(done))
        return done

    def repeat(self, done: QueueItem, index: int, item_id: str, held: str = "") -> None:
        """Put an item that ended into the queue once more, as a new one that tells how it ended."""
        again = msgspec.structs.replace(
            done, item_id=item_id, state="held" if held else "waiting", held=held, repeats=done.item_id
        )
        self.insert(index, again)

    def run(self, item: QueueItem) -> None:
        self.running = item
        self.changes.append(Put(item))
        self.last.append(RunOnWorker(item))

    def advance(self) -> None:
        """Run the next item if there is one, and a worker for it; a queue that can't go on stops."""
        if self.mode == "stopping" and self.running is None:
            self.mode = "stopped"
        can_go_on = bool(self.waiting) and self.waiting[0].state != "held"
        if self.autostart and self.mode == "stopped" and can_go_on:
            self.mode = "running"
        if self.mode != "running" or self.running is not None:
            return
        if not can_go_on:
            self.mode = "stopped"
        elif _is_stop(self.waiting[0]):
            item = self.take(0)
            if self.loop:
                self.insert(len(self.waiting), item)
            else:
                self.changes.append(Forget(item.item_id))
            self.mode, self.autostart = "stopped", False
        elif self.before.has_worker and not blocked(self.before, self.waiting[0]):
            self.run(msgspec.structs.replace(self.take(0), state="running"))

    def outcome(self) -> tuple[QueueState, tuple[Command, ...]]:
        before = self.before
        flags = (self.mode, self.loop, self.ignore_failures, self.autostart)
        is_changed = bool(self.changes) or flags != (
            before.mode,
            before.loop,
            before.ignore_failures,
            before.autostart,
        )
        revision = before.revision + is_changed
        state = QueueState(
            tuple(self.waiting),
            self.running,
            self.mode,
            revision,
            before.has_worker,
            before.taken,
            self.loop,
            self.ignore_failures,
            self.autostart,
        )
        if is_changed:
            running = "" if self.running is None else self.running.item_id
            facts = Facts(running, self.mode, revision, self.loop, self.ignore_failures, self.autostart)
            self.first.append(Persist((*self.changes, facts)))
        return state, (*self.first, *self.last)


def step(state: QueueState, event: Event) -> tuple[QueueState, tuple[Command, ...]]:
    """Give the next state and what must be done for it."""
    draft = _Draft(state)
    _HANDLERS[type(event)](draft, event)
    draft.advance()
    return draft.outcome()


def _add(draft: _Draft, event: Added) -> None:
    index = draft.index_at(event.place)
    for offset, item in enumerate(event.items):
        draft.insert(index + offset, item)
    if event.start and draft.mode != "stopping":  # somebody wants the queue to stop: adding does not undo that
        _start(draft, event)


def _execute(draft: _Draft, event: Executed) -> None:
    if draft.running is not None or draft.mode != "stopped":
        busy = f"item {draft.running.item_id} ({draft.running.plan}) runs" if draft.running else "the queue is started"
        raise RefusedError(f"{event.item.plan} cannot run at once: {busy}; stop the queue first, or add it", "not_idle")
    if not draft.before.has_worker:
        raise RefusedError(f"{event.item.plan} cannot run at once: no worker is ready yet", "no_worker")
    if who := blocked(draft.before, event.item):
        raise RefusedError(f"{event.item.plan} cannot run at once: {who}; wait for it to end, or add it", "device_held")
    draft.run(msgspec.structs.replace(event.item, state="running", is_immediate=True))


def _edit(draft: _Draft, event: Edited) -> None:
    index = draft.index(event.item_id)
    if event.item.item_id == event.item_id:
        before = draft.waiting[index]  # one that is held stays so: to let it run is a decision of its own
        draft.waiting[index] = msgspec.structs.replace(event.item, state=before.state, held=before.held)
        draft.changes.append(Put(draft.waiting[index]))
    else:
        draft.remove(index)
        draft.insert(index, event.item)


def _move(draft: _Draft, event: Moved) -> None:
    if event.place.before in event.item_ids or event.place.after in event.item_ids:
        if len(event.item_ids) == 1:
            draft.index(event.item_ids[0])
            return  # it is where it should be
        raise RefusedError("Items cannot be moved before or after one of themselves", "bad_place")
    if len(set(event.item_ids)) != len(event.item_ids):
        raise RefusedError("An item is named twice: each can have one place only", "bad_place")
    moved = [draft.take(draft.index(item_id)) for item_id in event.item_ids]
    index = draft.index_at(event.place)
    for offset, item in enumerate(moved):
        draft.insert(index + offset, item)


def _hold(draft: _Draft, event: Held) -> None:
    index = draft.index(event.item_id)
    draft.waiting[index] = msgspec.structs.replace(draft.waiting[index], state="held", held=event.reason)
    draft.changes.append(Put(draft.waiting[index]))


def _remove(draft: _Draft, event: Removed) -> None:
    for item_id in event.item_ids:
        draft.remove(draft.index(item_id))


def _release(draft: _Draft, event: Released) -> None:
    index = draft.index(event.item_id)
    item = draft.waiting[index]
    if item.state != "held":
        raise RefusedError(f"Item {item.item_id} ({item.plan}) is not held: it waits for its turn", "not_held")
    draft.waiting[index] = msgspec.structs.replace(item, state="waiting", held="")
    draft.changes.append(Put(draft.waiting[index]))


def _clear(draft: _Draft, event: Cleared) -> None:
    while draft.waiting:
        draft.remove(0)


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
    draft.autostart = False
    if draft.mode == "running":
        draft.mode = "stopping"


def _cancel_stop(draft: _Draft, event: StopCancelled) -> None:
    if draft.mode == "stopped":
        raise RefusedError("The queue has stopped already: start it", "queue_stopped")
    draft.mode = "running"


def _set_mode(draft: _Draft, event: ModeSet) -> None:
    draft.loop = draft.loop if event.loop is None else event.loop
    draft.ignore_failures = draft.ignore_failures if event.ignore_failures is None else event.ignore_failures


def _set_autostart(draft: _Draft, event: AutostartSet) -> None:
    draft.autostart = event.is_on


def _nudge(draft: _Draft, event: Nudged) -> None:
    pass


def _worker_lost(draft: _Draft, event: WorkerLost) -> None:
    if draft.running is not None:  # it is over and known to be: the queue goes on with the next one
        draft.first.append(CloseLostRuns(draft.running, event.result.reason))
        done = draft.finish(event.result)
        if done.goes_back and not done.is_immediate:
            draft.repeat(done, 0, event.again_id, event.result.reason)


def _end(draft: _Draft, event: Ended) -> None:
    if draft.running is None or draft.running.item_id != event.item_id:
        raise UnknownItemError(f"Item {event.item_id!r} ended but is not the one that runs")
    done = draft.finish(event.result)
    status = event.result.exit_status
    is_fine = status in _FINE or (status == "failed" and draft.ignore_failures)
    if not done.is_immediate and is_fine and draft.loop:
        draft.repeat(done, len(draft.waiting), event.again_id)
    if not is_fine:
        if done.goes_back and not done.is_immediate:
            held = event.result.reason or status
            draft.repeat(done, 0, event.again_id, held if draft.autostart else "")
        draft.mode = "stopped"
    is_skipped = event.result.ended_by == "skip"
    if status != "completed" and not is_skipped and not (is_fine and status == "failed"):
        draft.autostart = False


_HANDLERS: dict[type, Callable[[_Draft, Any], None]] = {
    Added: _add,
    Executed: _execute,
    Edited: _edit,
    Moved: _move,
    Held: _hold,
    Removed: _remove,
    Released: _release,
    Cleared: _clear,
    Started: _start,
    StopAsked: _stop,
    StopCancelled: _cancel_stop,
    ModeSet: _set_mode,
    AutostartSet: _set_autostart,
    Nudged: _nudge,
    WorkerLost: _worker_lost,
    Ended: _end,
}


def recover(state: QueueState, reason: str) -> tuple[QueueState, tuple[Command, ...]]:
    """Take up a queue as an earlier scan server left it: stopped, and what was running is held in front.

    Whether that item completed is unknown, so running it again is a person's decision. What ran past the queue is over.
    """
    draft = _Draft(replace(state, has_worker=False))
    draft.mode, draft.autostart = "stopped", False
    if draft.running is not None:
        draft.first.append(CloseLostRuns(draft.running, reason))
        if draft.running.is_immediate:
            draft.finish(ItemResult(exit_status="unknown", reason=reason))
        else:
            held = msgspec.structs.replace(draft.running, state="held", held=reason)
            draft.running = None
            draft.insert(0, held)
    return draft.outcome()
