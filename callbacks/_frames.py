"""Which frames of a detector's file belong to which point, as announced by StreamDatum documents."""

from dataclasses import dataclass

__all__ = ["FrameRanges", "frames_per_index"]

_MOST_RANGES = 1_000


def frames_per_index(shape: list[int] | None, chunk_shape: list[int] | tuple[int, ...] | None) -> int:
    """Give how many frames in the file one index of a StreamDatum covers.

    ophyd-async puts this number first in the data key's shape, `(frames, y, x)` or `(frames,)`; older
    documents leave it out. The chunk shape, which always counts frames first, tells them apart; without one
    it is 1.
    """
    if shape and chunk_shape and len(shape) == len(chunk_shape):
        return max(1, int(shape[0]))
    return 1


@dataclass(slots=True)
class _Range:
    first: int
    """First seq_num, and one past the last."""
    stop: int
    first_frame: int
    stop_frame: int

    def frames(self, seq_num: int) -> tuple[int, int]:
        count, frames = self.stop - self.first, self.stop_frame - self.first_frame
        step = seq_num - self.first
        return self.first_frame + step * frames // count, self.first_frame + (step + 1) * frames // count


class FrameRanges:
    """The frames of one data key that no point has taken yet.

    They are kept as ranges, so that a million frames announced at once cost nothing. At most 1,000 separate ranges are
    kept; beyond that the oldest is forgotten.
    """

    def __init__(self) -> None:
        self._ranges: list[_Range] = []
        self.stop = 0
        """One past the highest seq_num announced (since a rewind)."""

    @property
    def first(self) -> int | None:
        """Lowest seq_num that has frames waiting."""
        return self._ranges[0].first if self._ranges else None

    def add(self, first: int, stop: int, first_frame: int, stop_frame: int) -> None:
        """Announce frames `first_frame` to `stop_frame` for the points `first` to `stop` (each one past the last)."""
        if stop <= first:
            return
        self.stop = stop
        last = self._ranges[-1] if self._ranges else None
        if last is not None and last.stop == first and last.stop_frame == first_frame:
            same = (last.stop - last.first) * (stop_frame - first_frame) == (stop - first) * (
                last.stop_frame - last.first_frame
            )
            if same:
                last.stop, last.stop_frame = stop, stop_frame
                return
        self._ranges.append(_Range(first, stop, first_frame, stop_frame))
        if len(self._ranges) > _MOST_RANGES:
            del self._ranges[0]

    def cut(self, first: int) -> None:
        """Forget what was announced from this seq_num on: the RunEngine went back and takes these points again."""
        self.stop = min(self.stop, first)
        kept: list[_Range] = []
        for span in self._ranges:
            if span.first >= first:
                continue
            if span.stop > first:
                span.stop, span.stop_frame = first, span.frames(first)[0]
            kept.append(span)
        self._ranges = kept

    def take(self, seq_num: int) -> tuple[int, int] | None:
        """Hand out the frames of one point, once: (first, one past the last)."""
        for position, span in enumerate(self._ranges):
            if span.first > seq_num:
                return None
            if seq_num < span.stop:
                return self._take_from(position, span, seq_num)
        return None

    def _take_from(self, position: int, span: _Range, seq_num: int) -> tuple[int, int]:
        frames = first_frame, stop_frame = span.frames(seq_num)
        if span.first == seq_num:
            span.first, span.first_frame = seq_num + 1, stop_frame
            if span.first == span.stop:
                del self._ranges[position]
            return frames
        behind = _Range(seq_num + 1, span.stop, stop_frame, span.stop_frame)
        span.stop, span.stop_frame = seq_num, first_frame
        if behind.first < behind.stop:
            self._ranges.insert(position + 1, behind)
        return frames
