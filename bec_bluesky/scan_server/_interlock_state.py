"""One interlock as a pure state machine: readings in, "tripped" or "clear" out. Nothing here does I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bec_bluesky.guards import Condition, Interlock

__all__ = ["InterlockState", "Known"]

Known = Mapping[str, Any]
"""{path: what the device reads now}; one that cannot be read is missing."""


@dataclass
class InterlockState:
    """Whether an interlock is tripped, by what, and what it did that is to be taken back."""

    entry: Interlock
    is_tripped: bool = False
    why: str = ""
    """What made it trip, or is about to."""
    paused: set[str] = field(default_factory=set[str])
    """Ids of items that were paused."""
    stopped: set[str] = field(default_factory=set[str])
    """Names of queues that were stopped."""
    _since: float | None = None
    """Since when it is other than `is_tripped` says."""

    def take(self, known: Known, now: float) -> Literal["tripped", "clear"] | None:
        """Take what devices read at a (monotonic) time; give what that changes."""
        bad = self._bad(known)
        if bad:
            self.why = bad
        if bool(bad) == self.is_tripped:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        if now - self._since < (self.entry.grace if bad else self.entry.clear_for):
            return None
        self.is_tripped, self._since = bool(bad), None
        return "tripped" if bad else "clear"

    @property
    def memory(self) -> dict[str, list[str]]:
        """What it did that is to be taken back, for the scan server that comes after this one."""
        return {"paused": sorted(self.paused), "stopped": sorted(self.stopped)}

    def remember(self, memory: Mapping[str, list[str]]) -> None:
        """Go on as the one that was tripped before: what it did is taken back when it is clear."""
        self.is_tripped, self.why = True, "it was tripped before the scan server began anew"
        self.paused, self.stopped = set(memory.get("paused", ())), set(memory.get("stopped", ()))

    @property
    def text(self) -> str:
        message = f" ({self.entry.message})" if self.entry.message else ""
        return f"interlock {self.entry.name}: {self.why}{message}"

    def _bad(self, known: Known) -> str:
        """Say what is bad; empty: nothing."""
        found = [self._judge(condition, known) for condition in self.entry.when]
        bad = [text for text in found if text]
        is_bad = bool(bad) if self.entry.match == "any" else len(bad) == len(found)
        return " and ".join(bad) if is_bad else ""

    def _judge(self, condition: Condition, known: Known) -> str:
        if condition.device in known:
            value = known[condition.device]
            try:
                return f"{condition.device} is {_short(value)}, {condition.text}" if condition.holds(value) else ""
            except (TypeError, ValueError):
                lost = f"{condition.device} is {_short(value)}, which cannot be compared"
        else:
            lost = f"{condition.device} cannot be read"
        return lost if self.entry.when_lost == "trip" else ""


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)[:60]
