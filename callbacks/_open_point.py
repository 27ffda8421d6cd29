"""Points under way: what they wait for, and which ones were published."""

from dataclasses import dataclass, field
from typing import Any

from bec_bluesky.documents import Document
from callbacks._axes import RunAxes, external_keys
from callbacks._frames import FrameRanges
from callbacks._history import Interval

__all__ = ["MainStream", "OpenPoint", "Published"]

_RING = 4_096


@dataclass(slots=True)
class MainStream:
    """What is known of the main stream, from its latest descriptor."""

    name: str
    positions: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    """Of the data keys that come as StreamDatum."""
    has_events: bool = True
    ranges: dict[str, FrameRanges] = field(default_factory=dict)
    joined: dict[str, FrameRanges] = field(default_factory=dict)
    """Frames of streams that are joined by point."""
    last: int = 0
    """Index of the latest point."""

    def describe(self, descriptor: Document, axes: RunAxes) -> None:
        """Take a descriptor of this stream."""
        keys = descriptor["data_keys"]
        external = external_keys(descriptor)
        self.positions, self.signals = axes.positions(descriptor), axes.signals(descriptor)
        self.shapes = {key: list(keys[key].get("shape") or ()) for key in external}
        self.has_events = len(external) < len(keys)
        self.ranges = {key: self.ranges.get(key) or FrameRanges() for key in external}

    def ranges_of(self, key: str) -> FrameRanges | None:
        """Give the frames of a data key that no point has taken yet."""
        return self.ranges.get(key) or self.joined.get(key)


@dataclass(slots=True, eq=False)
class OpenPoint:
    """A point that is not published, or was published without all that belongs to it."""

    index: int
    time: float
    data: dict[str, Any]
    timestamps: dict[str, float]
    uid: str
    frames: dict[str, tuple[int, int]] = field(default_factory=dict)
    since: float = 0.0
    """Time of the point before."""
    awaited: list[str] = field(default_factory=list)
    """Streams whose row has not come."""
    uncertain: list[str] = field(default_factory=list)
    """Signals of which a later update has not come."""
    was_published: bool = False
    is_news: bool = False
    """Whether something came since it was published."""
    is_gone: bool = False

    @property
    def interval(self) -> Interval:
        return self.since, self.time

    def lacks(self, main: MainStream) -> bool:
        """Tell whether anything that belongs to it has not come."""
        return bool(self.awaited or self.uncertain) or any(
            key not in self.frames for ranges in (main.ranges, main.joined) for key in ranges
        )

    def missing(self, main: MainStream) -> list[str]:
        """Give what has not come: data keys of frames, streams, and signals without a value."""
        frames = [key for ranges in (main.ranges, main.joined) for key in ranges if key not in self.frames]
        return [*frames, *self.awaited, *(key for key in self.uncertain if key not in self.data)]


class Published:
    """Which indices were published lately, how often, and from which event."""

    def __init__(self) -> None:
        self._ring: list[tuple[int, int, str]] = [(-1, 0, "")] * _RING
        self._last = -1
        self._rewinds = 0

    @property
    def nothing(self) -> bool:
        """Whether nothing was published yet."""
        return self._last == -1

    def has(self, index: int, uid: str) -> bool:
        """Tell whether this very event was published."""
        slot = self._ring[index % _RING]
        return slot[0] == index and slot[2] == uid

    def next_revision(self, index: int, uid: str) -> int:
        """Note that this index is published now and give its revision."""
        if index <= self._last:
            self._rewinds += 1
        self._last = index
        before, revision, _ = self._ring[index % _RING]
        if before == index:
            revision += 1
        else:  # a slot overtaken by a later index: it was published long ago, no more often than we went back
            revision = self._rewinds if before > index else 0
        self._ring[index % _RING] = (index, revision, uid)
        return revision
