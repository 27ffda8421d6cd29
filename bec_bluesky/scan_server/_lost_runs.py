"""Runs that nobody closed because their worker is gone."""

from bec_bluesky.bus import Bus
from bec_bluesky.channels import RUNS
from bec_bluesky.log import logger
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.scan_server.worker import close_lost_run

__all__ = ["close_runs_of", "open_runs_of"]

_log = logger(__name__)
_MOST_LOOKED_AT = 2000
"""Newest announcements of runs in which those of one item are looked for."""


async def open_runs_of(bus: Bus, item: QueueItem) -> list[str]:
    """Give the runs that an item opened and did not close, oldest first."""
    closed: set[str] = set()
    opened: list[str] = []
    for _, message in await bus.newest(RUNS, _MOST_LOOKED_AT):
        if isinstance(message, RunClosed):
            closed.add(message.run_uid)
        elif isinstance(message, RunOpened):
            if message.item_id == item.item_id:
                opened.append(message.run_uid)
            if message.time < item.added:
                break
    return [uid for uid in reversed(opened) if uid not in closed]


async def close_runs_of(bus: Bus, item: QueueItem, reason: str, token: int) -> list[str]:
    """Close the runs that an item left open, so that their files and records are finished; give their uids."""
    uids = await open_runs_of(bus, item)
    for uid in uids:
        await close_lost_run(bus, uid, reason, token)
        _log.info("closed a run that its worker left open: %s", reason, extra={"run": uid})
    return uids
