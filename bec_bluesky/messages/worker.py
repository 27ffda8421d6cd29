"""Between the scan server and its worker and task processes (frames on a socket pair, not on Redis)."""

from typing import Any, Literal

from bec_bluesky.messages.around_queue import KeptScript
from bec_bluesky.messages.common import Failure, Message
from bec_bluesky.messages.queue import ItemResult, PlanInfo, Progress, QueueItem, RunAction

__all__ = [
    "CheckItem",
    "CheckResult",
    "Control",
    "FromWorker",
    "InterruptTask",
    "ItemSuspended",
    "ItemWaits",
    "ModulesReloaded",
    "Ping",
    "Pong",
    "ReloadModules",
    "RunItem",
    "RunStarted",
    "RunState",
    "RunStopped",
    "RunTask",
    "Shutdown",
    "TakeScript",
    "TaskEnded",
    "ToWorker",
    "WorkerItemDone",
    "WorkerProgress",
    "WorkerReady",
]


class RunItem(Message, frozen=True, kw_only=True, tag="run_item"):
    """Run this item now."""

    item: QueueItem
    token: int
    """Fencing token: documents are refused by Redis once a newer one exists."""


class CheckItem(Message, frozen=True, kw_only=True, tag="check_item"):
    """Iterate the item's plan against device descriptions; nothing moves."""

    check_id: str
    item: QueueItem


class Control(Message, frozen=True, kw_only=True, tag="control"):
    """Act on the running plan."""

    action: RunAction
    reason: str = ""


class Shutdown(Message, frozen=True, kw_only=True, tag="shutdown"):
    """Abort what runs, clean up, exit."""


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Asked once a second; answered at once, also while a plan runs. A worker that stays silent is ended."""

    number: int


class ReloadModules(Message, frozen=True, kw_only=True, tag="reload_modules"):
    """Import plans anew, see ReloadPlans; done between two items."""

    module: str = ""


class TakeScript(Message, frozen=True, kw_only=True, tag="take_script"):
    """Take up what a script defines, between two items or tasks; a worker answers with ModulesReloaded."""

    script: KeptScript


class RunTask(Message, frozen=True, kw_only=True, tag="run_task"):
    """To a task process: run a script (`text`), or call a function of the namespace (`name`)."""

    task_id: str
    kind: Literal["script", "function"]
    title: str = ""
    text: str = ""
    name: str = ""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class InterruptTask(Message, frozen=True, kw_only=True, tag="interrupt_task"):
    """To a task process: raise KeyboardInterrupt in this task, if it runs."""

    task_id: str


ToWorker = RunItem | CheckItem | Control | Shutdown | Ping | ReloadModules | TakeScript | RunTask | InterruptTask


class WorkerReady(Message, frozen=True, kw_only=True, tag="worker_ready"):
    """Plans are loaded and the RunEngine waits."""

    pid: int
    plans: list[PlanInfo]
    problems: list[str] = []
    """Plan modules that could not be imported, one sentence each."""
    device_client: str = ""
    """Client id of its device instructions; device servers are told it when the worker is lost."""


class RunState(Message, frozen=True, kw_only=True, tag="run_state"):
    """The RunEngine changed its state: idle, running, pausing, paused, stopping, aborting, halting, panicked."""

    state: str


class RunStarted(Message, frozen=True, kw_only=True, tag="run_started"):
    """A run was opened; its documents are on their way."""

    run_uid: str
    scan_id: int
    expected: int | None = None


class RunStopped(Message, frozen=True, kw_only=True, tag="run_stopped"):
    """A run was closed and all its documents are on Redis."""

    run_uid: str
    exit_status: str


class ItemWaits(Message, frozen=True, kw_only=True, tag="item_waits"):
    """The item waits: somebody else holds its devices, or it is a `wait`; said once more when that is over."""

    text: str
    """For what; empty: for nothing any more."""


class ItemSuspended(Message, frozen=True, kw_only=True, tag="item_suspended"):
    """Suspenders hold the plan, or let it go on."""

    text: str
    """Why; empty: it is not suspended any more."""


class WorkerProgress(Message, frozen=True, kw_only=True, tag="worker_progress"):
    """At most 10 a second."""

    progress: Progress


class WorkerItemDone(Message, frozen=True, kw_only=True, tag="worker_item_done"):
    """The item ended; every document it made is on Redis."""

    item_id: str
    result: ItemResult
    value: Any = None
    """What the plan returned, if it can cross."""


class CheckResult(Message, frozen=True, kw_only=True, tag="check_result"):
    """What iterating the plan found."""

    check_id: str
    failure: Failure | None = None
    points: int | None = None
    """Events the plan would take; none: cannot be told without running it."""
    devices: list[str] = []


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to a Ping."""

    number: int


class ModulesReloaded(Message, frozen=True, kw_only=True, tag="modules_reloaded"):
    """The answer to ReloadModules, and to TakeScript."""

    plans: list[PlanInfo] = []
    """All that are offered now."""
    changed: list[str] = []
    """Names of plans that are made of other code now."""
    problems: list[str] = []
    failure: Failure | None = None
    """There is no such module, or the script cannot be taken up; nothing was done."""


class TaskEnded(Message, frozen=True, kw_only=True, tag="task_ended"):
    """A task has ended, and all that it printed is written."""

    task_id: str
    reason: str = ""
    """Why it failed, in one sentence; empty: it did not."""
    traceback: str = ""
    value: Any = None
    note: str = ""
    defines: bool = False
    """Whether it is a script of which something is to be kept."""
    memory: int = 0
    """Bytes that the process has resident."""
    is_spoiled: bool = False
    """Whether the process cannot run another task as it should, since this one closed or replaced its output."""


FromWorker = (
    WorkerReady
    | ModulesReloaded
    | Pong
    | RunState
    | RunStarted
    | RunStopped
    | ItemSuspended
    | ItemWaits
    | WorkerProgress
    | WorkerItemDone
    | CheckResult
    | TaskEnded
)
