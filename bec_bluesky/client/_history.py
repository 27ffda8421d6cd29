"""What ended, however long ago: to look at, to search, and to add once more."""

import datetime
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, Unpack, overload

import msgspec

from bec_bluesky.documents import timestamp
from bec_bluesky.errors import UnknownItemError
from bec_bluesky.messages.queue import GetHistory, History, PlanInfo, QueueItem

__all__ = ["Ask", "Filters", "PastItems", "call_text", "changed_call", "find_past"]

Ask = Callable[[GetHistory], History]
_PAGE = 200
_SHOWN = 20
"""Items that are printed."""
_LONGEST_NUMBER = 7
"""Digits of a scan number in a text; more are the beginning of an id."""


class Filters(TypedDict, total=False):
    """What finished items must be; what is not given, or empty, may be anything."""

    plan: str
    user: str
    sample: str
    status: str
    """completed, failed, stopped, aborted, halted or unknown"""
    queue: str
    since: str | float | datetime.datetime | None
    """When it ended: `2026-11-26`, `2026-11-26 14:30` (local time), seconds since 1970, or a datetime."""
    until: str | float | datetime.datetime | None


class PastItems:
    """Finished items, newest first, as far as one iterates; print it for a table of the newest."""

    def __init__(self, ask: Ask, text: str = "", **filters: Unpack[Filters]) -> None:
        self._ask = ask
        asked: dict[str, Any] = dict(filters)
        for name in ("since", "until"):
            if asked.get(name) is not None:
                asked[name] = timestamp(asked[name])
        self._asked = GetHistory(text=text, **asked)

    def __iter__(self) -> Iterator[QueueItem]:
        return self._items(_PAGE)

    def _items(self, page: int) -> Iterator[QueueItem]:
        before: str | None = None
        while True:
            history = self._ask(msgspec.structs.replace(self._asked, limit=page, before=before))
            yield from history.items
            before = history.next
            if before is None:
                return

    @overload
    def __getitem__(self, which: int) -> QueueItem: ...
    @overload
    def __getitem__(self, which: slice) -> list[QueueItem]: ...
    def __getitem__(self, which: int | slice) -> QueueItem | list[QueueItem]:
        """Give the newest (0), the one before it (1), or a slice of them."""
        if isinstance(which, slice):
            return list(itertools.islice(self, which.start, which.stop, which.step))
        if which < 0:
            raise IndexError(f"no item {which}: the newest is 0, the one before it 1")
        for item in itertools.islice(self._items(min(which + 1, _PAGE)), which, None):
            return item
        raise IndexError(f"no item {which}: so many have not ended")

    def first(self, count: int) -> list[QueueItem]:
        """Give the newest ones."""
        return list(itertools.islice(self._items(min(max(1, count), _PAGE)), count))

    def __repr__(self) -> str:
        found = self.first(_SHOWN + 1)
        lines = [_line(item) for item in found[:_SHOWN]] + (["… and older ones"] if len(found) > _SHOWN else [])
        return "\n".join(lines) or "nothing like that has ended"


def find_past(ask: Ask, which: str | int) -> QueueItem | None:
    """Find a finished item: by its id or that of a run, or the beginnings of them; by scan number; -1 is the newest.

    Raises UnknownItemError if several begin so.
    """
    if isinstance(which, int) and which < 0:
        return next(iter(ask(GetHistory(limit=-which)).items[-which - 1 :]), None)
    if isinstance(which, int) or (which.isdecimal() and len(which) <= _LONGEST_NUMBER):
        found = ask(GetHistory(scan_id=int(which), limit=1)).items
        if found or isinstance(which, int):
            return next(iter(found), None)
    if not which:
        return None
    for asked in (GetHistory(item_id=which, limit=2), GetHistory(run_uid=which, limit=2)):
        found = ask(asked).items
        if len(found) > 1:
            some = ", ".join(item.item_id for item in found)
            raise UnknownItemError(f"Several items are meant by {which!r} ({some}, …): give more of the id")
        if found:
            return found[0]
    return None


def changed_call(item: QueueItem, changes: dict[str, Any], plan: PlanInfo | None) -> tuple[list[Any], dict[str, Any]]:
    """Give an item's arguments with some changed by name, also those that were given without."""
    args, named = list(item.args), dict(changes)
    for place, parameter in enumerate(plan.parameters if plan else ()):
        if place >= len(args) or not parameter.kind.startswith("positional"):
            break
        if parameter.name in named:
            args[place] = named.pop(parameter.name)
    return args, item.kwargs | named


def call_text(item: QueueItem) -> str:
    """Write an item as the call that it is."""
    args = [str(each) if isinstance(each, str) else repr(each) for each in item.args]
    kwargs = [f"{name}={value!r}" for name, value in item.kwargs.items()]
    return f"{item.plan}({', '.join([*args, *kwargs])})"


def _line(item: QueueItem) -> str:
    result = item.result
    if result is None:
        return f"{item.item_id[:8]}  {call_text(item)}"
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result.time_stop))
    scans = f"  scan {', '.join(map(str, result.scan_ids))}" if result.scan_ids else ""
    reason = f": {result.reason}" if result.reason else ""
    return f"{ended}  {item.item_id[:8]}  {call_text(item)}{scans}  {result.exit_status}{reason}"
