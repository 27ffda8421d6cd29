"""Patterns of names: of plans and functions, and of devices with their parts.

A plain name means itself; of a device it may be dotted. `:…` is a regular expression that is searched for in a name. A
pattern of devices has one for each level, `:^stage$:^det`; every level that it passes is meant, except one marked with
`-` (`:-^stage$:^det`: only the parts). `:?…` is searched for in all that is left of the dotted name, to any depth or to
`:depth=N`. `__READABLE__`, `__FLYABLE__`, `__MOTOR__` or `__DETECTOR__` in front leaves only such devices. A list whose
first pattern is null means all where things are allowed, and none where they are forbidden. The form is
bluesky-queueserver's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DeviceNames", "NamePatterns"]

_NAME = re.compile(r"[A-Za-z_]\w*")
_DEPTH = re.compile(r"depth=(\d+)")
_KINDS: dict[str, Any] = {
    "__READABLE__": lambda facts: facts.get("is_readable", False),
    "__FLYABLE__": lambda facts: facts.get("is_flyable", False),
    "__MOTOR__": lambda facts: facts.get("is_readable", False) and facts.get("is_movable", False),
    "__DETECTOR__": lambda facts: facts.get("is_readable", False) and not facts.get("is_movable", False),
}


def _expression(pattern: str, text: str) -> "re.Pattern[str]":
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {text!r} is no regular expression: {error}") from None


class NamePatterns:
    """A list of patterns of plans or functions."""

    def __init__(self, patterns: Sequence[str | None]) -> None:
        """Read them; raises ValueError that names the wrong one."""
        self.is_everything = bool(patterns) and patterns[0] is None
        self._names: set[str] = set()
        self._expressions: list[re.Pattern[str]] = []
        for pattern in patterns:
            if pattern is None:
                continue
            if not isinstance(pattern, str) or not pattern:  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever was written
                raise ValueError(f"pattern {pattern!r} is no text")
            if not pattern.startswith(":"):
                if not _NAME.fullmatch(pattern):
                    raise ValueError(f"{pattern!r} is no name; a regular expression begins with ':'")
                self._names.add(pattern)
            elif ":" in pattern[1:]:
                raise ValueError(f"pattern {pattern!r}: plans and functions have no parts")
            else:
                self._expressions.append(_expression(pattern, pattern[1:].lstrip("+-?")))

    def match(self, name: str) -> bool:
        """Tell whether any pattern means this name; null means none here."""
        return name in self._names or any(each.search(name) for each in self._expressions)


@dataclass(frozen=True)
class _Level:
    expression: "re.Pattern[str]"
    is_included: bool = True
    is_rest: bool = False
    depth: int | None = None


class DeviceNames:
    """One pattern of devices."""

    def __init__(self, pattern: str) -> None:
        """Read it; raises ValueError that says what is wrong."""
        if not isinstance(pattern, str) or not pattern:  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever was written
            raise ValueError(f"pattern {pattern!r} is no text")
        self._kind = next((kind for kind in _KINDS if pattern.startswith(f"{kind}:")), "")
        text = pattern.removeprefix(self._kind)
        self._name = "" if text.startswith(":") else text
        self._levels = () if self._name else tuple(_levels(pattern, text[1:].split(":")))
        if self._name and not all(_NAME.fullmatch(part) for part in self._name.split(".")):
            raise ValueError(f"{pattern!r} is no name of a device; a regular expression begins with ':'")

    def match(self, path: str, facts: Mapping[str, Any]) -> bool:
        """Tell whether this dotted path is meant; `facts` say is_readable, is_movable, is_flyable."""
        if self._name:
            return path == self._name
        if self._kind and not _KINDS[self._kind](facts):
            return False
        parts = path.split(".")
        for depth, level in enumerate(self._levels):
            if level.is_rest:
                rest = parts[depth:]
                is_deep = level.depth is not None and len(rest) > level.depth
                return bool(rest) and not is_deep and bool(level.expression.search(".".join(rest)))
            if not level.expression.search(parts[depth]):
                return False
            if depth == len(parts) - 1:
                return level.is_included or depth == len(self._levels) - 1
        return False


def _levels(pattern: str, texts: list[str]) -> list[_Level]:
    levels: list[_Level] = []
    for number, text in enumerate(texts):
        found = _DEPTH.fullmatch(text)
        if found and levels and levels[-1].is_rest:
            if number != len(texts) - 1 or int(found.group(1)) < 1:
                raise ValueError(f"pattern {pattern!r}: depth=N, at least 1, comes last")
            last = levels.pop()
            levels.append(_Level(last.expression, last.is_included, True, int(found.group(1))))
            continue
        if levels and levels[-1].is_rest:
            raise ValueError(f"pattern {pattern!r}: nothing but depth=N can follow ':?'")
        mark = text[:1] if text[:1] in ("+", "-", "?") else ""
        if not text.removeprefix(mark):
            raise ValueError(f"pattern {pattern!r}: an expression is empty")
        levels.append(_Level(_expression(pattern, text.removeprefix(mark)), mark != "-", mark == "?"))
    return levels
