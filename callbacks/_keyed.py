"""The keyed join: rows of other streams that carry the number of the point they belong to."""

from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.documents import Document
from callbacks._history import small_values
from callbacks._joins import JoinRules

__all__ = ["POINT_ID", "KeyedStreams"]

POINT_ID = "point_id"
"""Data key that says which point a row belongs to."""


@dataclass(slots=True)
class _Row:
    data: dict[str, Any]
    timestamps: dict[str, float]


@dataclass(slots=True)
class _Stream:
    has_rows: bool
    """Whether it has data of its own in events; else only frames."""
    rows: dict[int, _Row] = field(default_factory=dict)


class KeyedStreams:
    """Rows that no point has taken yet, at most `limit` of each stream; beyond that the oldest is forgotten."""

    def __init__(self, rules: JoinRules, limit: int) -> None:
        self._rules, self._limit = rules, limit
        self._streams: dict[str, _Stream] = {}

    def describe(self, stream: str, descriptor: Document, *, has_rows: bool) -> bool:
        """Tell whether a stream is joined by point, and await its rows from now on if so."""
        rule = self._rules.of(stream)
        is_keyed = POINT_ID in descriptor["data_keys"] if rule is None else rule.how == "point"
        if is_keyed and stream not in self._streams:
            self._streams[stream] = _Stream(has_rows)
        return is_keyed

    def __contains__(self, stream: str) -> bool:
        """Tell whether a stream is joined by point."""
        return stream in self._streams

    def add(self, stream: str, seq_num: int, data: Document, timestamps: Document) -> int:
        """Take a row and give the number of the point it belongs to."""
        index = int(data.get(POINT_ID, seq_num))
        rows = self._streams[stream].rows
        rows.pop(index, None)
        kept = {key: value for key, value in small_values(data).items() if key != POINT_ID}
        rows[index] = _Row(kept, dict(timestamps))
        if len(rows) > self._limit:
            del rows[next(iter(rows))]
        return index

    def cut(self, index: int) -> None:
        """Forget the rows from a point on: the RunEngine went back and takes these points again."""
        for stream in self._streams.values():
            for late in [number for number in stream.rows if number > index]:
                del stream.rows[late]

    def awaited(self) -> list[str]:
        """Give the streams of which each point gets a row."""
        return [name for name, stream in self._streams.items() if stream.has_rows]

    def take(self, stream: str, index: int, data: dict[str, Any], timestamps: dict[str, float]) -> bool:
        """Add a point's row to its data, what the point read itself stays; False if it has not come."""
        row = self._streams[stream].rows.pop(index, None)
        if row is None:
            return False
        for key, value in row.data.items():
            if key not in data:
                data[key] = value
        for key, stamp in row.timestamps.items():
            if key != POINT_ID:
                timestamps.setdefault(key, stamp)
        return True
