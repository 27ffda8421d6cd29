"""What each request does, and its answer."""

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bec_bluesky.errors import RefusedError, UnknownItemError
from bec_bluesky.messages import encode
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.queue import (
    AddItem,
    ClearQueue,
    ControlRun,
    GetHistory,
    GetQueue,
    GetStatus,
    History,
    ItemAccepted,
    Queue,
    QueueItem,
    ReleaseItem,
    RemoveItem,
    Request,
    ScanServerStatus,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server._announcer import Announcer
from bec_bluesky.scan_server._devices import DeviceBook
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._plans import PlanBook
from bec_bluesky.scan_server._pool import UNCHECKED, WorkerPool
from bec_bluesky.scan_server._queue import (
    Added,
    Cleared,
    Event,
    Released,
    Removed,
    Started,
    StopAsked,
    StopCancelled,
    step,
)
from bec_bluesky.scan_server._requests import CheckFailed
from bec_bluesky.scan_server._store import QueueStore
from bec_bluesky.scan_server._validation import validate

__all__ = ["Actions"]

_ANSWER_TIME = 0.5
"""Seconds before a request's deadline by which its answer should leave."""
_MOST_BYTES = 4 * 2**20
"""Of one item; larger things go by reference."""
_PAUSED = ("paused", "pausing", "suspending")


class Actions:
    """Carries out requests on queue, workers and history."""

    def __init__(
        self,
        *,
        keeper: QueueKeeper,
        pool: WorkerPool,
        store: QueueStore,
        announcer: Announcer,
        plans: PlanBook,
        devices: DeviceBook,
    ) -> None:
        self._keeper = keeper
        self._pool = pool
        self._store = store
        self._announcer = announcer
        self._plans = plans
        self._devices = devices
        self._actions: dict[type, Callable[[Any, Request], Awaitable[Any]]] = {
            AddItem: self._add,
            RemoveItem: self._remove,
            ReleaseItem: self._release,
            ClearQueue: self._clear,
            StartQueue: self._start,
            StopQueue: self._stop,
            ControlRun: self._control,
            GetQueue: self._queue,
            GetStatus: self._status,
            GetHistory: self._history,
        }

    async def handle(self, request: Request) -> Any:
        """Carry out a request and give the body of its reply; raises RefusedError."""
        return await self._actions[type(request.body)](request.body, request)

    # ── adding ──

    async def _add(self, asked: AddItem, request: Request) -> ItemAccepted:
        """Accept an item once it is checked; nothing is queued if it is refused."""
        time_left = request.deadline - _ANSWER_TIME - time.time()
        if not await self._plans.known(max(0.1, time_left)):
            raise RefusedError(
                f"No plans are known yet ({self._pool.last_words}): ask again when the worker is ready", "no_plans"
            )
        validate(asked, self._plans, self._devices)
        item = QueueItem(
            item_id=uuid.uuid4().hex,
            plan=asked.plan,
            args=asked.args,
            kwargs=asked.kwargs,
            metadata=asked.metadata,
            user=request.user,
            title=asked.title,
            note=asked.note,
            added=time.time(),
        )
        size = len(encode(item))
        if size > _MOST_BYTES:
            raise RefusedError(f"{asked.plan} with {size} bytes of arguments: the limit is {_MOST_BYTES}", "too_large")
        step(self._keeper.state, Added((item,), asked.position, asked.start))  # refused now rather than after the check
        item, warnings = await self._checked(item, request.deadline)
        state = await self._keeper.ask(Added((item,), asked.position, asked.start))
        if asked.start and state.mode == "stopping":
            warnings.append("the queue stops after the running item, as somebody asked: start it again then")
        position = next((n for n, each in enumerate(state.waiting) if each.item_id == item.item_id), 0)
        return ItemAccepted(item=item, position=position, warnings=warnings)

    async def _checked(self, item: QueueItem, deadline: float) -> tuple[QueueItem, list[str]]:
        found = await self._pool.check(item, longest=max(0.1, deadline - _ANSWER_TIME - time.time()))
        if found is None:
            properties = item.properties | {UNCHECKED: True}
            warning = "no worker could check it against the devices' limits yet: that is done before it runs"
            return msgspec.structs.replace(item, properties=properties), [warning]
        if found.failure is not None:
            raise CheckFailed(_refusal(found.failure))
        properties = {"devices": found.devices} | ({} if found.points is None else {"points": found.points})
        return msgspec.structs.replace(item, properties=item.properties | properties), []

    # ── the queue ──

    async def _remove(self, asked: RemoveItem, request: Request) -> QueueItem:
        item = self._waiting(asked.item_id)
        await self._keeper.ask(Removed(asked.item_id))
        return item

    async def _release(self, asked: ReleaseItem, request: Request) -> QueueItem:
        state = await self._keeper.ask(Released(asked.item_id))
        return next(item for item in state.waiting if item.item_id == asked.item_id)

    async def _clear(self, asked: ClearQueue, request: Request) -> ScanServerStatus:
        return await self._change(Cleared())

    async def _start(self, asked: StartQueue, request: Request) -> ScanServerStatus:
        return await self._change(Started())

    async def _stop(self, asked: StopQueue, request: Request) -> ScanServerStatus:
        return await self._change(StopCancelled() if asked.cancel else StopAsked())

    async def _change(self, event: Event) -> ScanServerStatus:
        await self._keeper.ask(event)
        return self._announcer.status()

    def _waiting(self, item_id: str) -> QueueItem:
        for item in self._keeper.state.waiting:
            if item.item_id == item_id:
                return item
        step(self._keeper.state, Removed(item_id))  # says why it is not there
        raise UnknownItemError(f"No item {item_id!r} waits in the queue")

    # ── the run ──

    async def _control(self, asked: ControlRun, request: Request) -> ScanServerStatus:
        if self._keeper.state.running is None:
            raise RefusedError(f"Nothing runs: there is nothing to {asked.action.partition('_')[0]}", "nothing_runs")
        state = self._pool.activity.state
        if asked.action == "resume" and state not in _PAUSED:
            raise RefusedError(f"The run is not paused (it is {state}): there is nothing to resume", "not_paused")
        who = f"asked by {request.user}" if request.user else "asked by somebody"
        self._pool.control(asked.action, f"{who}: {asked.reason}" if asked.reason else who)
        return self._announcer.status()

    # ── looking ──

    async def _queue(self, asked: GetQueue, request: Request) -> Queue:
        return Queue(waiting=list(self._keeper.state.waiting), running=self._keeper.state.running)

    async def _status(self, asked: GetStatus, request: Request) -> ScanServerStatus:
        return self._announcer.status()

    async def _history(self, asked: GetHistory, request: Request) -> History:
        return await self._store.history(asked.limit, asked.before)


def _refusal(failure: Failure) -> Failure:
    """Make a refusal of what a check found: clients raise it without importing the libraries that it comes from."""
    name = failure.kind.rpartition(".")[2]
    if failure.kind.startswith("bec_bluesky.errors."):
        return failure
    code = "outside_limits" if name == "LimitError" else "check_failed"
    return msgspec.structs.replace(failure, kind="bec_bluesky.errors.RefusedError", code=failure.code or code)
