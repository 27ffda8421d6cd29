"""What the workers do, and who is told of it."""

import time
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from bec_bluesky.messages.queue import ExitStatus, ItemResult, Progress, QueueItem, RunAction, RunOfItem
from bec_bluesky.messages.worker import (
    Control,
    FromWorker,
    ItemSuspended,
    ItemWaits,
    RunStarted,
    RunState,
    RunStopped,
    WorkerProgress,
    WorkerReady,
)

__all__ = ["ENDING", "Activity", "Job", "Listener"]

ENDING: dict[RunAction, ExitStatus] = {
    "finish": "completed",
    "skip": "stopped",
    "stop": "stopped",
    "abort": "aborted",
    "halt": "halted",
}
"""How an item ends that has not begun when this is asked for."""


class Listener(Protocol):
    """Who is told what becomes of workers and items; called in the loop, must not block."""

    def worker_ready(self, ready: WorkerReady) -> None: ...

    def worker_free(self) -> None:
        """A worker that had to load something first can be given an item again."""

    def item_ended(self, item: QueueItem, result: ItemResult) -> None: ...

    def worker_lost(self, why: str, *, device_client: str, item: QueueItem | None, result: ItemResult | None) -> None:
        """A worker is gone, and with it the item that it ran, if it ran one."""

    def activity_changed(self) -> None: ...


@dataclass
class Activity:
    """What an item that runs does now."""

    state: str = "idle"
    """The RunEngine's state."""
    run_uid: str | None = None
    scan_id: int | None = None
    run_uids: list[str] = field(default_factory=list[str])
    scan_ids: list[int] = field(default_factory=list[int])
    runs: tuple[RunOfItem, ...] = ()
    progress: Progress | None = None
    started: float = 0.0
    waits_for: str = ""
    """For what it waits; empty: nothing."""

    suspended: str = ""
    """What suspends it; empty: nothing."""

    def follow(self, message: FromWorker) -> bool:
        """Take what a worker says of its item; give whether it is news."""
        match message:
            case RunState(state=state):
                self.state = state
            case RunStarted():
                self.run_uid, self.scan_id = message.run_uid, message.scan_id
                self.run_uids = [*self.run_uids, message.run_uid]
                self.scan_ids = [*self.scan_ids, message.scan_id]
                self.runs = (*self.runs, RunOfItem(uid=message.run_uid, scan_id=message.scan_id))
                self.progress = Progress(expected=message.expected)
            case RunStopped():
                if self.run_uid == message.run_uid:
                    self.run_uid = self.scan_id = None
                self.runs = tuple(
                    msgspec.structs.replace(run, is_open=False, exit_status=message.exit_status)
                    if run.uid == message.run_uid
                    else run
                    for run in self.runs
                )
            case ItemWaits(text=text):
                self.waits_for = text
            case ItemSuspended(text=text):
                self.suspended = text
            case WorkerProgress():
                self.progress = message.progress
            case _:
                return False
        return True


@dataclass(eq=False)
class Job:
    """An item that is to run, or runs, on a worker."""

    item: QueueItem
    activity: Activity = field(default_factory=lambda: Activity(state="running", started=time.time()))
    has_worker: bool = False
    is_checking_first: bool = False
    """Whether it is checked on its worker, and has not been started yet."""
    asked: list[Control] = field(default_factory=list[Control])
    """What was asked of it before a worker began it; the plan is told when it begins."""

    @property
    def end_asked(self) -> Control | None:
        """How it is to end without having begun."""
        return next((message for message in reversed(self.asked) if message.action in ENDING), None)

    def result(self, exit_status: ExitStatus, reason: str) -> ItemResult:
        """Give what is known of it as its result."""
        activity = self.activity
        return ItemResult(
            exit_status=exit_status,
            run_uids=activity.run_uids,
            scan_ids=activity.scan_ids,
            time_start=activity.started,
            time_stop=time.time(),
            reason=reason,
        )

    def ended_before(self, asked: Control) -> ItemResult:
        """Give its result when it is ended before its plan began."""
        reason = asked.reason or f"asked for before its plan began ({asked.action})"
        return msgspec.structs.replace(self.result(ENDING[asked.action], reason), ended_by=asked.action)
