"""The queue from a client: add, start, stop, look, wait."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bec_bluesky.client._arguments import plain
from bec_bluesky.client._follow import Event, Place, Settled
from bec_bluesky.client._loop import Elements
from bec_bluesky.errors import NoReplyError
from bec_bluesky.messages.queue import (
    AddItem,
    ClearQueue,
    GetHistory,
    GetQueue,
    History,
    ItemAccepted,
    ItemDone,
    ItemResult,
    Queue,
    QueueItem,
    ReleaseItem,
    RemoveItem,
    StartQueue,
    StopQueue,
)

if TYPE_CHECKING:
    from bec_bluesky.client._client import Client

__all__ = ["Item", "QueueDoor"]


class Item:
    """One item of the queue, by its id; what it shows is asked for each time."""

    def __init__(self, client: "Client", accepted: QueueItem, place: Place, warnings: list[str]) -> None:
        self._client = client
        self._known = accepted
        self._place = place
        self.warnings = warnings

    @property
    def item_id(self) -> str:
        return self._known.item_id

    @property
    def plan(self) -> str:
        return self._known.plan

    @property
    def message(self) -> QueueItem:
        """The item as it is now."""
        if self._known.state != "done":
            self._known = self._client.queue.find(self.item_id) or self._known
        return self._known

    @property
    def state(self) -> str:
        """waiting, held, running or done."""
        return self.message.state

    @property
    def result(self) -> ItemResult | None:
        """How it ended; None before that."""
        return self.message.result

    def follow(self, settled: Settled = "callbacks") -> Elements[Event]:
        """Give what it brings, from its start to its end (the last event is its ItemDone)."""
        return self._client.follow_item(self.item_id, self._place, settled)

    def wait(self, timeout: float | None = None) -> QueueItem:
        """Wait until it has ended and what belongs to it is there; raises NoReplyError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        events = self._client.follow_item(self.item_id, self._place, "callbacks", deadline=deadline)
        for event in events:
            if isinstance(event, ItemDone):
                self._known = event.item
                return event.item
        raise NoReplyError(f"item {self.item_id} ({self.plan}) has not ended within {timeout:g} s; it goes on")

    def cancel(self) -> None:
        """Take it out of the queue; one that runs is aborted."""
        if self.state == "running":
            self._client.abort(f"item {self.item_id} was cancelled")
        else:
            self._client.ask(RemoveItem(item_id=self.item_id))

    def __repr__(self) -> str:
        item = self.message
        ended = f" ({item.result.exit_status})" if item.result is not None else ""
        return f"<{item.plan} {item.item_id}: {item.state}{ended}>"


class QueueDoor:
    """What a person does with the queue."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def add(self, plan: str, *args: Any, **kwargs: Any) -> Item:
        """Put a plan with its arguments at the end of the queue; nothing starts.

        Devices are given by name or as objects with a `name`. Raises RefusedError with the reason if the plan, a device
        or an argument is wrong; nothing is queued then.
        """
        return self.put(plan, args, kwargs)

    def put(
        self,
        plan: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        position: int | None = None,
        start: bool = False,
        title: str = "",
    ) -> Item:
        """Put a plan into the queue with everything that may be said of it; as `add`.

        `metadata` goes into the start document; `position` 0 is the front, negative counts from the back; `start`
        starts the queue too.
        """
        body = AddItem(
            plan=plan,
            args=plain(args),
            kwargs=plain(kwargs or {}),
            metadata=plain(metadata or {}),
            title=title,
            position=position,
            start=start,
        )
        place = self._client.place()
        accepted: ItemAccepted = self._client.ask(body)
        return Item(self._client, accepted.item, place, accepted.warnings)

    def remove(self, item_id: str) -> None:
        """Take a waiting item out; the beginning of its id suffices."""
        self._client.ask(RemoveItem(item_id=self._full_id(item_id)))

    def release(self, item_id: str) -> None:
        """Let a held item run when its turn comes; the beginning of its id suffices."""
        self._client.ask(ReleaseItem(item_id=self._full_id(item_id)))

    def clear(self) -> None:
        """Take all waiting items out."""
        self._client.ask(ClearQueue())

    def start(self) -> None:
        """Run the waiting items one after the other."""
        self._client.ask(StartQueue())

    def stop(self, *, cancel: bool = False) -> None:
        """Stop after the running item; `cancel` takes that back."""
        self._client.ask(StopQueue(cancel=cancel))

    @property
    def items(self) -> list[QueueItem]:
        """The waiting items, the next one first."""
        return self.now().waiting

    @property
    def running(self) -> QueueItem | None:
        """The item that runs."""
        return self.now().running

    def now(self) -> Queue:
        """Give the running and the waiting items."""
        return self._client.ask(GetQueue())

    def history(self, limit: int = 50) -> list[QueueItem]:
        """Give finished items, newest first."""
        history: History = self._client.ask(GetHistory(limit=limit))
        return history.items

    def find(self, item_id: str) -> QueueItem | None:
        """Give an item wherever it is: waiting, running or among the newest finished ones."""
        queue = self.now()
        everywhere = [*queue.waiting, *([queue.running] if queue.running else []), *self.history(200)]
        return next((item for item in everywhere if item.item_id == item_id), None)

    def _full_id(self, beginning: str) -> str:
        found = [item.item_id for item in self.items if item.item_id.startswith(beginning)]
        return found[0] if len(found) == 1 else beginning

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        queue = self.now()
        lines = [f"running: {queue.running.plan} {queue.running.item_id}"] if queue.running else []
        lines += [f"{number}: {item.plan} {item.item_id}" for number, item in enumerate(queue.waiting)]
        return "\n".join(lines) or "the queue is empty"
