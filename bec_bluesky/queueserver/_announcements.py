"""Console lines of what happens in the queue; some clients look for how they begin."""

from bec_bluesky.messages.queue import QueueItem, ScanServerStatus
from bec_bluesky.queueserver._feed import Feed

__all__ = ["Announcements"]


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
        if now and now != was:
            assert status.running is not None
            self._feed.say(
                f"Processing the next queue item: {status.waiting} items are left in the queue.\n"
                f"Starting the plan: {status.running.plan} item_uid='{now}'"
            )
        if was and now != was:
            self._feed.say(f"The plan has ended: item_uid='{was}'")
        if status.environment != before.environment:
            self._feed.say(f"RE environment: {status.environment}")
        has_stopped = before.queue_state != "stopped" and status.queue_state == "stopped"
        if has_stopped:
            self._feed.say("Queue is empty." if not status.waiting else "Queue is stopped.")


def _id(item: QueueItem | None) -> str:
    return "" if item is None else item.item_id
