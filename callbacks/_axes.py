"""Which stream of a run is its main one, and which data keys there are axes and signals."""

from collections.abc import Iterator, Mapping
from typing import Any

from bec_bluesky.documents import Document

__all__ = ["RunAxes", "external_keys", "is_external", "is_monitor", "is_number"]

_NEVER_POINTS = frozenset({"baseline", "interruptions"})


def is_monitor(stream: str) -> bool:
    """Tell whether a stream bears the name that bluesky gives to monitored signals."""
    return stream.endswith("_monitor") or stream.startswith("monitor")


def is_external(data_key: Mapping[str, Any]) -> bool:
    """Tell whether values come as StreamDatum, not in events."""
    return data_key.get("external") == "STREAM:"


def external_keys(descriptor: Document) -> tuple[str, ...]:
    """Give the data keys that come as StreamDatum, in the descriptor's order."""
    return tuple(name for name, key in descriptor["data_keys"].items() if is_external(key))


def is_number(data_key: Mapping[str, Any]) -> bool:
    """Tell whether events hold one plain number under this data key."""
    if data_key.get("external") or data_key.get("dtype") not in ("number", "integer"):
        return False
    return not data_key.get("shape")


class RunAxes:
    """The main stream of one run and what is an axis or a signal in it.

    The main stream is the one asked for; else the one that the start document's dimensions name; else
    "primary"; else the first that is neither baseline nor a monitor. In the last case a "primary" that comes
    later takes its place.
    """

    def __init__(self, start: Document, stream: str | None = None) -> None:
        self._dimensions = list(_hinted_dimensions(start))
        self._motors = [str(name) for name in start.get("motors") or ()]
        self._wanted = stream or next((name for _, name in self._dimensions), None)
        self.main: str | None = None
        """Name of the main stream, once there is one."""

    def is_main(self, descriptor: Document) -> bool:
        """Tell whether this descriptor's events are the run's points, in the light of the descriptors so far."""
        name = descriptor.get("name", "primary")
        if self._wanted is not None:
            chosen = name == self._wanted
        elif self.main is None:
            chosen = name not in _NEVER_POINTS and not is_monitor(name)
        else:
            chosen = name in (self.main, "primary")
        if chosen:
            self.main = name
        return chosen

    def dimensions(self, descriptor: Document) -> list[list[str]]:
        """Give the data keys of each scan dimension that are in this stream, slowest dimension first."""
        name, keys = descriptor.get("name", "primary"), descriptor["data_keys"]
        hinted = [[field for field in fields if field in keys] for fields, stream in self._dimensions if stream == name]
        found = [fields for fields in hinted if fields]
        return found or [fields for motor in self._motors if (fields := _motor_keys(motor, descriptor))]

    def positions(self, descriptor: Document) -> list[str]:
        """Give the data keys of all scan dimensions, slowest first."""
        return list(dict.fromkeys(field for fields in self.dimensions(descriptor) for field in fields))

    def signals(self, descriptor: Document) -> list[str]:
        """Give the hinted data keys that are no axes, in the descriptor's order."""
        axes = set(self.positions(descriptor))
        hinted = {field for hint in (descriptor.get("hints") or {}).values() for field in hint.get("fields") or ()}
        return [name for name in descriptor["data_keys"] if name in hinted and name not in axes]


def _hinted_dimensions(start: Document) -> Iterator[tuple[list[str], str]]:
    """Read `hints["dimensions"]`, a list of (fields, stream); what is not of that form is no dimension."""
    for dimension in (start.get("hints") or {}).get("dimensions") or ():
        match dimension:
            case [[*fields], str(stream)]:
                yield [str(field) for field in fields], stream
            case _:
                continue


def _motor_keys(motor: str, descriptor: Document) -> list[str]:
    hint = (descriptor.get("hints") or {}).get(motor) or {}
    fields = hint.get("fields") or (descriptor.get("object_keys") or {}).get(motor, [motor])[:1]
    return [field for field in fields if field in descriptor["data_keys"]]
