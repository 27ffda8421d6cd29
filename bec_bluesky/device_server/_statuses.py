"""Statuses that are under way: their end and their progress are answers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.device_server._answers import Outbox
from bec_bluesky.device_server._batch import Batch
from bec_bluesky.device_server._describe import hints_of
from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.messages.devices import Answer, Completion, Op

__all__ = ["Running", "Statuses"]

_PROGRESS_AFTER = 0.1
"""Seconds: what ends sooner needs no progress; also the shortest time between two reports."""
_DESCRIBED_ANEW = frozenset({"stage", "unstage", "prepare", "configure"})
"""Verbs after which `describe` may give something else."""


@dataclass(eq=False)
class Running:
    """A status that is not done."""

    batch: Batch
    op: Op
    found: Found
    status: Any
    told: float = 0.0
    """Loop time of the last progress report."""
    started: float = field(default_factory=time.monotonic)
    is_orphaned: bool = False
    """Whether its client is known to be gone."""


class Statuses:
    """Follows statuses; lives in the service's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._outbox = outbox
        self._generations: dict[str, int] = {}
        self._hints_told: dict[str, tuple[str, int]] = {}
        """{path: client that was told its hints last, and of which generation they are}"""
        self.running: set[Running] = set()
        self.staged: dict[str, str] = {}
        """{path: client that staged it}"""
        self.flying: dict[str, str] = {}
        """{path: client that kicked it off and has not completed it}"""
        self.on_change: Callable[[Iterable[Entry]], None] = lambda entries: None
        """Told when devices may read differently."""

    def moving(self) -> set[str]:
        """Give the names of the devices on which something is under way."""
        return {running.found.entry.name for running in self.running}

    def clients(self) -> set[str]:
        """Give the clients that have started, staged or kicked off something which has not ended."""
        waiting = {each.batch.client for each in self.running if not each.is_orphaned}
        return waiting | set(self.staged.values()) | set(self.flying.values())

    def started(self, client: str, op: Op) -> None:
        """Note whose devices are staged or fly, from the first moment on."""
        if op.verb == "stage":
            self.staged[op.device] = client
        elif op.verb == "unstage":
            self.staged.pop(op.device, None)
            self.flying.pop(op.device, None)
        elif op.verb == "kickoff":
            self.flying[op.device] = client
        elif op.verb == "complete":
            self.flying.pop(op.device, None)

    def take_flying(self, client: str) -> list[str]:
        """Forget what a client let fly; give the paths."""
        found = [path for path, owner in self.flying.items() if owner == client]
        for path in found:
            del self.flying[path]
        return found

    def take_staged(self, client: str) -> list[str]:
        """Forget what a client staged; give the paths."""
        found = [path for path, owner in self.staged.items() if owner == client]
        for path in found:
            del self.staged[path]
        return found

    def follow(self, batch: Batch, op: Op, found: Found, status: Any) -> None:
        """Answer with the end of a status, and with its progress if it takes long."""
        running = Running(batch, op, found, status)
        self.running.add(running)
        if getattr(status, "done", False):
            self._ended(running)
            return

        def ended(_: Any) -> None:
            if threading.get_ident() == self._thread:
                self._ended(running)
            else:
                self._loop.call_soon_threadsafe(self._ended, running)

        status.add_callback(ended)
        if running in self.running and op.id and hasattr(status, "watch"):
            self._loop.call_later(_PROGRESS_AFTER, self._watch, running)

    def fail(self, entry: Entry, error: Exception) -> None:
        """End what is under way on a device that is lost: the library's own status may never do so."""
        for running in [each for each in self.running if each.found.entry is entry]:
            self.give_up(running, error)

    def give_up(self, running: Running, error: Exception) -> None:
        """Let one fail whose end is not waited for any more."""
        self.running.discard(running)
        task = getattr(running.status, "task", None)
        if isinstance(task, asyncio.Task):
            task.cancel()  # that of ophyd-async might wait for ever
        running.batch.fail(running.op, error)
        self.on_change((running.found.entry,))

    def forget(self, name: str) -> None:
        """Forget who staged or let fly a device that is no more."""
        for owners in (self.staged, self.flying):
            for path in [path for path in owners if path.partition(".")[0] == name]:
                del owners[path]

    def _ended(self, running: Running) -> None:
        error = running.status.exception()
        if running not in self.running:
            return  # it was given up, and the client told so
        self.running.discard(running)
        if error is not None:
            running.batch.fail(running.op, error)
        else:
            self.done(running.batch, running.op, running.found)
        self.on_change((running.found.entry,))

    def done(self, batch: Batch, op: Op, found: Found) -> None:
        """Answer that a status ended well."""
        batch.answer(Answer(op.id, "done", self._completion(batch.client, op, found)))

    def _completion(self, client: str, op: Op, found: Found) -> Completion:
        """Say whether `describe` may give something else now, and the hints as far as the client may not know them."""
        generation = self._generations.get(op.device, 0)
        if op.verb in _DESCRIBED_ANEW:
            generation = self._generations[op.device] = generation + 1
        elif op.verb not in ("trigger", "kickoff") or self._hints_told.get(op.device) == (client, generation):
            return Completion(generation)
        if found.layer == "ophyd":  # those of ophyd stay as they are
            return Completion(generation)
        self._hints_told[op.device] = (client, generation)
        return Completion(generation, hints_of(found.device))

    def _watch(self, running: Running) -> None:
        if running not in self.running:
            return

        def proceed(**progress: Any) -> None:
            self._loop.call_soon_threadsafe(self._proceed, running, progress)

        running.status.watch(proceed)

    def _proceed(self, running: Running, progress: dict[str, Any]) -> None:
        now = self._loop.time()
        if running in self.running and now - running.told >= _PROGRESS_AFTER:
            running.told = now
            self._outbox.say(running.batch.client, Answer(running.op.id, "progress", progress))
