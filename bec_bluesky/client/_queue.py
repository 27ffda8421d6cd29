"""The queue from a client: add, start, stop, look, wait."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from bec_bluesky.client._arguments import plain
from bec_bluesky.client._follow import Event, Place, Settled
from bec_bluesky.client._history import Filters, PastItems, changed_call, find_past
from bec_bluesky.client._loop import Elements
from bec_bluesky.errors import NoReplyError, UnknownItemError
from bec_bluesky.messages.queue import (
    MAIN_QUEUE,
    AddItem,
    AddItems,
    ClearQueue,
    EditItem,
    ExecuteItem,
    GetQueue,
    GetStatus,
    HoldItem,
    ItemAccepted,
    ItemDone,
    ItemResult,
    ItemsChanged,
    MoveItems,
    Queue,
    QueueItem,
    ReleaseItem,
    RemoveItem,
    RemoveItems,
    RequestBody,
    ScanServerStatus,
    SetQueueMode,
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
    def queue(self) -> str:
        """Name of its queue."""
        return self._known.queue or MAIN_QUEUE

    @property
    def accepted(self) -> QueueItem:
        """The item as it was known last."""
        return self._known

    @property
    def message(self) -> QueueItem:
        """The item as it is now."""
        if self._known.state != "done":
            self._known = self._door.find(self.item_id) or self._known
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
        return self._client.follow_item(self.item_id, self._place, settled, queue=self._known.queue)

    def wait(self, timeout: float | None = None) -> QueueItem:
        """Wait until it has ended and what belongs to it is there; raises NoReplyError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        events = self._client.follow_item(
            self.item_id, self._place, "callbacks", deadline=deadline, queue=self._known.queue
        )
        for event in events:
            if isinstance(event, ItemDone):
                self._known = event.item
                return event.item
        raise NoReplyError(f"item {self.item_id} ({self.plan}) has not ended within {timeout:g} s; it goes on")

    def move(self, position: int | None = None, *, before: str = "", after: str = "") -> None:
        """Give it another place: 0 is the front, none the back; or before or after another item."""
        self._door.move(self.item_id, position, before=before, after=after)

    def hold(self, reason: str = "") -> None:
        """Have the queue stop in front of it, until it is released."""
        self._door.hold(self.item_id, reason)

    def release(self) -> None:
        """Let it run when its turn comes."""
        self._door.release(self.item_id)

    def edit(self, *args: Any, **kwargs: Any) -> None:
        """Give it other arguments while it waits: by name those that change, or all positional ones anew."""
        self._known = self._door.edit(self.item_id, *args, **kwargs)

    def again(self, *, start: bool = False, **changes: Any) -> "Item":
        """Add the same once more, with the keyword arguments that are given changed."""
        return self._door.again(self.item_id, start=start, **changes)

    @property
    def _door(self) -> "QueueDoor":
        return self._client.queue(self.queue)

    def cancel(self) -> None:
        """Take it out of the queue; one that runs is aborted."""
        if self.state == "running":
            self._client.abort(f"item {self.item_id} was cancelled", item_id=self.item_id)
        else:
            self._client.ask(RemoveItem(item_id=self.item_id))

    def __repr__(self) -> str:
        item = self.message
        ended = f" ({item.result.exit_status})" if item.result is not None else ""
        return f"<{item.plan} {item.item_id}: {item.state}{ended}>"


