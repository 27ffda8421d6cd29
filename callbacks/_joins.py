"""How a signal of another stream is joined to the points: what the profile and the plan's metadata ask for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

__all__ = ["LAST", "Clock", "How", "Join", "JoinRules"]

How = Literal["last", "nearest", "linear", "mean", "min", "max", "count", "all", "point", "none"]
Clock = Literal["signal", "event"]
_HOWS: tuple[str, ...] = get_args(How)
_CLOCKS: tuple[str, ...] = get_args(Clock)


@dataclass(frozen=True)
class Join:
    """How one signal is joined.

    last: its value at or before the point's time
    nearest: the value whose time is nearest
    linear: interpolated between the values before and after; numbers and arrays of them only
    mean, min, max: over the updates since the point before, up to the point's time; with none, the last value
    count: how many updates there were in that time
    all: their values, at most the last 1,000
    point: by the point's number (`point_id` among the data, else `seq_num`), for whole streams
    none: not at all
    """

    how: How = "last"
    tolerance: float = math.inf
    """Seconds: a value further from the point's time, and for `linear` two neighbours further apart, do not count."""
    clock: Clock = "signal"
    """Whose time counts: the signal's own timestamp, or the time of the event that brought it."""

    @property
    def must_see_later(self) -> bool:
        """Whether a later update has to come before the value at a time is certain."""
        return self.how not in ("last", "point", "none")

    @property
    def needs_numbers(self) -> bool:
        return self.how in ("linear", "mean", "min", "max")

    @property
    def is_over_interval(self) -> bool:
        """Whether all updates since the point before count."""
        return self.how in ("mean", "min", "max", "count", "all")

    def __str__(self) -> str:
        """Say it for people and programs: `linear by the signal's time, within 5 s`."""
        if self.how in ("point", "none"):
            return self.how
        within = f", within {self.tolerance:g} s" if math.isfinite(self.tolerance) else ""
        return f"{self.how} by the {self.clock}'s time{within}"


LAST = Join()


class JoinRules:
    """Rules by name of a data key or of a stream, or by a pattern of names (`mca_*`).

    An exact name counts before a pattern, a data key before its stream, and the plan's metadata before the profile.
    """

    def __init__(self, rules: Mapping[str, Any], *, over: "JoinRules | None" = None) -> None:
        """Read rules: `{name: how}` or `{name: {how, tolerance, clock}}`; raises ValueError naming the wrong one."""
        self._rules = {str(name): _read(str(name), rule) for name, rule in rules.items()}
        self._behind = over

    def find(self, key: str, stream: str) -> Join:
        """Give the rule for a data key of a stream."""
        return self.of(key) or self.of(stream) or LAST

    def of(self, name: str) -> Join | None:
        """Give the rule for one name, None if there is none."""
        exact = self._rules.get(name)
        if exact is not None:
            return exact
        for pattern, rule in self._rules.items():
            if fnmatchcase(name, pattern):
                return rule
        return None if self._behind is None else self._behind.of(name)


def _read(name: str, rule: Any) -> Join:
    given = {"how": rule} if isinstance(rule, str) else rule
    if not isinstance(given, Mapping):
        raise ValueError(f"joins: {name!r} is {rule!r}: give one of {', '.join(_HOWS)}, or a table with `how`")
    unknown = sorted(set(given) - {"how", "tolerance", "clock"})  # pyright: ignore[reportUnknownArgumentType]  # whatever was written
    if unknown:
        raise ValueError(f"joins: {name!r} has no {unknown[0]!r}: there are how, tolerance, clock")
    how, clock = given.get("how", "last"), given.get("clock", "signal")
    tolerance = given.get("tolerance", math.inf)
    if how not in _HOWS:
        raise ValueError(f"joins: {name!r}: how={how!r} is none of {', '.join(_HOWS)}")
    if clock not in _CLOCKS:
        raise ValueError(f"joins: {name!r}: clock={clock!r} is none of {', '.join(_CLOCKS)}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance > 0:
        raise ValueError(f"joins: {name!r}: tolerance={tolerance!r} must be a positive number of seconds")
    return Join(how, float(tolerance), clock)  # pyright: ignore[reportArgumentType]  # checked above
