"""Console lines of what happens in the queue; some clients look for how they begin."""

from bec_bluesky.messages.queue import QueueItem, ScanServerStatus
from bec_bluesky.queueserver._feed import Feed

__all__ = ["Announcements"]

_MOST = 100
"""Items told that began and ended between two statuses: after a while without a connection there may be many."""


class Announcements:
    """Says what changed from one status to the next."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._before: ScanServerStatus | None = None

    def take(self, status: ScanServerStatus) -> None:
        """Say what is different."""
        before, self._before = self._before, status
        if before is None or before is status:
            return
        was, now = _id(before.running), _id(status.running)
        has_ended = bool(was) and now != was
        if has_ended:
            self._feed.say(f"The plan has ended: item_uid='{was}'")
        missed = status.history - before.history - has_ended
        for _ in range(min(missed, _MOST)):  # short ones come and go between two statuses, when the machine is busy
            self._feed.say(f"{_next(status)}\nStarting the plan.\nThe plan has ended.")
        if now and now != was:
            assert status.running is not None
            self._feed.say(f"{_next(status)}\nStarting the plan: {status.running.plan} item_uid='{now}'")
        if status.environment != before.environment:
            self._feed.say(f"RE environment: {status.environment}")
        if status.queue_state == "stopped" and (before.queue_state != "stopped" or missed > 0):
            self._feed.say("Queue is empty." if not status.waiting else "Queue is stopped.")


def _next(status: ScanServerStatus) -> str:
    return f"Processing the next queue item: {status.waiting} items are left in the queue."


def _id(item: QueueItem | None) -> str:
    return "" if item is None else item.item_id
