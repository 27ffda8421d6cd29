"""The timed join: what a monitored signal was at the time of a point, or did since the point before."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bec_bluesky.documents import Document
from callbacks._joins import LAST, Join

__all__ = ["History", "Interval", "small_values"]

_LARGEST = 1_000
"""Elements of an array that still travels with a point."""
_PLAIN = frozenset({float, int, str, bool, type(None)})
Interval = tuple[float, float]
"""(time of the point before, time of the point): what came after the first, up to the second."""
Found = tuple[Any, float]
"""A value and its time."""


def small_values(data: Document) -> dict[str, Any]:
    """Copy the values that may travel with a point: all but arrays of more than 1,000 elements."""
    return {key: value for key, value in data.items() if value.__class__ in _PLAIN or _elements(value) <= _LARGEST}


def _elements(value: Any) -> int:
    size = getattr(value, "size", None)
    if isinstance(size, int):
        return size
    if isinstance(value, list | tuple):
        total = len(value)
        for element in value:
            if total > _LARGEST:
                break
            if isinstance(element, list | tuple):
                total += _elements(element) - 1
        return total
    return 1


class _Signal:
    """The last updates of one signal, in the order of their times."""

    __slots__ = ("folded", "is_numeric", "rule", "stamps", "used_until", "values")

    def __init__(self, rule: Join) -> None:
        self.rule = rule
        self.stamps: list[float] = []
        self.values: list[Any] = []
        self.is_numeric = True
        self.folded = _Folded()
        self.used_until = -math.inf
        """Time of the latest point that took what it asks for."""

    def record(self, stamp: float, value: Any, length: int) -> None:
        stamps, values = self.stamps, self.values
        if not stamps or stamp >= stamps[-1]:
            stamps.append(stamp)
            values.append(value)
        else:
            place = bisect_right(stamps, stamp)
            stamps.insert(place, stamp)
            values.insert(place, value)
        if self.rule.needs_numbers and self.is_numeric:
            self.is_numeric = _is_numeric(value)
        if len(stamps) > 2 * length:
            surplus = len(stamps) - length
            if self.rule.is_over_interval:
                for each, at in zip(values[:surplus], stamps[:surplus], strict=True):
                    if at > self.used_until:
                        self.folded.add(each, at, is_numeric=self.is_numeric and self.rule.needs_numbers)
            del stamps[:surplus]
            del values[:surplus]

    def find(self, interval: Interval) -> Found | None:
        """Give value and time for a point, None if there is none."""
        rule = self.rule
        if not self.stamps:
            return (0, interval[1]) if rule.how == "count" else None
        if rule.needs_numbers and not self.is_numeric:
            return self.last(interval)
        if rule.is_over_interval:
            return self.over(interval)
        return {"nearest": self.nearest, "linear": self.linear}.get(rule.how, self.last)(interval)

    def last(self, interval: Interval) -> Found | None:
        _, time = interval
        stamps = self.stamps
        place = len(stamps) if stamps[-1] <= time else bisect_right(stamps, time)
        if not place or time - stamps[place - 1] > self.rule.tolerance:
            return None
        return self.values[place - 1], stamps[place - 1]

    def nearest(self, interval: Interval) -> Found | None:
        _, time = interval
        place = bisect_left(self.stamps, time)
        near = [n for n in (place - 1, place) if 0 <= n < len(self.stamps)]
        best = min(near, key=lambda n: abs(self.stamps[n] - time))
        if abs(self.stamps[best] - time) > self.rule.tolerance:
            return None
        return self.values[best], self.stamps[best]

    def linear(self, interval: Interval) -> Found | None:
        _, time = interval
        stamps = self.stamps
        behind = bisect_left(stamps, time)
        if behind < len(stamps) and stamps[behind] == time:
            return self.values[behind], time
        if not 0 < behind < len(stamps) or stamps[behind] - stamps[behind - 1] > self.rule.tolerance:
            return None
        part = (time - stamps[behind - 1]) / (stamps[behind] - stamps[behind - 1])
        before, after = np.asarray(self.values[behind - 1]), np.asarray(self.values[behind])
        if before.shape != after.shape:
            return None
        value = before + part * (after - before)
        return (value.item() if value.ndim == 0 else value), time

    def over(self, interval: Interval) -> Found | None:
        since, time = interval
        first, stop = bisect_right(self.stamps, since), bisect_right(self.stamps, time)
        values, folded = self.values[first:stop], self.folded.after(since)
        count = len(values) + folded.count
        how = self.rule.how
        if how == "count":
            return count, time
        if how == "all":
            return values[-_LARGEST:], time
        if not count:
            return self.last(interval)
        if how == "mean":
            return _plain((sum(map(np.asarray, values), np.asarray(0.0)) + folded.total) / count), time
        of: Callable[..., Any] = np.minimum if how == "min" else np.maximum
        extremes = [*values, *([folded.least if how == "min" else folded.most] if folded.count else ())]
        return _plain(of.reduce([np.asarray(each) for each in extremes])), time

    def is_settled(self, time: float) -> bool:
        """Tell whether no more updates can come that are as old as `time`: a later one is there."""
        return bool(self.stamps) and self.stamps[-1] >= time

    def use(self, interval: Interval) -> Found | None:
        """Give what `find` gives to the point that takes it; of a long interval only that one gets all."""
        found = self.find(interval)
        if self.rule.is_over_interval:
            self.used_until = max(self.used_until, interval[1])
            if self.folded.count and self.folded.until <= self.used_until:
                self.folded = _Folded()
        return found


class _Folded:
    """Updates of an interval so long that they are not kept one by one."""

    __slots__ = ("count", "least", "most", "since", "total", "until")

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0.0
        self.least: Any = None
        self.most: Any = None
        self.since = math.inf
        self.until = -math.inf

    def add(self, value: Any, stamp: float, *, is_numeric: bool) -> None:
        self.count += 1
        self.since, self.until = min(self.since, stamp), max(self.until, stamp)
        if is_numeric:
            value = np.asarray(value)
            self.total = self.total + value
            self.least = value if self.least is None else np.minimum(self.least, value)
            self.most = value if self.most is None else np.maximum(self.most, value)

    def after(self, time: float) -> "_Folded":
        """Give this if all of it came after a time, else nothing."""
        return self if self.since > time else _NOTHING


_NOTHING = _Folded()


class History:
    """The last updates of every monitored signal, at least `length` of each; sums of those of a longer interval."""

    def __init__(self, length: int, rule: Callable[[str, str], Join] = lambda key, stream: LAST) -> None:
        """Store the settings; `rule` gives how a data key of a stream is joined."""
        self._length = length
        self._rule = rule
        self._signals: dict[str, _Signal] = {}
        self._left_out: set[str] = set()

    def expect(self, stream: str, keys: Iterable[str]) -> None:
        """Have points wait for signals of a stream, if their rule needs a later update, before any has come."""
        for key in keys:
            if key not in self._signals and (rule := self._rule(key, stream)).must_see_later:
                self._signals[key] = _Signal(rule)

    def record(self, stream: str, time: float, data: Document, timestamps: Document) -> None:
        """Take one update; `time` is its event's, and stands in for a timestamp that is not given."""
        for key, value in small_values(data).items():
            signal = self._signals.get(key)
            if signal is None:
                if key in self._left_out or (rule := self._rule(key, stream)).how == "none":
                    self._left_out.add(key)
                    continue
                signal = self._signals[key] = _Signal(rule)
            stamp = timestamps.get(key, time) if signal.rule.clock == "signal" else time
            signal.record(stamp, value, self._length)

    @property
    def count(self) -> int:
        """How many signals there are."""
        return len(self._signals)

    def rules(self) -> dict[str, str]:
        """Say how each signal so far is joined."""
        return {key: str(signal.rule) for key, signal in self._signals.items()}

    def join(self, interval: Interval, data: dict[str, Any], timestamps: dict[str, float]) -> list[str]:
        """Add to a point's data what each signal was; the point's own readings stay.

        Gives the signals of which a later update must come before that is certain.
        """
        uncertain: list[str] = []
        for key, signal in self._signals.items():
            if key in data:
                continue
            if signal.rule.must_see_later and not signal.is_settled(interval[1]):
                uncertain.append(key)
                continue
            if (found := signal.use(interval)) is not None:
                data[key], timestamps[key] = found
        return uncertain

    def is_settled(self, key: str, time: float) -> bool:
        """Tell whether a later update of a signal is there."""
        return self._signals[key].is_settled(time)

    def look_up(self, key: str, interval: Interval) -> Found | None:
        """Give what one signal was, as far as is known."""
        return self._signals[key].use(interval)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, bool | str) or value is None:
        return False
    return isinstance(value, int | float) or np.asarray(value).dtype.kind in "iuf"


def _plain(value: Any) -> Any:
    return value.item() if np.ndim(value) == 0 else value
