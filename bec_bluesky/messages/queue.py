"""Requests to the scan server, and what it says of itself.

Items, the history and plans are described in modules beside this one; they are given here too.
"""

from typing import Any, Literal

import msgspec

from bec_bluesky.messages.around_queue import (
    EndTask,
    GetLock,
    GetRules,
    GetTasks,
    LockAll,
    LockState,
    NoteDevices,
    PlansReloaded,
    ReloadPlans,
    Rules,
    RunFunction,
    RunScript,
    SetEnvironment,
    SetRules,
    Task,
    Tasks,
    Unlock,
)
from bec_bluesky.messages.common import Failure, Message
from bec_bluesky.messages.history import GetHistory, History
from bec_bluesky.messages.items import ExitStatus, ItemDone, ItemResult, QueueItem
from bec_bluesky.messages.plans import Parameter, PlanInfo

__all__ = [
    "MAIN_QUEUE",
    "AddItem",
    "AddItems",
    "ClearQueue",
    "ControlRun",
    "EditItem",
    "ExecuteItem",
    "ExitStatus",
    "GetHistory",
    "GetQueue",
    "GetStatus",
    "History",
    "HoldItem",
    "ItemAccepted",
    "ItemDone",
    "ItemResult",
    "ItemsChanged",
    "Lease",
    "MoveItems",
    "Parameter",
    "PlanInfo",
    "Progress",
    "Queue",
    "QueueItem",
    "ReleaseItem",
    "RemoveItem",
    "RemoveItems",
    "Reply",
    "Request",
    "RunAction",
    "RunOfItem",
    "ScanServerStatus",
    "SetQueueMode",
    "StartQueue",
    "StopQueue",
]

MAIN_QUEUE = "main"
"""What people call the queue that is always there; on the wire its name is empty."""
RunAction = Literal["pause", "pause_now", "resume", "bypass", "finish", "skip", "stop", "abort", "halt"]
"""What a running plan can be asked for: bluesky's meanings, and

bypass: go on in spite of the suspenders that hold it, or whose signals cannot be read: they are out for this item
finish: close the run after the point under way, clean up; it counts as a success
skip: end it as by `stop`; the queue goes on with the next item in any case
"""


# ── requests: what a client may ask ───────────────────────────────────────────────────────────────


class AddItem(Message, frozen=True, kw_only=True, tag="add_item"):
    """Put a plan into the queue; nothing starts unless `start` is set."""

    plan: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    title: str = ""
    note: str = ""
    position: int | None = None
    """0 is the front, negative counts from the back; none is the back."""
    start: bool = False
    """Start the queue too (what `bec-bluesky run` does)."""
    before: str = ""
    """Id of a waiting item before which it goes; replaces `position`."""
    after: str = ""
    """Id of a waiting item, or of the running one, after which it goes; replaces `position`."""
    sample: str = ""
    """Goes into the start document, too, unless `metadata` has one."""
    kind: Literal["plan", "instruction"] = "plan"
    goes_back: bool = False
    """Whether it goes back to the front of the queue, as a new item, if it fails, is aborted or halted."""
    properties: dict[str, Any] = {}
    """Kept with the item, for other interfaces."""
    repeats: str = ""
    """Id of the item that it repeats."""


class AddItems(Message, frozen=True, kw_only=True, tag="add_items"):
    """Put several items into the queue, together and in their order, all or none.

    The places and `start` of the items themselves do not count.
    """

    items: list[AddItem]
    position: int | None = None
    before: str = ""
    after: str = ""
    start: bool = False


class ExecuteItem(Message, frozen=True, kw_only=True, tag="execute_item"):
    """Run an item at once, past the queue; refused unless the queue is stopped and nothing runs."""

    item: AddItem


class EditItem(Message, frozen=True, kw_only=True, tag="edit_item"):
    """Replace a waiting item where it stands; it is checked like a new one."""

    item_id: str
    item: AddItem
    """Its place and `start` do not count."""
    has_new_id: bool = False


class MoveItems(Message, frozen=True, kw_only=True, tag="move_items"):
    """Move waiting items to another place, together and in the order given."""

    item_ids: list[str]
    position: int | None = None
    before: str = ""
    after: str = ""


class HoldItem(Message, frozen=True, kw_only=True, tag="hold_item"):
    """Hold a waiting item: the queue stops in front of it until it is released."""

    item_id: str
    reason: str = ""


class SetQueueMode(Message, frozen=True, kw_only=True, tag="set_queue_mode"):
    """Say how the queue goes on; None leaves it as it is."""

    loop: bool | None = None
    """An item that ended well goes to the back again, as a new one."""
    ignore_failures: bool | None = None
    """The queue goes on after an item that failed."""
    autostart: bool | None = None
    """The queue starts by itself when there is something to run, until something is stopped or fails."""


class RemoveItem(Message, frozen=True, kw_only=True, tag="remove_item"):
    """Take a waiting item out of the queue."""

    item_id: str


class RemoveItems(Message, frozen=True, kw_only=True, tag="remove_items"):
    """Take waiting items out of the queue, all or none."""

    item_ids: list[str]
    ignore_missing: bool = False
    """Take out those that wait, and say nothing of the others."""


class ReleaseItem(Message, frozen=True, kw_only=True, tag="release_item"):
    """Let a held item run when its turn comes; the queue does not start past a held one."""

    item_id: str


class ClearQueue(Message, frozen=True, kw_only=True, tag="clear_queue"):
    """Take all waiting items out of the queue."""


class StartQueue(Message, frozen=True, kw_only=True, tag="start_queue"):
    """Run the waiting items one after the other."""


