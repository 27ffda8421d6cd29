"""Watching an item to its end, with Ctrl-C: once pauses and offers the ways out, twice aborts, three times halts."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bec_bluesky.client._follow import Event, Settled
from bec_bluesky.client._live import LiveView
from bec_bluesky.errors import BecBlueskyError, PlanFailedError, RefusedError
from bec_bluesky.messages.queue import ItemDone, QueueItem

if TYPE_CHECKING:
    from bec_bluesky.client._client import Client
    from bec_bluesky.client._queue import Item

__all__ = ["Detached", "raise_if_failed", "run_and_watch", "watch"]

_Ways = dict[str, tuple[str, str]]
"""{key: (way, what it means)}"""
_WAYS_OF_WAITING: _Ways = {
    "c": ("cancel", "take it out of the queue"),
    "d": ("detach", "leave it where it is and look away"),
}
_WAYS: _Ways = {
    "r": ("resume", "go on"),
    "f": ("finish", "end it in order; it counts as a success"),
    "a": ("abort", "end it with clean-up; it counts as aborted"),
    "d": ("detach", "leave it as it is and look away"),
}


class Detached(BecBlueskyError):
    """The person looked away; the item goes on, or stays paused."""


def run_and_watch(client: "Client", plan: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> QueueItem:
    """Add a plan, start the queue and show what comes, to the end.

    Raises RefusedError if it was refused, PlanFailedError if it did not complete.
    """
    item = watch(client, client.queue.put(plan, args, kwargs, start=True))
    if item.result is not None and item.result.exit_status != "stopped":
        raise_if_failed(item)
    return item


def raise_if_failed(item: QueueItem) -> None:
    """Raise PlanFailedError, with the reason, unless the item completed."""
    result = item.result
    if result is None or result.exit_status == "completed":
        return
    reason = result.reason or "no reason was given"
    raise PlanFailedError(f"{item.plan} ended as {result.exit_status}: {reason}", item=item)


def watch(
    client: "Client", item: "Item", *, console: Console | None = None, settled: Settled = "callbacks"
) -> QueueItem:
    """Show an item's run live until it has ended; give the finished item. Raises Detached."""
    events = item.follow(settled)
    with LiveView(console) as view:
        for warning in item.warnings:
            view.say(f"warning: {warning}")
        interrupts = _Interrupts(client, item, view)
        while True:
            try:
                return _show(view, events) or item.message
            except KeyboardInterrupt:
                interrupts.another()


def _show(view: LiveView, events: Iterator[Event]) -> QueueItem | None:
    """Show what comes; give the finished item, None if an interrupt lost it."""
    for event in events:
        with _interrupts_held():
            view.show(event)
        if isinstance(event, ItemDone):
            return event.item
    return None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: in the middle of a line it would be shown twice and counted never."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual if usual is not None else signal.SIG_DFL)
    if held:
        raise KeyboardInterrupt


class _Interrupts:
    """What Ctrl-C means, by how often it was pressed: pause and ask, abort, halt, look away."""

    def __init__(self, client: "Client", item: "Item", view: LiveView) -> None:
        self._client = client
        self._item = item
        self._queue = item.queue
        self._view = view
        self._level = 0

    def another(self) -> None:
        """Act on one more Ctrl-C; raises Detached when nothing stronger is left, or when the person looks away."""
        self._level += 1
        try:
            self._act()
        except KeyboardInterrupt:  # impatient: the next level at once
            self.another()

    def _act(self) -> None:
        if self._level == 1 and self._item.state in ("waiting", "held"):
            self._ask_about_waiting()
            self._level = 0
        elif self._level == 1:
            self._view.say("pausing after this point (Ctrl-C again aborts) …")
            if _control(self._view, lambda: self._client.pause(queue=self._queue)) and self._is_paused():
                with self._view.hidden():
                    choice = _ask("paused", _WAYS)
                self._do(choice)
            self._level = 0
        elif self._level == 2:
            self._view.say("aborting (Ctrl-C again halts, without clean-up) …")
            _control(self._view, lambda: self._client.abort("Ctrl-C", queue=self._queue))
        elif self._level == 3:
            self._view.say("halting (Ctrl-C again looks away) …")
            _control(self._view, lambda: self._client.halt("Ctrl-C", queue=self._queue))
        else:
            raise Detached("looked away while the run was being halted: see `bec-bluesky status`")

    def _ask_about_waiting(self) -> None:
        with self._view.hidden():
            choice = _ask("it waits for its turn", _WAYS_OF_WAITING)
        if choice == "detach":
            raise Detached(f"detached; the item waits on: `bec-bluesky queue rm {self._item.item_id}` takes it out")
        _control(self._view, self._item.cancel)

    def _is_paused(self) -> bool:
        """Wait until the run is paused; False if it ended instead."""
        for event in self._client.statuses(self._queue):
            if event.run_state == "paused":
                return True
            if event.run_state in ("idle", "no_worker", "starting"):
                return False
        return False

    def _do(self, choice: str) -> None:
        client = self._client
        if choice == "detach":
            raise Detached(
                "detached; the run stays paused: `bec-bluesky queue resume`, `… finish` or `… abort` go on with it"
            )
        ways = {"resume": client.resume, "finish": client.finish, "abort": client.abort}
        _control(self._view, lambda: ways[choice](queue=self._queue))


def _ask(state: str, ways: _Ways) -> str:
    """Ask what to do; without a terminal everything is left as it is."""
    text = ", ".join(f"[{key}]{way[1:]}" for key, (way, _) in ways.items())
    while True:
        try:
            sys.stderr.write(f"{state}: {text}? ")
            sys.stderr.flush()
            answer = sys.stdin.readline()
        except OSError:
            answer = ""
        if not answer:
            return "detach"
        for key, (way, meaning) in ways.items():
            if answer.strip().lower() in (key, way):
                return way
            sys.stderr.write(f"  {way}: {meaning}\n")


def _control(view: LiveView, action: Any) -> bool:
    """Do it; a refusal (it ended meanwhile) is shown, not raised."""
    try:
        action()
    except RefusedError as error:
        view.say(str(error))
        return False
    return True
