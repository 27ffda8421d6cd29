"""What an acceleration is, and whether it fits the installed libraries."""

import hashlib
import importlib
import importlib.metadata
import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KNOWN", "Acceleration", "Replacement", "extend", "fingerprint"]

KNOWN: Mapping[str, frozenset[str]] = {"bluesky": frozenset({"1.15.1"}), "event-model": frozenset({"1.24.0"})}
"""Versions for which the accelerations were written and tried (bluesky's own tests, and ours)."""


@dataclass(frozen=True)
class Replacement:
    """A thing of a module or class that is replaced for the whole process."""

    owner: Any
    name: str
    new: Any


def _none() -> list[Replacement]:
    return []


def _nothing(_: Any) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """A change of the RunEngine that nobody can tell but by its speed."""

    name: str
    stock: Mapping[str, str]
    """{"module:Class.function": its fingerprint}: what is replaced, or leaned upon, as it was when this was written."""
    in_process: Callable[[], list[Replacement]] = field(default=_none)
    """Gives what to replace for the whole process."""
    in_engine: Callable[[Any], None] = field(default=_nothing)
    """Changes one RunEngine."""
    before_python: tuple[int, int] = (99, 0)
    """Of no use from this Python on."""

    def why_not(self) -> str:
        """Say why it does not fit what is installed; empty if it does."""
        if sys.version_info >= self.before_python:
            return "this Python does not need it"
        for library, versions in KNOWN.items():
            installed = importlib.metadata.version(library)
            if installed not in versions:
                return f"it is not known to fit {library} {installed} (but {', '.join(sorted(versions))})"
        for path, expected in self.stock.items():
            if (found := fingerprint(path)) != expected:
                return f"{path} is not what it was written for ({found}, not {expected})"
        return ""


def fingerprint(path: str) -> str:
    """Give a short hash of the source of "module:Class.function"; says so if there is none."""
    module, _, name = path.partition(":")
    try:
        source = inspect.getsource(operator.attrgetter(name)(importlib.import_module(module)))
    except (AttributeError, ImportError, OSError, TypeError) as error:
        return f"none: {error}"
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def extend(RE: Any, **members: Any) -> None:
    """Make a RunEngine an instance of a subclass of its class, with these members."""
    cls = type(RE)
    RE.__class__ = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__, **members})
