"""What each request does, and its answer."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.messages.around_queue import NoteDevices
from bec_bluesky.messages.queue import (
    MAIN_QUEUE,
    AddItem,
    AddItems,
    ClearQueue,
    ControlRun,
    EditItem,
    ExecuteItem,
    GetHistory,
    GetQueue,
    GetStatus,
    History,
    HoldItem,
    ItemAccepted,
    ItemsChanged,
    MoveItems,
    Queue,
    QueueItem,
    ReleaseItem,
    RemoveItem,
    RemoveItems,
    Request,
    ScanServerStatus,
    SetQueueMode,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server._announcer import Announcer
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._keeper import QueueKeeper
from bec_bluesky.scan_server._new_items import NewItems
from bec_bluesky.scan_server._pool import WorkerPool
from bec_bluesky.scan_server._queue import QueueState
from bec_bluesky.scan_server._queue_events import (
    Added,
    AutostartSet,
    Cleared,
    Edited,
    Event,
    Executed,
    Held,
    ModeSet,
    Moved,
    Nudged,
    Place,
    Released,
    Removed,
    Started,
    StopAsked,
    StopCancelled,
)
from bec_bluesky.scan_server._requests import LOOKING

__all__ = ["Actions"]

Action = Callable[[Any, Request], Awaitable[Any]]
Check = Callable[[Request], None]
_PAUSED = ("paused", "pausing", "suspending")
_AGAINST_ALL = ("pause", "pause_now", "abort", "halt")
"""What is not about one item: it is to keep the beamline from going on."""


class Actions:
    """Carries out requests on queue, workers and history."""

    def __init__(
        self,
        *,
        keeper: QueueKeeper,
        pool: WorkerPool,
        history: HistoryReader,
        announcer: Announcer,
        new_items: NewItems,
        checks: tuple[Check, ...] = (),
        more: Mapping[type, Action] | None = None,
    ) -> None:
        """`checks` may refuse any request; `more` are actions on what surrounds the queue."""
        self._keeper = keeper
        self._pool = pool
        self._history_reader = history
        self._announcer = announcer
        self._new = new_items
        self._checks = checks
        self._actions: dict[type, Action] = {
            AddItem: self._add,
            AddItems: self._add_all,
            ExecuteItem: self._execute,
            EditItem: self._edit,
            MoveItems: self._move,
            HoldItem: self._hold,
            RemoveItem: self._remove,
            RemoveItems: self._remove_all,
            SetQueueMode: self._set_mode,
            ReleaseItem: self._release,
            ClearQueue: self._clear,
            StartQueue: self._start,
            StopQueue: self._stop,
            ControlRun: self._control,
            GetQueue: self._queue,
            GetStatus: self._status,
            GetHistory: self._history,
            **(more or {}),
        }

    async def handle(self, request: Request) -> Any:
        """Carry out a request and give the body of its reply; raises RefusedError."""
        if isinstance(request.body, NoteDevices):
            return None  # it is done already; the command log takes it
        for check in self._checks:
            check(request)
        action = self._actions.get(type(request.body))
        if action is None:
            raise RefusedError(f"{type(request.body).__name__} is not known to this scan server", "unknown_request")
        answer = await action(request.body, request)
        if not isinstance(request.body, LOOKING):
            self._announcer.changed()
        return answer

    # ── adding ──

    async def _add(self, asked: AddItem, request: Request) -> ItemAccepted:
        """Accept an item once it is checked; nothing is queued if it is refused."""
        queue = self._queue_of(request, asked.before or asked.after)
        item = await self._new.make(asked, request, queue)
        place = Place(asked.position, asked.before, asked.after)
        self._keeper.try_out(queue, Added((item,), place, asked.start))  # refused now rather than after the check
        item, warnings = await self._new.check(item, request.deadline)
        state = await self._keeper.ask(queue, Added((item,), place, asked.start))
        return ItemAccepted(
            item=item, position=_position(state, item), warnings=warnings + _about_start(asked.start, state)
        )

    async def _add_all(self, asked: AddItems, request: Request) -> ItemsChanged:
        """Accept several items, all or none."""
        queue = self._queue_of(request, asked.before or asked.after)
        place = Place(asked.position, asked.before, asked.after)
        made = await self._new.make_all(asked.items, request, queue)
        items = tuple(item for item, _ in made)
        state = await self._keeper.ask(queue, Added(items, place, asked.start))
        warnings = dict.fromkeys(warning for _, warnings in made for warning in warnings)
        return ItemsChanged(items=list(items), warnings=[*warnings, *_about_start(asked.start, state)])

    async def _execute(self, asked: ExecuteItem, request: Request) -> ItemAccepted:
        queue = self._queue_of(request)
        item = await self._new.make(asked.item, request, queue)
        self._keeper.try_out(queue, Executed(item))
        item, warnings = await self._new.check(item, request.deadline)
        await self._keeper.ask(queue, Executed(item))
        return ItemAccepted(item=item, position=0, warnings=warnings)

    async def _edit(self, asked: EditItem, request: Request) -> ItemAccepted:
        """Replace a waiting item by one that is checked; it stays as it is if that is refused."""
        queue = self._queue_of(request, asked.item_id)
        before = self._waiting(queue, asked.item_id)
        item, warnings = await self._new.check(await self._new.make(asked.item, request, queue), request.deadline)
        if not asked.has_new_id:
            item = msgspec.structs.replace(item, item_id=before.item_id, added=before.added)
        state = await self._keeper.ask(queue, Edited(asked.item_id, item))
        item = next((each for each in state.waiting if each.item_id == item.item_id), item)  # it may be held
        return ItemAccepted(item=item, position=_position(state, item), warnings=warnings)

    # ── the queue ──

    async def _move(self, asked: MoveItems, request: Request) -> ItemsChanged:
        queue = self._queue_of(request, *asked.item_ids)
        moved = [self._waiting(queue, item_id) for item_id in asked.item_ids]
        place = Place(asked.position, asked.before, asked.after)
        await self._keeper.ask(queue, Moved(tuple(asked.item_ids), place))
        return ItemsChanged(items=moved)

    async def _remove(self, asked: RemoveItem, request: Request) -> QueueItem:
        queue = self._queue_of(request, asked.item_id)
        item = self._waiting(queue, asked.item_id)
        await self._keeper.ask(queue, Removed((asked.item_id,)))
        return item

    async def _remove_all(self, asked: RemoveItems, request: Request) -> ItemsChanged:
        queue = self._queue_of(request, *asked.item_ids)
        waiting = {item.item_id: item for item in self._keeper.states[queue].waiting}
        wanted = list(dict.fromkeys(asked.item_ids))
        if asked.ignore_missing:
            wanted = [item_id for item_id in wanted if item_id in waiting]
        items = [self._waiting(queue, item_id) for item_id in wanted]
        await self._keeper.ask(queue, Removed(tuple(wanted)))
        return ItemsChanged(items=items)

    async def _hold(self, asked: HoldItem, request: Request) -> QueueItem:
        who = f"held by {request.user}" if request.user else "held by somebody"
        reason = f"{who}: {asked.reason}" if asked.reason else who
        queue = self._queue_of(request, asked.item_id)
        return self._found(await self._keeper.ask(queue, Held(asked.item_id, reason)), asked.item_id)

    async def _release(self, asked: ReleaseItem, request: Request) -> QueueItem:
        queue = self._queue_of(request, asked.item_id)
        return self._found(await self._keeper.ask(queue, Released(asked.item_id)), asked.item_id)

    async def _clear(self, asked: ClearQueue, request: Request) -> ScanServerStatus:
        return await self._change(Cleared(), request)

    async def _start(self, asked: StartQueue, request: Request) -> ScanServerStatus:
        return await self._change(Started(), request)

    async def _stop(self, asked: StopQueue, request: Request) -> ScanServerStatus:
        return await self._change(StopCancelled() if asked.cancel else StopAsked(), request)

    async def _set_mode(self, asked: SetQueueMode, request: Request) -> ScanServerStatus:
        status = await self._change(ModeSet(asked.loop, asked.ignore_failures), request)
        return status if asked.autostart is None else await self._change(AutostartSet(asked.autostart), request)

    async def _change(self, event: Event, request: Request) -> ScanServerStatus:
        queue = self._queue_of(request)
        await self._keeper.ask(queue, event)
        return self._announcer.status(queue)

    def _queue_of(self, request: Request, *item_ids: str) -> str:
        """Give the queue that is meant: by its name, else the one that has one of these items, else the main one."""
        states = self._keeper.states
        if request.queue:
            name = "" if request.queue == MAIN_QUEUE else request.queue
            if name not in states:
                known = choices(request.queue, [each or MAIN_QUEUE for each in states])
                raise RefusedError(f"No queue {request.queue!r} (profile.toml declares them): {known}", "unknown_queue")
            return name
        if len(states) > 1:
            for item_id in item_ids:
                for name, state in states.items():
                    if any(each is not None and each.item_id == item_id for each in (*state.waiting, state.running)):
                        return name
        return ""

    def _waiting(self, queue: str, item_id: str) -> QueueItem:
        for item in self._keeper.states[queue].waiting:
            if item.item_id == item_id:
                return item
        self._keeper.try_out(queue, Removed((item_id,)))  # says why it is not there
        raise AssertionError("an item that can be removed waits")

    def _found(self, state: QueueState, item_id: str) -> QueueItem:
        return next(item for item in state.waiting if item.item_id == item_id)

    # ── the run ──

    async def _control(self, asked: ControlRun, request: Request) -> ScanServerStatus:
        queues = self._queues_meant(asked, request)
        if asked.all_queues:
            for name in self._keeper.states:  # what waits for devices must not begin when the abort sets them free
                self._keeper.post(name, StopAsked())
        refusals: list[RefusedError] = []
        for queue in queues:
            try:
                await self._control_one(asked, request, queue)
            except RefusedError as refused:  # what ended meanwhile in one queue is no reason to let others go on
                refusals.append(refused)
        if len(refusals) == len(queues):
            raise refusals[0]
        return self._announcer.status(queues[0])

    def _queues_meant(self, asked: ControlRun, request: Request) -> list[str]:
        """Give the queues whose items are meant; what is to end something is not refused as long as anything runs."""
        running = [name for name, state in self._keeper.states.items() if state.running is not None]
        if asked.all_queues:
            return running or [""]
        queue = self._queue_of(request, asked.item_id)
        is_about_any = not asked.item_id and not request.queue and asked.action in _AGAINST_ALL
        return running if is_about_any and running and queue not in running else [queue]

    async def _control_one(self, asked: ControlRun, request: Request, queue: str) -> None:
        running = await self._find_what_runs(asked, queue)
        if running is None:
            return
        activity = self._pool.activity(running)
        state = "running" if activity is None else activity.state
        if asked.action == "resume" and state not in _PAUSED:
            raise RefusedError(f"The run is not paused (it is {state}): there is nothing to resume", "not_paused")
        if asked.action == "bypass" and not (activity and (activity.suspended or activity.waits_for)):
            raise RefusedError(
                f"No suspender holds the run (it is {state}): there is nothing to bypass", "not_suspended"
            )
        who = f"asked by {request.user}" if request.user else "asked by somebody"
        how = {"finish": "finished early, ", "skip": "skipped, "}.get(asked.action, "")
        reason = f"{how}{who}: {asked.reason}" if asked.reason else how + who
        self._pool.control(running.item_id, asked.action, reason)

    async def _find_what_runs(self, asked: ControlRun, queue: str) -> QueueItem | None:
        """Refuse what has no item to act on, or another one than is meant; None: it has ended, and none follows.

        Between two items the queue may still say that the last one runs. What is about that one is refused then; what
        is to keep anything from going on acts on the next one, and keeps the queue from running it if it can.
        """
        running = self._running(asked, queue)
        if self._pool.has_item(running.item_id):
            return running
        if asked.item_id or asked.action not in _AGAINST_ALL:
            raise RefusedError(f"Item {running.item_id} ({running.plan}) has just ended", "nothing_runs")
        if asked.action in ("abort", "halt"):
            await self._keeper.ask(queue, StopAsked())
            return self._keeper.states[queue].running
        await self._keeper.ask(queue, Nudged())
        return self._running(asked, queue)

    def _running(self, asked: ControlRun, queue: str) -> QueueItem:
        running = self._keeper.states[queue].running
        verb = asked.action.partition("_")[0]
        if running is None:
            raise RefusedError(f"Nothing runs: there is nothing to {verb}", "nothing_runs")
        if asked.item_id and running.item_id != asked.item_id:
            raise RefusedError(
                f"Item {asked.item_id} does not run, {running.item_id} ({running.plan}) does: it is left alone",
                "other_item_runs",
            )
        return running

    # ── looking ──

    async def _queue(self, asked: GetQueue, request: Request) -> Queue:
        state = self._keeper.states[self._queue_of(request)]
        return Queue(waiting=list(state.waiting), running=state.running)

    async def _status(self, asked: GetStatus, request: Request) -> ScanServerStatus:
        return self._announcer.status(self._queue_of(request))

    async def _history(self, asked: GetHistory, request: Request) -> History:
        return await self._history_reader.page(asked)


def _position(state: QueueState, item: QueueItem) -> int:
    """Give where an item waits; 0 if it runs already."""
    return next((number for number, each in enumerate(state.waiting) if each.item_id == item.item_id), 0)


def _about_start(is_asked: bool, state: QueueState) -> list[str]:
    if is_asked and state.mode == "stopping":
        return ["the queue stops after the running item, as somebody asked: start it again then"]
    return []
