"""What the scan server and the device servers say, at hand: status and lists are answered from memory."""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Callable
from typing import Any

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.channels import (
    DEVICE_CHANGES,
    DEVICES,
    PLANS,
    SCAN_STATUS,
    SCAN_STATUS_CHANGED,
)
from bec_bluesky.errors import BusError, NoReplyError
from bec_bluesky.messages import encode
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import GetStatus, PlanInfo, ScanServerStatus
from bec_bluesky.queueserver._encoding import EncodedList
from bec_bluesky.queueserver._shown_history import ShownHistory

__all__ = ["Mirror", "uid_of"]

_SPACE = uuid.UUID("6a1c2f0e-1f5b-4b0e-9d3d-3f0b6c1d2e4f")
_SETTLE = 0.1
"""Seconds for which more changes of devices are awaited before their list is read again."""


def uid_of(*facts: object) -> str:
    """Give an id that is the same for the same facts and for no others."""
    return str(uuid.uuid5(_SPACE, repr(facts)))


class Mirror:
    """Copies of status, plans, devices and history, each with an id that changes when, and only when, it does."""

    def __init__(self, bus: Bus, caller: Caller, changed: Callable[[], None]) -> None:
        self._bus, self._caller, self._changed = bus, caller, changed
        self.status: ScanServerStatus | None = None
        self.plans: dict[str, PlanInfo] = {}
        self.devices: dict[str, DeviceInfo] = {}
        self.queue_uid = uid_of("queue", uuid.uuid4().hex)
        self.plans_uid = self.devices_uid = uid_of("nothing")
        self._history = ShownHistory(bus)
        self._history_seen = self._plans_seen = -1
        """Of the status for which they were read last: how many items had ended, and the revision of plans."""

    async def load(self) -> None:
        """Read what is there."""
        if (status := await self._bus.get(SCAN_STATUS)) is not None:
            self._take(status)
        await self._load_plans()
        await self._load_devices()
        await self._history.load()

    # ── status ──

    async def follow_status(self) -> None:
        """Take every status for ever."""
        async for status in self._bus.listen(SCAN_STATUS_CHANGED):
            self._take(status)
            with contextlib.suppress(BusError):
                if status.history != self._history_seen:
                    await self._history.look()
                    self._history_seen = status.history
                await self._load_changed_plans()
            self._changed()

    async def refresh(self) -> None:
        """Ask for the status, so that an answer tells what its request did; an absent scan server changes nothing."""
        with contextlib.suppress(NoReplyError, BusError):
            self._take(await self._caller.ask(GetStatus(), timeout=2.0))
            await self._load_changed_plans()
            self._changed()

    def _take(self, status: ScanServerStatus) -> None:
        before = self.status
        if before is not None and status.time < before.time:
            return
        self.status = status
        if before is None or (before.revision != status.revision and _are_items_different(before, status)):
            self.queue_uid = uid_of("queue", uuid.uuid4().hex)

    # ── plans and devices ──

    async def follow_devices(self) -> None:
        """Read the list of devices again after every change, once for what changes together."""
        last = await self._bus.last_id(DEVICE_CHANGES)
        is_dirty = asyncio.Event()

        async def reload() -> None:
            while True:
                await is_dirty.wait()
                await asyncio.sleep(_SETTLE)
                is_dirty.clear()
                with contextlib.suppress(BusError):
                    await self._load_devices()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reload(), name="reload devices")
            is_dirty.set()
            async for _ in self._bus.follow(DEVICE_CHANGES, last):
                is_dirty.set()

    async def _load_changed_plans(self) -> None:
        """Read plans again if the status, whichever way it came, says that they are others."""
        if self.status is not None and self.status.plans_revision != self._plans_seen:
            seen = self.status.plans_revision
            await self._load_plans()
            self._plans_seen = seen

    async def _load_plans(self) -> None:
        self.plans = dict(sorted((await self._bus.fields(PLANS)).items()))
        self.plans_uid = uid_of("plans", _digest(self.plans.values()))
        self._changed()

    async def _load_devices(self) -> None:
        tables = await self._bus.find_tables(DEVICES, "server")
        self.devices = {path: info for table in tables.values() for path, info in sorted(table.items())}
        facts = [(d.path, d.protocols, d.device_class, d.enabled, d.children) for d in self.devices.values()]
        self.devices_uid = uid_of("devices", facts)
        self._changed()

    # ── history ──

    async def read_history(self) -> None:
        """Have a long history ready before a client asks, which waits 2 s."""
        with contextlib.suppress(BusError):
            await self._history.items()

    async def history(self) -> tuple[EncodedList, str]:
        """Give all finished items since the history was cleared, oldest first, and their id."""
        items, state = await self._history.items()
        return items, uid_of("history", *state)

    @property
    def history_uid(self) -> str:
        """Changes with every finished item, and when the history is cleared."""
        return uid_of("history", *self._history.state)

    @property
    def history_size(self) -> int:
        """How many items the history has."""
        return self._history.size

    async def hide_history(self, *, size: int | None = None, item_uid: str | None = None) -> None:
        """Show only the newest `size` items, or those after an item, from now on; the scan server keeps all."""
        if await self._history.hide(size=size, item_uid=item_uid):
            self._changed()


def _are_items_different(before: ScanServerStatus, now: ScanServerStatus) -> bool:
    """Tell whether waiting or running items changed, and not only how the queue goes on."""
    modes = [(s.queue_state, s.loop, s.ignore_failures, s.autostart) for s in (before, now)]
    items = [(s.waiting, None if s.running is None else s.running.item_id) for s in (before, now)]
    return not (modes[0] != modes[1] and items[0] == items[1] and now.revision == before.revision + 1)


def _digest(messages: Any) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for message in messages:
        digest.update(encode(message))
    return digest.hexdigest()