class StopQueue(Message, frozen=True, kw_only=True, tag="stop_queue"):
    """Stop the queue after the running item; `cancel` takes that back."""

    cancel: bool = False


class ControlRun(Message, frozen=True, kw_only=True, tag="control_run"):
    """Act on the running plan. Stopping is never refused while something runs."""

    action: RunAction
    reason: str = ""
    item_id: str = ""
    """The item that is meant: refused if another one runs. Empty: whichever runs."""
    all_queues: bool = False
    """Act on what runs in every queue, and stop them all (panic stop)."""


class GetQueue(Message, frozen=True, kw_only=True, tag="get_queue"):
    """Ask for the waiting and the running items."""


class GetStatus(Message, frozen=True, kw_only=True, tag="get_status"):
    """Ask for ScanServerStatus."""


RequestBody = (
    AddItem
    | AddItems
    | ExecuteItem
    | EditItem
    | MoveItems
    | HoldItem
    | SetQueueMode
    | RemoveItems
    | RemoveItem
    | ReleaseItem
    | ClearQueue
    | StartQueue
    | StopQueue
    | ControlRun
    | GetQueue
    | GetStatus
    | GetHistory
    | SetEnvironment
    | RunScript
    | RunFunction
    | EndTask
    | GetTasks
    | LockAll
    | Unlock
    | GetLock
    | SetRules
    | GetRules
    | ReloadPlans
    | NoteDevices
)


class Request(Message, frozen=True, kw_only=True, tag="request"):
    """A question to the scan server, with the stream on which the answer is awaited."""

    request_id: str
    reply_to: str
    """Client id: answers go to `Channel REPLIES` of that client."""
    deadline: float
    user: str
    user_group: str = ""
    """Whose rules apply; empty: those of a person at the instrument (no restriction)."""
    lock_key: str = ""
    """Opens what is locked with it."""
    queue: str = ""
    """Which queue is meant; empty: the main one."""
    host: str = ""
    program: str = ""
    """From which computer, and by which program, it is asked."""
    body: RequestBody


# ── answers ───────────────────────────────────────────────────────────────────────────────────────


class ItemAccepted(Message, frozen=True, kw_only=True, tag="item_accepted"):
    """The item is in the queue."""

    item: QueueItem
    position: int
    warnings: list[str] = []


class ItemsChanged(Message, frozen=True, kw_only=True, tag="items_changed"):
    """The items after a change (for those taken out: before it), in their order."""

    items: list[QueueItem]
    warnings: list[str] = []


class Queue(Message, frozen=True, kw_only=True, tag="queue"):
    """The whole queue."""

    waiting: list[QueueItem]
    running: QueueItem | None = None


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """How far the running plan is; what is not known is absent."""

    points: int = 0
    expected: int | None = None
    moving: dict[str, float] = {}
    """Fraction done (0 to 1) of each device that moves and says so."""


class RunOfItem(Message, frozen=True, kw_only=True, tag="run_of_item"):
    """A run that an item opened."""

    uid: str
    scan_id: int
    is_open: bool = True
    exit_status: str = ""


class ScanServerStatus(Message, frozen=True, kw_only=True, tag="scan_server_status"):
    """The scan server on one page; latest value on Redis, published at every change."""

    time: float
    queue_state: Literal["stopped", "running", "stopping"]
    run_state: Literal[
        "no_worker", "starting", "idle", "running", "pausing", "paused", "stopping", "aborting", "halting"
    ]
    waiting: int
    running: QueueItem | None = None
    run_uid: str | None = None
    scan_id: int | None = None
    progress: Progress | None = None
    history: int = 0
    revision: int = 0
    """Grows with every change of the queue."""
    worker: str = ""
    """What became of the worker last, in one sentence."""
    loop: bool = False
    ignore_failures: bool = False
    autostart: bool = False
    queue: str = ""
    """Which queue this tells of; empty: the main one."""
    environment: Literal["closed", "opening", "open", "closing", "destroying"] = "closed"
    """What clients of bluesky-queueserver see; see SetEnvironment."""
    tasks: int = 0
    """How many scripts and functions run."""
    tasks_revision: int = 0
    """Grows with every change of a task."""
    plans_revision: int = 0
    """Grows with every change of the plans that are offered."""
    rules_revision: int = 0
    lock: LockState | None = None
    """None: nothing is locked."""
    runs: list[RunOfItem] = []
    """Runs of the running item, or of the last one."""
    queues: list[str] = []
    """Names of all queues, the main one (`main`) first."""
    waits_for: str = ""
    """For what the running item, or else the next one, waits (who holds its devices, a condition); empty: nothing."""
    suspended: str = ""
    """What holds the running plan (beam, shutter: see suspenders) until it is good again; empty: nothing."""
    interlocks: list[str] = []
    """Interlocks that are tripped, and by what, one sentence each; while any of them acts on queues, nothing begins."""


class Lease(Message, frozen=True, kw_only=True, tag="lease"):
    """Who runs the queues; vanishes unless it is renewed."""

    token: int
    host: str
    """The machine, and the space of process ids there."""
    pid: int
    renewed: int = 0
    """How often."""


class Reply(Message, frozen=True, kw_only=True, tag="reply"):
    """The answer to a Request: a body, or a failure."""

    request_id: str
    body: (
        ItemAccepted
        | ItemsChanged
        | Queue
        | History
        | ScanServerStatus
        | QueueItem
        | Task
        | Tasks
        | LockState
        | Rules
        | PlansReloaded
        | None
    ) = None
    failure: Failure | None = None


def _freeze() -> None:
    msgspec.inspect.type_info(Request)  # fail at import, not at the first request, if a type is wrong


_freeze()
