"""The worker's RunEngine: it runs in a loop of its own, and can be acted upon whatever it is doing."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from bluesky import RunEngine
from bluesky.utils import DuringTask, PlanHalt

from bec_bluesky import __version__
from bec_bluesky.errors import RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import RunAction
from bec_bluesky.scan_server.worker._suspensions import Suspensions

__all__ = ["Engine", "no_terminal"]

_log = logger(__name__)
_ENDING = ("stopping", "aborting", "halting")
_ENDS_OF_POINTS = ("save", "remote_step")
_PASSING_TIME = ("sleep", "null")
"""What a plan may do after a point, or a checkpoint, without having begun another."""


def no_terminal(prompt: str) -> RefusedError:
    """Say that nobody can answer a plan here."""
    asked = f"the plan asks {prompt.strip()!r}" if prompt.strip() else "the plan asks for input"
    return RefusedError(
        f"{asked}, and a queue has no terminal where somebody could answer: use arguments instead", "no_terminal"
    )


class Engine(RunEngine):
    """A RunEngine without a terminal: no signal handlers, no plots to keep alive, one result object a call.

    `stop()`, `abort()` and `halt()` of bluesky look at the state in one thread and act on it in another. `act()` does
    both in the loop, where the state can't change in between; so it uses bluesky's own coroutines for them.
    """

    def __init__(self, metadata: dict[str, Any], scan_id_source: Callable[[dict[str, Any]], Awaitable[int]]) -> None:
        super().__init__(
            metadata,
            loop=uvloop.new_event_loop(),
            context_managers=[],
            during_task=DuringTask(),
            call_returns_result=True,
            scan_id_source=scan_id_source,
        )
        # asyncio's own loops have it: by that a suspender knows that it was called in the loop, as remote signals do
        self._loop._thread_id = self._th.ident  # pyright: ignore[reportAttributeAccessIssue]  # uvloop's has none
        self.md["versions"]["bec_bluesky"] = __version__
        self._finish_reason: str | None = None
        """Why the plan is to end at its next checkpoint."""
        self._is_finished_early = False
        self._suspensions = Suspensions(self._loop)
        self._state_hook: Callable[[Any, Any], None] = lambda *_: None
        self.state_hook: Any = self._state_changed

    @property
    def is_finished_early(self) -> bool:
        """Whether the plan was ended because `finish` was asked for, and not by itself before that."""
        return self._is_finished_early

    def begin_item(self) -> None:
        """Forget what was asked of the plan before."""
        self._finish_reason, self._is_finished_early = None, False

    def set_hooks(
        self,
        *,
        waiting: Callable[[Any], None],
        state: Callable[[Any, Any], None],
        suspended: Callable[[str], None],
    ) -> None:
        """Hear what is waited for (None: no longer), of each change of state (new, old), and what suspends the plan."""
        self.waiting_hook: Any = waiting
        self._state_hook = state
        self._suspensions.hook = suspended

    # ── suspenders ──

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a plan; what suspends it already is told."""
        for suspender in self.suspenders:
            factories, reason = suspender.get_futures()
            for released in factories:
                self.loop.call_soon_threadsafe(self._suspensions.begin, released, reason)
        return super().__call__(*args, **kwargs)

    def request_suspend(
        self, fut: Any, *, pre_plan: Any = None, post_plan: Any = None, justification: str | None = None
    ) -> None:
        """Suspend the plan until what `fut` gives is done; from any thread."""
        self.loop.call_soon_threadsafe(self._suspensions.begin, fut, justification or "")
        super().request_suspend(fut, pre_plan=pre_plan, post_plan=post_plan, justification=justification)

    def _state_changed(self, new: Any, old: Any) -> None:
        if str(new) == "running":
            self.loop.call_soon_threadsafe(self._suspend_for_missed)
        elif str(new) == "idle":
            self.loop.call_soon_threadsafe(self._suspensions.clear)
        self._state_hook(new, old)

    def _suspend_for_missed(self) -> None:
        if str(self.state) != "running":
            return
        for suspender in self._suspensions.missed(self.suspenders):
            factories, reason = suspender.get_futures()
            for released in factories:
                self.request_suspend(
                    released, pre_plan=suspender._pre_plan, post_plan=suspender._post_plan, justification=reason
                )

    def _bypass(self) -> None:
        """Take out the suspenders that hold the plan, which then goes on."""
        for suspender in self.suspenders:
            if suspender.tripped:
                suspender._sleep = 0  # nobody waits for it to be good again
                self.remove_suspender(suspender)

    async def act(self, action: RunAction, reason: str) -> bool:
        """Act on a plan that is running, in this engine's loop.

        Gives False if the engine is paused or about to be: then the thread that called the plan must act. What makes no
        sense in the state (pausing what is being stopped) does nothing.
        """
        # bluesky allows no stop there; it is over at once, and no event tells of it
        while str(self.state) == "suspending":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        state = str(self.state)
        if action == "bypass":
            self._bypass()
            return True
        if state in ("pausing", "paused"):
            return False
        if state in _ENDING:
            if action == "halt" and state != "halting":
                self._cut_clean_up_short()
        elif state == "running":
            await self._act_on_running(action, reason)
        return True

    async def _act_on_running(self, action: RunAction, reason: str) -> None:
        match action:
            case "pause" | "pause_now":
                await self._request_pause_coro(action == "pause")
            case "resume":
                self._deferred_pause_requested = False
            case "finish":
                self._finish_reason = reason
                if self._is_between_points or self._suspensions.text:
                    await self._finish()
            case "skip":
                self._reason = reason
                await self._stop_coro()
            case "stop":
                await self._stop_coro()
            case "abort":
                await self._abort_coro(reason)
            case "halt":
                self._reason = reason
                await self._halt_coro()

    def finish(self) -> Any:
        """End a paused plan in order, without the point that the pause interrupted; in the thread that called it."""
        self._is_finished_early = True
        return self.stop()

    def give_reason(self, reason: str) -> None:
        """Say why the plan ends; goes into the stop document."""
        self._reason = reason

    @property
    def _is_between_points(self) -> bool:
        """Whether the plan only lets time pass since its last event or checkpoint."""
        cache: Any = self._msg_cache
        if not cache or not self._rewindable_flag:
            return False  # what is done now is not kept there
        since = itertools.takewhile(lambda msg: msg.command not in _ENDS_OF_POINTS, reversed(cache))
        commands = [msg.command for msg in since]
        return bool(commands) and all(command in _PASSING_TIME for command in commands)

    async def _finish(self) -> None:
        self._reason, self._finish_reason = self._finish_reason or "", None
        self._is_finished_early = True
        await self._stop_coro()

    async def _checkpoint(self, msg: Any) -> None:
        """Take a checkpoint; the plan ends here if it is to finish early."""
        if self._finish_reason is None or str(self.state) != "running":
            await super()._checkpoint(msg)
            return
        await self._reset_checkpoint_state_coro()
        await self._finish()

    async def _input(self, msg: Any) -> str:
        """Fail: without a terminal the stock engine takes silence for an answer, and a plan like `tweak` moves on."""
        raise no_terminal(msg.kwargs.get("prompt", ""))

    def _cut_clean_up_short(self) -> None:
        """Halt although the plan is cleaning up; the state machine has no way from aborting to halting."""
        with self._state_lock:
            self._exception = PlanHalt()
        if self._task is not None:
            self._task.cancel()

    async def _close_run(self, msg: Any) -> Any:
        """Close a run; that of a plan which was ended by somebody gets their reason.

        A plan that is ended while it opens its run wants to close it all the same; there is none yet.
        """
        if msg.run not in self._run_bundlers and str(self.state) in _ENDING:
            return None
        if msg.kwargs.get("exit_status") in ("abort", "success") and not msg.kwargs.get("reason") and self._reason:
            msg = msg._replace(kwargs=msg.kwargs | {"reason": self._reason})
        return await super()._close_run(msg)

    async def _drop(self, msg: Any) -> Any:
        """Drop an event. A plan that is ended while suspended wants to drop the one that the suspension dropped."""
        run = self._run_bundlers.get(msg.run)
        if run is not None and not run.bundling and str(self.state) in _ENDING:
            return None
        return await super()._drop(msg)

    def close(self) -> None:
        """End the loop and its thread; nothing may be running."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
        thread: threading.Thread = self._th
        thread.join(5.0)
        if not thread.is_alive():
            self.loop.close()
