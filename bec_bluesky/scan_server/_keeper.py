"""The one place where queues change: events come in, are stepped, made durable, and carried out, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bec_bluesky.errors import RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.scan_server._queue import QueueState, blocked, next_to_run, recover, step
from bec_bluesky.scan_server._queue_events import CloseLostRuns, Command, Event, Finish, Nudged, Persist, RunOnWorker
from bec_bluesky.scan_server._sharing import line_up, taken_by_others
from bec_bluesky.scan_server._store import Loaded, QueueStore

__all__ = ["QueueKeeper"]

_log = logger(__name__)


class QueueKeeper:
    """Owns the states of all queues; reading them costs nothing and never waits. The main queue's name is empty."""

    def __init__(
        self,
        store: QueueStore,
        *,
        run: Callable[[QueueItem], None],
        has_worker: Callable[[], bool],
        close_runs: Callable[[QueueItem, str], Awaitable[None]],
        finished: Callable[[QueueItem], None],
        changed: Callable[[], None],
        forbidden: Callable[[], str],
    ) -> None:
        """`forbidden` says why no item may begin now, whatever the queue; empty: it may."""
        self._store = store
        self._run = run
        self._has_worker = has_worker
        self._close_runs = close_runs
        self._finished = finished
        self._changed = changed
        self._forbidden = forbidden
        self._events: asyncio.Queue[tuple[str, Event, asyncio.Future[QueueState] | None]] = asyncio.Queue()
        self._line: tuple[str, ...] = ()
        """Queues that wait for devices or a worker, the one that waits longest first."""
        self.states: dict[str, QueueState] = {"": QueueState()}
        self.history = 0
        """How many items have finished, ever."""

    async def take_up(self, loaded: Loaded, reason: str) -> None:
        """Go on with what an earlier scan server left; `reason` says why its running items are held."""
        self.states, self.history = loaded.states, loaded.history
        for name in list(self.states):
            await self._carry_out(name, *recover(self.states[name], reason))

    def post(self, queue: str, event: Event) -> None:
        """Take an event that nobody waits for."""
        self._events.put_nowait((queue, event, None))

    def nudge(self) -> None:
        """Have every queue go on that can, because something outside changed."""
        for name in self.states:
            self.post(name, Nudged())

    async def ask(self, queue: str, event: Event) -> QueueState:
        """Give the state after an event, which is durable then; raises RefusedError if it makes no sense."""
        future: asyncio.Future[QueueState] = asyncio.get_running_loop().create_future()
        self._events.put_nowait((queue, event, future))
        return await future

    def try_out(self, queue: str, event: Event) -> None:
        """Raise RefusedError if an event makes no sense now; nothing happens."""
        step(self._with_room(queue), event)

    def waits_for(self, queue: str) -> str:
        """Say what keeps the item that would run next: an interlock, who holds its device; empty: neither does."""
        state = self._with_room(queue)
        item = next_to_run(state)
        return "" if item is None else self._forbidden() or blocked(state, item)

    async def settled(self) -> None:
        """Wait until every event so far is carried out."""
        await self._events.join()

    async def live(self) -> None:
        """Carry out events for ever; raises FencedError when another scan server took over."""
        while True:
            queue, event, future = await self._events.get()
            try:
                await self._carry_out(queue, *step(self._with_room(queue), event))
                await self._let_others_go_on(queue)
            except RefusedError as refused:
                if future is not None and not future.done():
                    future.set_exception(refused)
                elif future is None:
                    _log.warning("an event makes no sense: %s", refused)
            else:
                if future is not None and not future.done():
                    future.set_result(self.states[queue])
            finally:
                self._events.task_done()

    async def _let_others_go_on(self, changed: str) -> None:
        """Have those go on for which what just changed made room, the longest waiting first."""
        if len(self.states) == 1:
            return
        self._line = line_up(self.states, self._line)
        for name in self._line:
            if name != changed:
                state, commands = step(self._with_room(name), Nudged())
                if commands:
                    await self._carry_out(name, state, commands)
        self._line = line_up(self.states, self._line)

    def _with_room(self, queue: str) -> QueueState:
        """Give a queue's state with what is known from outside."""
        taken = taken_by_others(queue, self.states, self._line) if len(self.states) > 1 else {}
        return replace(self.states[queue], has_worker=self._has_worker() and not self._forbidden(), taken=taken)

    async def _carry_out(self, queue: str, state: QueueState, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case CloseLostRuns(item, reason):
                    await self._close_runs(item, reason)
                case Persist(changes):
                    await self._store.write(changes, queue)
                    done = [change.item for change in changes if isinstance(change, Finish)]
                    self.history += len(done)
                    self.states[queue] = state
                    for item in done:
                        self._finished(item)
                case RunOnWorker(item):
                    self._run(item)
        self.states[queue] = state
        self._changed()
