"""`wait` without a task of its own."""

import asyncio
from typing import Any

from bluesky.run_engine import WaitForTimeoutError

from bec_bluesky.accelerations._acceleration import Acceleration
from bec_bluesky.accelerations._tracing import is_traced

__all__ = ["WAIT"]


def _quick_wait(RE: Any) -> None:
    stock = RE._command_registry["wait"]

    async def wait(msg: Any) -> bool:
        options = msg.kwargs
        is_plain = options.get("timeout") is None and not options.get("watch") and options.get("error_on_timeout", True)
        if not is_plain or is_traced():
            return await stock(msg)
        group = msg.args[0] if msg.args else options["group"]
        factories = RE._groups.pop(group, None)
        if not factories:
            return True
        statuses = RE._status_objs.pop(group)
        try:
            RE._call_waiting_hook(statuses)
            futures = [factory() for factory in factories]
            await _first_exception(RE.loop, futures)
            if not all(future.done() for future in futures):  # one failed: the others are still to be waited for
                RE._groups[group], RE._status_objs[group] = factories, statuses
                raise WaitForTimeoutError("Plan failed to complete in the specified time")
        finally:
            RE._call_waiting_hook(None)
        return True

    wait.__doc__ = stock.__doc__
    RE.register_command("wait", wait)


async def _first_exception(loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[Any]]) -> None:
    """Wait until all are done or one failed; giving up leaves them alone."""
    left = [future for future in futures if not future.done()]
    if not left or (len(left) < len(futures) and any(each.exception() for each in futures if each.done())):
        return
    enough: asyncio.Future[None] = loop.create_future()
    count = len(left)

    def one_is_done(future: asyncio.Future[Any]) -> None:
        nonlocal count
        count -= 1
        if not enough.done() and (not count or future.cancelled() or future.exception() is not None):
            enough.set_result(None)

    for future in left:
        future.add_done_callback(one_is_done)
    try:
        await enough
    finally:
        for future in left:
            future.remove_done_callback(one_is_done)


WAIT = Acceleration(
    name="wait",
    stock={
        "bluesky.run_engine:RunEngine._wait": "90a7bb018576",
        "bluesky.run_engine:RunEngine._wait_for": "17ca6f02e238",
    },
    in_engine=_quick_wait,
)
"""The stock command makes a task, which makes a message for `wait_for`, which calls `asyncio.wait`, in a span. The
futures of the group can be awaited as they are. With `timeout`, `watch` or `error_on_timeout`, or when somebody
traces, it is the stock command."""
