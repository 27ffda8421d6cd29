"""Applies accelerations to a RunEngine."""

import contextlib
import weakref
from collections.abc import Collection, Iterator
from typing import Any

from bec_bluesky.accelerations import _bundling, _plans, _protocols, _state, _statuses, _tracing, _waiting
from bec_bluesky.accelerations._acceleration import Acceleration, Replacement
from bec_bluesky.errors import SettingsError, choices
from bec_bluesky.log import logger

__all__ = ["ALL", "accelerate", "chosen", "withdrawn"]

_log = logger(__name__)
_ACCELERATIONS: tuple[Acceleration, ...] = (
    _plans.STACKS,
    _bundling.VALIDATION,
    _bundling.COLLISIONS,
    _protocols.PROTOCOLS,
    _tracing.TRACING,
    _waiting.WAIT,
    _statuses.STATUSES,
    _state.STATE,
)
ALL: tuple[str, ...] = tuple(each.name for each in _ACCELERATIONS)
"""Names of all accelerations, in the order in which they are applied."""

_in_engines: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
_in_process: dict[str, list[tuple[Replacement, Any]]] = {}
"""{acceleration: what it replaced, and what was there before}"""


def accelerate(RE: Any, *, only: Collection[str] | None = None) -> frozenset[str]:
    """Apply accelerations (all, or `only` those named) to an idle RunEngine; give the names of those that are on.

    One that does not fit the installed bluesky stays off, and the log says why. Some hold for the whole process
    (`stacks`, `protocols`, `tracing`). Calling it again adds what is missing. Raises SettingsError for an unknown name.
    Commands that others replaced (`prepare_engine` of the proxies) must come after it.
    """
    wanted = set(ALL if only is None else only)
    _refuse_unknown(wanted)
    on = _in_engines.setdefault(RE, set())
    for acceleration in _ACCELERATIONS:
        name = acceleration.name
        if name not in wanted - on or not (name in _in_process or _fits(acceleration)):
            continue
        if name not in _in_process:
            _in_process[name] = [_replace(each) for each in acceleration.in_process()]
        acceleration.in_engine(RE)
        on.add(name)
    return frozenset(on)


def chosen(text: str) -> frozenset[str]:
    """Read a setting: names separated by commas, `all`, `none`, or names to leave out (`-wait,-state`).

    Raises SettingsError for an unknown name.
    """
    words = [word for word in text.replace(",", " ").split() if word not in ("all", "none")]
    out = {word[1:] for word in words if word.startswith("-")}
    named = {word for word in words if not word.startswith("-")}
    _refuse_unknown(out | named)
    if named or "none" in text.replace(",", " ").split():
        return frozenset(named - out)
    return frozenset(ALL) - out


@contextlib.contextmanager
def withdrawn() -> Iterator[None]:
    """Take back what holds for the whole process while the block lasts, to compare with the stock RunEngine."""
    replaced = [pair for pairs in _in_process.values() for pair in pairs]
    for replacement, stock in reversed(replaced):
        setattr(replacement.owner, replacement.name, stock)
    try:
        yield
    finally:
        for replacement, _ in replaced:
            setattr(replacement.owner, replacement.name, replacement.new)


def _fits(acceleration: Acceleration) -> bool:
    reason = acceleration.why_not()
    if reason:
        _log.info("the RunEngine runs without the acceleration %r: %s", acceleration.name, reason)
    return not reason


def _replace(replacement: Replacement) -> tuple[Replacement, Any]:
    stock = getattr(replacement.owner, replacement.name)
    setattr(replacement.owner, replacement.name, replacement.new)
    return replacement, stock


def _refuse_unknown(names: set[str]) -> None:
    for name in sorted(names - set(ALL)):
        raise SettingsError(f"there is no acceleration {name!r}: {choices(name, ALL)}")
