"""What ended: how it is asked for."""

from bec_bluesky.messages.common import Message
from bec_bluesky.messages.items import QueueItem

__all__ = ["GetHistory", "History"]


class GetHistory(Message, frozen=True, kw_only=True, tag="get_history"):
    """Ask for finished items, newest first."""

    limit: int = 50
    before: str | None = None
    """Cursor: the `next` of an earlier answer."""
    text: str = ""
    """Words that are all found, whatever their case, in plan, title, note, sample, user, the reason why it ended, or
    words among the arguments (names of devices)."""
    plan: str = ""
    user: str = ""
    sample: str = ""
    status: str = ""
    """An ExitStatus."""
    queue: str = ""
    """The queue in which it ran, `main` for the main one; empty: any."""
    item_id: str = ""
    """The beginning of its id."""
    run_uid: str = ""
    """The beginning of the uid of a run that it opened."""
    scan_id: int | None = None
    """The scan number of a run that it opened."""
    since: float | None = None
    until: float | None = None
    """Bounds of the time at which items ended."""


class History(Message, frozen=True, kw_only=True, tag="history"):
    """Finished items, newest first."""

    items: list[QueueItem]
    next: str | None = None
    total: int = 0
