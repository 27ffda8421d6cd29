"""Which devices need which: by `$ref` in their arguments, and by `needs:`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.errors import SettingsError

__all__ = ["build_order", "dependants", "needed_by", "references"]


def references(spec: DeviceSpec) -> list[str]:
    """Give every `$ref` in the arguments of a device."""
    return [*_references(spec.args), *_references(spec.kwargs)]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if set(value) == {"$ref"}:
            yield str(value["$ref"])
            return
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _references(each)


def needed_by(spec: DeviceSpec) -> list[str]:
    """Give the devices that must be there before this one."""
    return [name.partition(".")[0] for name in (*references(spec), *spec.needs)]


def dependants(names: Iterable[str], specs: Mapping[str, DeviceSpec]) -> set[str]:
    """Give the devices that need one of these, directly or by way of others."""
    wanted, found = set(names), set[str]()
    while True:
        more = {name for name, spec in specs.items() if not wanted.isdisjoint(needed_by(spec))} - wanted
        if not more:
            return found
        wanted |= more
        found |= more


def build_order(specs: Mapping[str, DeviceSpec]) -> list[str]:
    """Give the names so that each device comes after those it needs; raises SettingsError for a circle."""
    order: list[str] = []
    under_way: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in under_way:
            circle = " → ".join([*under_way[under_way.index(name) :], name])
            raise SettingsError(f"{specs[name].origin}devices need each other in a circle: {circle}")
        under_way.append(name)
        for needed in needed_by(specs[name]):
            if needed in specs:  # one that is not is told by whoever asks what there is
                visit(needed)
        under_way.pop()
        order.append(name)

    for name in specs:
        visit(name)
    return order
