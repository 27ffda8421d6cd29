"""One item, from its start to its result; lives in the process's main thread."""

import concurrent.futures
import queue
import time
from collections.abc import Callable
from typing import Any

from bluesky.run_engine import RunEngineResult
from bluesky.utils import RunEngineInterrupted

from bec_bluesky.log import logger
from bec_bluesky.messages.queue import ExitStatus, ItemResult, QueueItem, RunAction
from bec_bluesky.scan_server.worker._cause import cause_of, traceback_of
from bec_bluesky.scan_server.worker._engine import Engine

__all__ = ["RunningItem"]

_log = logger(__name__)
_ENDS: dict[str, ExitStatus] = {"skip": "stopped", "stop": "stopped", "abort": "aborted", "halt": "halted"}
_STATUSES: dict[str, ExitStatus] = {"success": "completed", "abort": "aborted", "fail": "failed"}
_NO_CHECKPOINT = "it was paused where the plan allows no pause (no checkpoint), so it was aborted"


class RunningItem:
    """Runs an item's plan; `act()` may come from any thread."""

    def __init__(self, engine: Engine, item: QueueItem) -> None:
        self._engine = engine
        self.item = item
        self._actions: queue.SimpleQueue[tuple[RunAction, str]] = queue.SimpleQueue()
        self._end: ExitStatus | None = None
        self._end_reason = ""
        self._ended_by: Any = ""
        self._finish_reason: str | None = None
        self.is_bypassed = False
        """Whether it is to begin although suspenders cannot read their signals."""
        self._has_begun = False
        self._error: BaseException | None = None
        self._result: RunEngineResult | None = None
        self.run_uids: list[str] = []
        self.scan_ids: list[int] = []
        self.begun: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the engine has taken up the plan, or the item is over."""
        self.over: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the plan has ended; its documents may still be on their way."""
        self.told: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when its documents are on Redis and the scan server was told."""

    @property
    def value(self) -> Any:
        """What the plan returned."""
        returned = None if self._result is None else self._result.plan_result
        return None if returned is self._engine.NO_PLAN_RETURN else returned

    # ── any thread ──

    @property
    def is_over(self) -> bool:
        return self.over.done()

    @property
    def is_unwanted(self) -> bool:
        """Whether it is to end without having begun."""
        return self._end is not None or self._finish_reason is not None

    def begin(self) -> None:
        """Note that the engine has taken up the plan."""
        if not self.begun.done():
            self.begun.set_result(None)

    def want(self, action: RunAction, reason: str) -> None:
        """Note how the item is to end; halting is the last word. Finishing early is no end if the plan is faster."""
        if action == "bypass":
            self.is_bypassed = True
        if action == "finish" and self._finish_reason is None:
            self._finish_reason = reason
        if action in _ENDS and (self._end is None or action == "halt"):
            self._end, self._end_reason, self._ended_by = _ENDS[action], reason or self._end_reason, action

    def act_when_paused(self, action: RunAction, reason: str) -> None:
        """Have the main thread act, which waits for that while the engine is paused."""
        self._actions.put((action, reason))

    # ── the main thread ──

    def run(self, make_plan: Callable[[], Any]) -> ItemResult:
        """Run the plan to its end, however it ends."""
        started = time.time()
        self._engine.begin_item()
        try:
            plan = make_plan()
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            self._error = error
        else:
            if not self.is_unwanted:
                self._has_begun = True
                self._attend(lambda: self._engine(plan, **self._metadata()))
                self._serve_pauses()
        self.over.set_result(None)
        self.begin()
        return self._describe(started)

    def _metadata(self) -> dict[str, Any]:
        item = self.item
        own = {"item_id": item.item_id, "user": item.user, "title": item.title}
        return {key: value for key, value in own.items() if value} | item.metadata

    def _attend(self, call: Callable[[], Any]) -> None:
        """Call the engine and note what comes of it: a result, a pause, or an error."""
        try:
            outcome = call()
        except RunEngineInterrupted:
            return
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            self._error = error
        else:
            if isinstance(outcome, RunEngineResult):
                self._result = outcome

    def _serve_pauses(self) -> None:
        """While the engine is paused, do what is asked."""
        engine = self._engine
        while str(engine.state) == "paused":
            action, reason = self._actions.get()
            match action:
                case "resume":
                    self._attend(engine.resume)
                case "finish":
                    engine.give_reason(reason)
                    self._attend(engine.finish)
                case "skip":
                    engine.give_reason(reason)
                    self._attend(engine.stop)
                case "stop":
                    self._attend(engine.stop)
                case "abort":
                    self._attend(lambda reason=reason: engine.abort(reason))
                case "halt":
                    self._attend(engine.halt)
                case _:
                    pass  # it is paused already

    def _describe(self, started: float) -> ItemResult:
        status, reason = self._outcome()
        return ItemResult(
            exit_status=status,
            run_uids=self.run_uids,
            scan_ids=self.scan_ids,
            time_start=started,
            time_stop=time.time(),
            reason=reason,
            traceback="" if self._error is None else traceback_of(self._error),
            ended_by=self._ended_by or ("finish" if self._is_finished_early else ""),
        )

    @property
    def _is_finished_early(self) -> bool:
        """Whether `finish` ended it: before it began, or at a point."""
        return self._finish_reason is not None and (self._engine.is_finished_early or not self._has_begun)

    def _outcome(self) -> tuple[ExitStatus, str]:
        error = self._error
        if self._end is not None:
            reason = self._end_reason or f"somebody asked for it ({self._end})"
            if error is not None:
                reason += f"; then cleaning up failed: {cause_of(error)}"
            return self._end, reason
        if error is not None:
            return "failed", cause_of(error)
        if self._is_finished_early:
            return "completed", self._finish_reason or "finished early"
        if self._result is None:
            return "aborted", _NO_CHECKPOINT
        status = _STATUSES.get(self._result.exit_status, "unknown")
        return status, "" if status == "completed" else self._result.reason or f"the plan ended with {status}"
