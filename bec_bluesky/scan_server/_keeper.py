"""The one place where the queue changes: events come in, are stepped, made durable, and carried out, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable

from bec_bluesky.errors import RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.scan_server._queue import QueueState, recover, step
from bec_bluesky.scan_server._queue_events import CloseLostRuns, Command, Event, Finish, Persist, RunOnWorker
from bec_bluesky.scan_server._store import Loaded, QueueStore

__all__ = ["QueueKeeper"]

_log = logger(__name__)


class QueueKeeper:
    """Owns the queue's state; reading it costs nothing and never waits."""

    def __init__(
        self,
        store: QueueStore,
        *,
        run: Callable[[QueueItem], None],
        close_runs: Callable[[QueueItem, str], Awaitable[None]],
        finished: Callable[[QueueItem], None],
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._run = run
        self._close_runs = close_runs
        self._finished = finished
        self._changed = changed
        self._events: asyncio.Queue[tuple[Event, asyncio.Future[QueueState] | None]] = asyncio.Queue()
        self.state = QueueState()
        self.history = 0
        """How many items have finished, ever."""

    async def take_up(self, loaded: Loaded, reason: str) -> None:
        """Go on with what an earlier scan server left; `reason` says why its running item is held."""
        self.state, self.history = loaded.state, loaded.history
        state, commands = recover(loaded.state, reason)
        await self._carry_out(state, commands)

    def post(self, event: Event) -> None:
        """Take an event that nobody waits for."""
        self._events.put_nowait((event, None))

    async def ask(self, event: Event) -> QueueState:
        """Give the state after an event, which is durable then; raises RefusedError if it makes no sense."""
        future: asyncio.Future[QueueState] = asyncio.get_running_loop().create_future()
        self._events.put_nowait((event, future))
        return await future

    async def settled(self) -> None:
        """Wait until every event so far is carried out."""
        await self._events.join()

    async def live(self) -> None:
        """Carry out events for ever; raises FencedError when another scan server took over."""
        while True:
            event, future = await self._events.get()
            try:
                state, commands = step(self.state, event)
                await self._carry_out(state, commands)
            except RefusedError as refused:
                if future is not None and not future.done():
                    future.set_exception(refused)
                elif future is None:
                    _log.warning("an event makes no sense: %s", refused)
            else:
                if future is not None and not future.done():
                    future.set_result(self.state)
            finally:
                self._events.task_done()

    async def _carry_out(self, state: QueueState, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case CloseLostRuns(item, reason):
                    await self._close_runs(item, reason)
                case Persist(changes):
                    await self._store.write(changes)
                    done = [change.item for change in changes if isinstance(change, Finish)]
                    self.history += len(done)
                    self.state = state
                    for item in done:
                        self._finished(item)
                case RunOnWorker(item):
                    self._run(item)
        self.state = state
        self._changed()
