"""What must be done so that the devices are again as the device file says: as little as can be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.device_server._needs import dependants

__all__ = ["Changes", "compare"]

_BUILT_FROM = ("class_", "args", "kwargs", "set", "enabled")
"""What a device is made from; everything else is looked up when it is used, and changes under its connections."""


@dataclass(frozen=True)
class Changes:
    """Names of devices; none is in two of the sets."""

    added: frozenset[str]
    removed: frozenset[str]
    rebuilt: frozenset[str]
    """Made from something else now, or need a device that is."""
    touched: frozenset[str]
    """The same objects, described differently."""


def compare(old: Mapping[str, DeviceSpec], new: Mapping[str, DeviceSpec], rebuild: Iterable[str] = ()) -> Changes:
    """Compare what one device server owns before and after an edit; those to `rebuild` are built anew in any case."""
    added, removed = frozenset(new.keys() - old.keys()), frozenset(old.keys() - new.keys())
    common = old.keys() & new.keys()
    remade = {name for name in common if _made_from(old[name]) != _made_from(new[name])} | set(rebuild)
    rebuilt = frozenset((remade | dependants(remade | added, new)) - added)
    touched = frozenset(name for name in common - rebuilt if vars(old[name]) != vars(new[name]))  # not where it stands
    return Changes(added, removed, rebuilt, touched)


def _made_from(spec: DeviceSpec) -> list[object]:
    return [getattr(spec, key) for key in _BUILT_FROM]
