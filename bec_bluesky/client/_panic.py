"""Panic stop, as people mean it: what moves stops, and what runs is aborted."""

import asyncio
import contextlib
from typing import Any

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.errors import BusError, NoReplyError, RefusedError
from bec_bluesky.messages.queue import ControlRun
from bec_bluesky.proxy import StopReport, stop_all

__all__ = ["panic_stop"]

_ABORT_TIMEOUT = 1.0
"""Seconds in which the scan server must take the abort of a panic stop."""


async def panic_stop(bus: Bus, caller: Caller, **who: Any) -> StopReport:
    """Stop everything that moves, at once, whoever moves it, and abort what runs.

    `who` asks, as `Caller.ask` takes it, if it is not the caller.
    The device servers are told directly: it works whatever the queue is doing, also without a scan server.
    """
    report, _ = await asyncio.gather(stop_all(bus.address, bus.beamline), _abort_at_once(caller, who))
    return report


async def _abort_at_once(caller: Caller, who: dict[str, Any]) -> None:
    """Abort what runs, lest a plan that waits for no device go on; without a scan server nothing runs."""
    with contextlib.suppress(RefusedError, NoReplyError, BusError):
        abort = ControlRun(action="abort", reason="panic stop", all_queues=True)
        await caller.ask(abort, timeout=_ABORT_TIMEOUT, **who)
