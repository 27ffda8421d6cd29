"""Items of the queue, as they wait, run and are remembered."""

from typing import Any, Literal

from bec_bluesky.messages.common import Message

__all__ = ["ExitStatus", "ItemDone", "ItemResult", "QueueItem"]

ExitStatus = Literal["completed", "failed", "stopped", "aborted", "halted", "unknown"]


class ItemResult(Message, frozen=True, kw_only=True, tag="item_result"):
    """How an item ended."""

    exit_status: ExitStatus
    run_uids: list[str] = []
    scan_ids: list[int] = []
    time_start: float = 0.0
    time_stop: float = 0.0
    reason: str = ""
    """One sentence of cause; empty when it completed by itself."""
    traceback: str = ""
    ended_by: Literal["", "finish", "skip", "stop", "abort", "halt"] = ""
    """What somebody asked for that ended it; empty: it ended by itself."""


class QueueItem(Message, frozen=True, kw_only=True, tag="queue_item"):
    """A plan with its arguments, as it waits, runs and is remembered."""

    item_id: str
    plan: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    """Goes into the start document (`RE(plan, **metadata)`)."""
    user: str = ""
    title: str = ""
    note: str = ""
    kind: str = "plan"
    """plan or instruction (then `plan` is its name: at a `queue_stop` the queue stops; `wait` has it wait)."""
    added: float = 0.0
    state: Literal["waiting", "held", "running", "done"] = "waiting"
    held: str = ""
    """Why it is held; empty otherwise."""
    sample: str = ""
    goes_back: bool = False
    """Whether it goes back to the front of the queue, as a new item, if it fails, is aborted or halted."""
    is_immediate: bool = False
    """Whether it runs past the queue."""
    repeats: str = ""
    """Id of the item that it repeats."""
    properties: dict[str, Any] = {}
    """Room for what other interfaces attach to an item."""
    result: ItemResult | None = None
    queue: str = ""
    """The queue in which it waits, runs or ran; empty: the main one."""

    def __repr__(self) -> str:
        """Say at a prompt what became of it; its fields have the rest, pages of traceback among them."""
        if self.result is None:
            return f"<{self.plan} {self.item_id}: {self.state}>"
        reason = f", {self.result.reason}" if self.result.reason else ""
        return f"<{self.plan} {self.item_id}: {self.result.exit_status}{reason}>"


class ItemDone(Message, frozen=True, kw_only=True, tag="item_done"):
    """An item ended (stream `queue:done`)."""

    item: QueueItem
