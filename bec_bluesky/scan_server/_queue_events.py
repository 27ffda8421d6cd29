"""What can happen to the queue, and what must be done for it: the words of the state machine in `_queue.py`."""

from dataclasses import dataclass
from typing import Literal

from bec_bluesky.messages.queue import ItemResult, QueueItem

__all__ = [
    "BACK",
    "Added",
    "AutostartSet",
    "Change",
    "Cleared",
    "CloseLostRuns",
    "Command",
    "Edited",
    "Ended",
    "Event",
    "Executed",
    "Facts",
    "Finish",
    "Forget",
    "Held",
    "Insert",
    "Mode",
    "ModeSet",
    "Moved",
    "Nudged",
    "Persist",
    "Place",
    "Put",
    "Released",
    "Removed",
    "RunOnWorker",
    "Started",
    "StopAsked",
    "StopCancelled",
    "Take",
    "WorkerLost",
]

Mode = Literal["stopped", "running", "stopping"]


@dataclass(frozen=True)
class Place:
    """Where items go: before or after another one, else at an index (0 is the front, negative from the back)."""

    index: int | None = None
    """None is the back."""
    before: str = ""
    after: str = ""
    """May be the running item: then it is the front."""


BACK = Place()

# ── events ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Added:
    """Items were accepted: all go in, together, at one place."""

    items: tuple[QueueItem, ...]
    place: Place = BACK
    start: bool = False


@dataclass(frozen=True)
class Executed:
    """An item runs at once, past the queue, which must be stopped."""

    item: QueueItem


@dataclass(frozen=True)
class Edited:
    """A waiting item is replaced, where it stands; the new one may have another id."""

    item_id: str
    item: QueueItem


@dataclass(frozen=True)
class Moved:
    """Waiting items go to another place, together and in this order."""

    item_ids: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Held:
    """A waiting item is held, and the queue does not go past it."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """Waiting items are taken out, all or none."""

    item_ids: tuple[str, ...]


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
class ModeSet:
    """How the queue goes on after an item; None leaves it as it is."""

    loop: bool | None = None
    """An item that ended well goes to the back again."""
    ignore_failures: bool | None = None
    """The queue goes on after an item that failed."""


@dataclass(frozen=True)
class AutostartSet:
    """Whether the queue starts by itself when there is something to run."""

    is_on: bool


@dataclass(frozen=True)
class Nudged:
    """What is known from outside (workers, devices) may have changed: go on if that is possible now."""


@dataclass(frozen=True)
class WorkerLost:
    """The worker that ran items is gone; what was running on it ended with this result."""

    result: ItemResult
    again_id: str = ""
    """Id for the item if it goes back into the queue."""


@dataclass(frozen=True)
class Ended:
    """The running item ended."""

    item_id: str
    result: ItemResult
    again_id: str = ""
    """Id for the item if it goes back into the queue."""


Event = (
    Added
    | Executed
    | Edited
    | Moved
    | Held
    | Removed
    | Released
    | Cleared
    | Started
    | StopAsked
    | StopCancelled
    | ModeSet
    | AutostartSet
    | Nudged
    | WorkerLost
    | Ended
)

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
    loop: bool = False
    ignore_failures: bool = False
    autostart: bool = False


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