class QueueDoor:
    """What a person does with the queue."""

    def __init__(self, client: "Client", name: str = "") -> None:
        self._client = client
        self._name = name

    def __call__(self, name: str) -> "QueueDoor":
        """Give another queue by its name; `profile.toml` declares them, and they run side by side."""
        return QueueDoor(self._client, "" if name == MAIN_QUEUE else name)

    def _ask(self, body: RequestBody, *, timeout: float = 10.0) -> Any:
        return self._client.ask(body, timeout=timeout, queue=self._name)

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
        before: str = "",
        after: str = "",
        start: bool = False,
        title: str = "",
        note: str = "",
        sample: str = "",
        goes_back: bool = False,
    ) -> Item:
        """Put a plan into the queue with everything that may be said of it; as `add`.

        `metadata` and `sample` go into the start document; `position` 0 is the front, negative counts from the back,
        `before` and `after` name another item; `start` starts the queue too; `goes_back` puts it in front again if it
        fails.
        """
        body = AddItem(
            plan=plan,
            args=plain(args),
            kwargs=plain(kwargs or {}),
            metadata=plain(metadata or {}),
            title=title,
            note=note,
            sample=sample,
            position=position,
            before=self._full_id(before),
            after=self._full_id(after),
            start=start,
            goes_back=goes_back,
        )
        return self._accepted(body)

    def add_all(
        self, calls: Sequence[Sequence[Any]], *, position: int | None = None, start: bool = False
    ) -> list[Item]:
        """Put several plans into the queue, all or none: each is a name, arguments, and maybe those by name.

        `[("mv", ["samx", 1]), ("count", [["det"]], {"num": 5})]`
        """
        items = [
            AddItem(plan=plan, args=plain(list(args)), kwargs=plain(dict(kwargs[0]) if kwargs else {}))
            for plan, args, *kwargs in calls
        ]
        place = self._client.place()
        changed: ItemsChanged = self._ask(AddItems(items=items, position=position, start=start), timeout=60.0)
        return [Item(self._client, item, place, changed.warnings) for item in changed.items]

    def again(self, which: str | int, *, start: bool = False, **changes: Any) -> Item:
        """Add an item to this queue once more, one that waits, runs or has ended, with changed arguments.

        It is found as by `find`. Arguments change by their name, also those that were given without.
        """
        item = self.find(which)
        if item is None:
            raise UnknownItemError(f"No item {which!r} waits or runs in this queue, or has ended")
        args, kwargs = changed_call(item, plain(changes), self._client.plans.get(item.plan))
        again = AddItem(
            plan=item.plan,
            args=args,
            kwargs=kwargs,
            metadata=item.metadata,
            title=item.title,
            note=item.note,
            sample=item.sample,
            goes_back=item.goes_back,
            start=start,
            kind="instruction" if item.kind == "instruction" else "plan",
            repeats=item.item_id,
        )
        return self._accepted(again)

    def stop_here(self, position: int | None = None) -> Item:
        """Put an instruction into the queue at which it stops."""
        return self._accepted(AddItem(plan="queue_stop", kind="instruction", position=position))

    def wait_here(
        self,
        seconds: float | None = None,
        *,
        device: Any = None,
        above: float | None = None,
        below: float | None = None,
        equals: Any = None,
        timeout: float | None = None,
        position: int | None = None,
    ) -> Item:
        """Put an instruction into the queue at which it waits: some seconds, or until a device says something.

        `wait_here(60)`; `wait_here(device="ring_current", above=100, timeout=3600)`. The device is only read.
        """
        given = {"seconds": seconds, "device": plain(device), "above": above, "below": below, "timeout": timeout}
        kwargs = {name: value for name, value in (given | {"equals": plain(equals)}).items() if value is not None}
        return self._accepted(AddItem(plan="wait", kwargs=kwargs, kind="instruction", position=position))

    def execute(self, plan: str, *args: Any, **kwargs: Any) -> Item:
        """Run a plan at once, past the queue, which must be stopped."""
        return self._accepted(ExecuteItem(item=AddItem(plan=plan, args=plain(args), kwargs=plain(kwargs))))

    def _accepted(self, body: AddItem | ExecuteItem) -> Item:
        place = self._client.place()
        accepted: ItemAccepted = self._ask(body)
        return Item(self._client, accepted.item, place, accepted.warnings)

    def edit(self, item_id: str, *args: Any, **kwargs: Any) -> QueueItem:
        """Give a waiting item other arguments: by name those that change, or all positional ones anew."""
        old = self._waiting(item_id)
        new = AddItem(
            plan=old.plan,
            args=plain(args) if args else old.args,
            kwargs=old.kwargs | plain(kwargs),
            metadata=old.metadata,
            title=old.title,
            note=old.note,
            sample=old.sample,
            goes_back=old.goes_back,
        )
        accepted: ItemAccepted = self._ask(EditItem(item_id=old.item_id, item=new))
        return accepted.item

    def move(self, item_id: str, position: int | None = None, *, before: str = "", after: str = "") -> None:
        """Give a waiting item another place: 0 is the front, none the back; or before or after another one."""
        place = {"before": self._full_id(before), "after": self._full_id(after)}
        self._ask(MoveItems(item_ids=[self._full_id(item_id)], position=position, **place))

    def hold(self, item_id: str, reason: str = "") -> None:
        """Have the queue stop in front of a waiting item, until it is released."""
        self._ask(HoldItem(item_id=self._full_id(item_id), reason=reason))

    def remove(self, *item_ids: str) -> None:
        """Take waiting items out, all or none; the beginnings of their ids suffice."""
        if len(item_ids) == 1:
            self._ask(RemoveItem(item_id=self._full_id(item_ids[0])))
        else:
            self._ask(RemoveItems(item_ids=[self._full_id(item_id) for item_id in item_ids]))

    def release(self, item_id: str) -> None:
        """Let a held item run when its turn comes; the beginning of its id suffices."""
        self._ask(ReleaseItem(item_id=self._full_id(item_id)))

    def clear(self) -> None:
        """Take all waiting items out."""
        self._ask(ClearQueue())

    def start(self) -> None:
        """Run the waiting items one after the other."""
        self._ask(StartQueue())

    def stop(self, *, cancel: bool = False) -> None:
        """Stop after the running item; `cancel` takes that back."""
        self._ask(StopQueue(cancel=cancel))

    def mode(
        self, *, loop: bool | None = None, ignore_failures: bool | None = None, autostart: bool | None = None
    ) -> None:
        """Say how the queue goes on; what is not given stays.

        `loop`: what ended well goes to the back again. `ignore_failures`: it goes on after an item that failed.
        `autostart`: it starts by itself when there is something to run, until something is stopped or fails.
        """
        self._ask(SetQueueMode(loop=loop, ignore_failures=ignore_failures, autostart=autostart))

    @property
    def status(self) -> ScanServerStatus:
        """How this queue is, and what it runs."""
        return self._ask(GetStatus())

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
        return self._ask(GetQueue())

    def history(self, limit: int = 50, text: str = "", **filters: Unpack[Filters]) -> list[QueueItem]:
        """Give finished items of this queue, newest first; `text` and filters are those of the client's `history`."""
        filters.setdefault("queue", self._name or MAIN_QUEUE)
        return PastItems(self._ask, text, **filters).first(limit)

    def find(self, which: str | int) -> QueueItem | None:
        """Give an item: one that waits or runs here by the beginning of its id; else one that ended, in any queue.

        Those that ended are also found by scan number, by the beginning of a run's uid, and as -1 (the newest), -2, ….
        """
        queue = self.now()
        present = [*queue.waiting, *([queue.running] if queue.running else [])]
        begin_so = (item for item in present if which and item.item_id.startswith(str(which)))
        return next(begin_so, None) or find_past(self._ask, which)

    def _waiting(self, item_id: str) -> QueueItem:
        full = self._full_id(item_id)
        found = [item for item in self.items if item.item_id == full]
        if not found:
            raise UnknownItemError(f"No item {item_id!r} waits in the queue")
        return found[0]

    def _full_id(self, beginning: str) -> str:
        if not beginning:
            return ""
        queue = self.now()
        ids = [item.item_id for item in (*queue.waiting, *([queue.running] if queue.running else []))]
        found = [item_id for item_id in ids if item_id.startswith(beginning)]
        return found[0] if len(found) == 1 else beginning

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        queue = self.now()
        lines = [f"running: {queue.running.plan} {queue.running.item_id}"] if queue.running else []
        lines += [f"{number}: {item.plan} {item.item_id}" for number, item in enumerate(queue.waiting)]
        return "\n".join(lines) or f"the queue {self._name or MAIN_QUEUE} is empty"
