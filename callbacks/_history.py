"""The timed join: what a monitored signal was at the time of a point."""

from bisect import bisect_right
from typing import Any

from bec_bluesky.documents import Document

__all__ = ["History", "small_values"]

_LARGEST = 1_000
"""Elements of an array that still travels with a point."""
_PLAIN = frozenset({float, int, str, bool, type(None)})


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
    __slots__ = ("stamps", "values")

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.values: list[Any] = []


class History:
    """The last updates of every monitored signal by their own timestamps, at least `length` of each."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._signals: dict[str, _Signal] = {}

    def record(self, time: float, data: Document, timestamps: Document) -> None:
        """Take one update; `time` stands in for a timestamp that is not given."""
        for key, value in small_values(data).items():
            signal = self._signals.get(key)
            if signal is None:
                signal = self._signals[key] = _Signal()
            stamps, values = signal.stamps, signal.values
            stamp = timestamps.get(key, time)
            if not stamps or stamp >= stamps[-1]:
                stamps.append(stamp)
                values.append(value)
            else:
                place = bisect_right(stamps, stamp)
                stamps.insert(place, stamp)
                values.insert(place, value)
            if len(stamps) > 2 * self._length:
                del stamps[: -self._length]
                del values[: -self._length]

    def join(self, time: float, data: dict[str, Any], timestamps: dict[str, float]) -> None:
        """Add to a point's data each signal's last value at or before `time`; the point's own readings stay."""
        for key, signal in self._signals.items():
            if key in data:
                continue
            stamps = signal.stamps
            place = len(stamps) if stamps[-1] <= time else bisect_right(stamps, time)
            if place:
                data[key] = signal.values[place - 1]
                timestamps[key] = stamps[place - 1]
