"""The suspenders of the profile: in force before a plan begins, out of it when it has ended."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bluesky import suspenders

from bec_bluesky import plugins
from bec_bluesky.errors import BadArgumentError, BecBlueskyError, DeviceError, UnknownDeviceError
from bec_bluesky.guards import PlanCall, Suspender
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.proxy import DeviceLink, RemoteDevice, value_of
from bec_bluesky.scan_server.worker._arguments import bind, call
from bec_bluesky.scan_server.worker._engine import Engine
from bec_bluesky.scan_server.worker._plans import PlanRegistry
from bec_bluesky.settings import Settings

__all__ = ["StandingSuspenders", "make_suspender"]

_LOOKS = 0.2
"""Seconds between two tries to hear a signal that is not there."""
_LONGEST_READ = 5.0
_KINDS: dict[str, Callable[..., suspenders.SuspenderBase]] = {
    "below": lambda signal, of, **more: suspenders.SuspendFloor(signal, of.limit, resume_thresh=of.resume_at, **more),
    "above": lambda signal, of, **more: suspenders.SuspendCeil(signal, of.limit, resume_thresh=of.resume_at, **more),
    "high": lambda signal, of, **more: suspenders.SuspendBoolHigh(signal, **more),
    "low": lambda signal, of, **more: suspenders.SuspendBoolLow(signal, **more),
    "outside": lambda signal, of, **more: suspenders.SuspendWhenOutsideBand(signal, of.lowest, of.highest, **more),
    "changed": lambda signal, of, **more: _when_changed(signal, of.expected, **more),
}


class StandingSuspenders:
    """Installs what the profile asks for around one item; for the main thread.

    No plan begins unless all of them know their signal: while one cannot be read, the item waits and says for which.
    """

    def __init__(self, settings: Settings, engine: Engine, link: DeviceLink, plans: PlanRegistry) -> None:
        self._settings, self._engine, self._link, self._plans = settings, engine, link, plans
        self._profile = plugins.read_profile(settings)
        self._read = self._changed
        self._before: frozenset[Any] = frozenset()
        """Suspenders that start-up files installed for good."""

    def install(
        self,
        item: QueueItem,
        tell: Callable[[str], None],
        is_unwanted: Callable[[], bool],
        is_bypassed: Callable[[], bool],
    ) -> None:
        """Put all in force that concern an item; `tell` takes what is waited for.

        Once it `is_bypassed`, those that cannot read their signals are left out.

        Raises SettingsError, UnknownDeviceError or BadArgumentError that names the entry which cannot be.
        """
        self._before = frozenset(self._engine.suspenders)
        told = ""
        for entry in self._entries():
            if not entry.enabled or item.plan in entry.not_for:
                continue
            suspender = self._make(entry)
            while not is_unwanted():
                why = self._in_loop(self._install(suspender))
                if why is None:
                    break
                self._in_loop(self._remove(suspender))
                if is_bypassed():
                    break
                text = f"suspender {entry.label}: {entry.signal} cannot be read: {why}"
                if text != told:
                    told = text
                    tell(told)
                time.sleep(_LOOKS)
        if told:
            tell("")

    def remove(self) -> None:
        """Take them out, and what the plan installed and left; what start-up files installed is in force again."""
        for suspender in set(self._engine.suspenders) - self._before:
            self._in_loop(self._remove(suspender))
        for suspender in self._before - set(self._engine.suspenders):
            self._in_loop(self._put_back(suspender))

    @property
    def _changed(self) -> int:
        """When the profile was changed last."""
        return self._profile.path.stat().st_mtime_ns

    def _entries(self) -> tuple[Suspender, ...]:
        """Give what the profile asks for; edits count from the next item on."""
        if self._changed != self._read:
            changed = self._changed
            self._profile = plugins.read_profile(self._settings)  # refuses each item until it is mended
            self._read = changed
        return self._profile.suspenders

    def _make(self, entry: Suspender) -> suspenders.SuspenderBase:
        where = f"suspender {entry.label}"
        if entry.signal not in self._link.devices:
            raise UnknownDeviceError(entry.signal, self._link.devices, where=where)
        signal = self._link.devices[entry.signal]
        if "subscribe" not in signal.info.methods:
            parts = ", ".join(signal.info.children[:8]) or "none"
            raise BadArgumentError(
                f"{where}: {entry.signal} cannot be monitored; name one of its signals (it has {parts})"
            )
        return make_suspender(entry, signal, self._plan(where, entry.before), self._plan(where, entry.after))

    def _plan(self, where: str, asked: PlanCall | None) -> Callable[[], Any] | None:
        if asked is None:
            return None
        item = QueueItem(item_id="", plan=asked.plan, args=asked.args, kwargs=asked.kwargs)
        try:
            plan = self._plans[asked.plan]
            bind(plan, item, self._link.devices)  # refused now, rather than when the beam is lost
        except BecBlueskyError as error:
            raise BadArgumentError(f"{where}: {error}") from error
        return lambda: call(plan, item, self._link.devices)

    # ── the engine's loop ──

    async def _install(self, suspender: suspenders.SuspenderBase) -> str | None:
        """Put one in force and tell it how its signal is now; gives why that is not known."""
        signal: RemoteDevice = suspender._sig
        self._engine.install_suspender(suspender)
        try:
            async with asyncio.timeout(_LONGEST_READ):
                await signal._has_begun()
                reading: Any = signal.read()  # pyright: ignore[reportAttributeAccessIssue]  # what can be monitored, can be read
                reading = reading if isinstance(reading, dict) else await reading
        except (DeviceError, ConnectionError, TimeoutError, OSError) as error:
            return str(error) or f"no answer within {_LONGEST_READ:g} s"
        suspender(value_of(reading, signal.name)["value"])
        return None

    async def _put_back(self, suspender: suspenders.SuspenderBase) -> None:
        self._engine.install_suspender(suspender)

    async def _remove(self, suspender: suspenders.SuspenderBase) -> None:
        self._engine.remove_suspender(suspender)

    def _in_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._engine.loop).result()


def make_suspender(entry: Suspender, signal: Any, before: Any = None, after: Any = None) -> suspenders.SuspenderBase:
    """Make bluesky's suspender of that kind; `before` and `after` give plans."""
    return _KINDS[entry.kind](
        signal,
        entry,
        sleep=entry.sleep,
        pre_plan=before,
        post_plan=after,
        tripped_message=entry.message or entry.name,
    )


def _when_changed(signal: Any, expected: Any, **more: Any) -> suspenders.SuspenderBase:
    made = suspenders.SuspendWhenChanged(signal, expected_value=expected or 1, allow_resume=True, **more)
    made.expected_value = expected  # it takes 0 and '' for "not given"
    return made
