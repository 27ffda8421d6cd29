"""What the workers do, and who is told of it."""

from dataclasses import dataclass, field
from typing import Protocol

from bec_bluesky.messages.queue import ItemResult, Progress
from bec_bluesky.messages.worker import WorkerReady

__all__ = ["Activity", "Listener"]


class Listener(Protocol):
    """Who is told what becomes of workers and items; called in the loop, must not block."""

    def worker_ready(self, ready: WorkerReady) -> None: ...

    def item_ended(self, item_id: str, result: ItemResult, *, has_worker: bool) -> None: ...

    def worker_lost(self, why: str, result: ItemResult, *, device_client: str, ran: bool) -> None: ...

    def activity_changed(self) -> None: ...


@dataclass
class Activity:
    """What the running item does now."""

    state: str = "idle"
    """The RunEngine's state."""
    run_uid: str | None = None
    scan_id: int | None = None
    run_uids: list[str] = field(default_factory=list[str])
    scan_ids: list[int] = field(default_factory=list[int])
    progress: Progress | None = None
    started: float = 0.0
