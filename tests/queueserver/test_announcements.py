"""Console lines of the queue, made of statuses of which some are missed on a busy machine."""

from typing import Any

import msgspec
import pytest

from bec_bluesky.messages.queue import QueueItem, ScanServerStatus
from bec_bluesky.queueserver._announcements import Announcements
from bec_bluesky.queueserver._feed import Feed

IDLE = ScanServerStatus(
    time=1.0, queue_state="stopped", run_state="idle", waiting=1, running=None, history=3, revision=1, worker="ready"
)
ITEM = QueueItem(item_id="a", plan="count", state="running")
STARTING, ENDED = "Starting the plan: count item_uid='a'", "The plan has ended: item_uid='a'"
MISSED = ["Starting the plan.", "The plan has ended."]
PROCESSING = "Processing the next queue item: 0 items are left in the queue."


@pytest.mark.parametrize(
    ("statuses", "lines"),
    [
        (
            [{"queue_state": "running", "waiting": 0, "running": ITEM}, {"waiting": 0, "history": 4}],
            [
                PROCESSING,
                "Starting the plan: count item_uid='a'",
                "The plan has ended: item_uid='a'",
                "Queue is empty.",
            ],
        ),
        ([{"waiting": 0, "history": 4}], [PROCESSING, *MISSED, "Queue is empty."]),
        (
            [{"queue_state": "running", "waiting": 0, "history": 4, "running": ITEM}],
            [
                PROCESSING,
                "Starting the plan.",
                "The plan has ended.",
                PROCESSING,
                "Starting the plan: count item_uid='a'",
            ],
        ),
        ([{"waiting": 0}], []),
    ],
)
def test_every_item_is_told_whatever_was_missed(statuses: list[dict[str, Any]], lines: list[str]) -> None:
    feed = Feed()
    announcements = Announcements(feed)
    for facts in ({}, *statuses):
        announcements.take(msgspec.structs.replace(IDLE, **facts))
    assert feed.lines().splitlines() == lines
