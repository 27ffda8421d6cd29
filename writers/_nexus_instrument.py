"""The devices of a run as `/entry/instrument/<device>`, by links to the columns of the streams."""

from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_classes import DeviceClasses
from writers._nexus_stream import StreamTable, key_attributes
from writers._nexus_text import Names, iso_time, seconds, set_attributes, write_value

__all__ = [
    "Axes",
    "add_link",
    "device_keys",
    "hinted_keys",
    "link_group",
    "write_elapsed",
    "write_instrument",
    "write_logs",
    "write_readout_groups",
]

_OF_THE_ENTRY = ("baseline", "data", "external_files", "monitors", "readout_groups", "results")
"""What may come into the entry later."""
_BLOCK = 100_000
"""Rows in memory at once."""
_NAMED = ("NXpositioner", "NXsensor", "NXsource")
"""Classes with a field `name`; others have a `local_name` at most."""


class Axes:
    """What the start document says of the scan's axes."""

    def __init__(self, start: Document) -> None:
        hints = start.get("hints")
        dimensions = hints.get("dimensions") if isinstance(hints, Mapping) else None
        self.dimensions: list[list[str]] = []
        """Data keys of each dimension, slowest first; `time` is none."""
        self.stream = "primary"
        try:
            for fields, stream in dimensions or ():
                self.dimensions.append([str(field) for field in fields if field != "time"])
                self.stream = str(stream)
        except (TypeError, ValueError):
            self.dimensions = []
        self.dimensions = [fields for fields in self.dimensions if fields]
        self.keys = {field for fields in self.dimensions for field in fields}
        self.motors = {str(name) for name in start.get("motors") or ()}
        self.is_grid = isinstance(hints, Mapping) and hints.get("gridding") == "rectilinear"


def hinted_keys(stream: StreamTable, device: str) -> list[str]:
    """Give the data keys that a device says are worth looking at."""
    for descriptor in stream.descriptors:
        fields = (descriptor.get("hints") or {}).get(device, {}).get("fields")
        if fields:
            return [str(field) for field in fields]
    return []


def add_link(group: h5py.Group, name: str, stream: StreamTable, key: str) -> bool:
    """Link a column into another group, a hard link within the file; False if there is no such column."""
    link = stream.group.get(stream.names[key], getlink=True)
    if isinstance(link, h5py.ExternalLink):
        group[name] = link
        return True
    target = stream.group.get(stream.names[key])
    if not isinstance(target, h5py.Dataset):
        return False
    group[name] = target
    target.attrs.setdefault("target", target.name)
    return True


def link_group(parent: h5py.Group, name: str, target: h5py.Group) -> None:
    """Link a group into another as NeXus has it: the group itself says where it is."""
    target.attrs["target"] = str(target.name)
    parent[name] = h5py.SoftLink(str(target.name))


def write_instrument(
    instrument: h5py.Group, streams: Iterable[StreamTable], axes: Axes, classes: DeviceClasses
) -> dict[str, h5py.Group]:
    """Write a group for each device; `streams` in the order of who gives a device its values, the main one first.

    Gives the groups. A monitor's stands in the entry, where NeXus has it.
    """
    entry = instrument.parent
    assert isinstance(entry, h5py.Group)
    names, beside = Names("name"), Names(*map(str, entry), *_OF_THE_ENTRY)
    groups: dict[str, tuple[h5py.Group, Names]] = {}
    for stream in streams:
        for device, keys in device_keys(stream).items():
            first = device not in groups
            hinted = hinted_keys(stream, device)
            if first:
                nx_class = classes.of(device, hinted_classes(stream, device)) or _class_by_part(
                    device, axes, keys, is_detector=bool(hinted) and not stream.is_aside
                )
                is_beside = nx_class == "NXmonitor"
                group = (entry if is_beside else instrument).create_group((beside if is_beside else names)[device])
                groups[device] = (group, Names("value", "data", "configuration", "name", "local_name"))
                set_attributes(group, {"NX_class": nx_class})
                write_value(group, "name" if nx_class in _NAMED else "local_name", device)
            group, members = groups[device]
            _link_values(group, members, stream, keys, hinted)
            _write_configuration(group, stream, device)
    return {device: group for device, (group, _) in groups.items()}


def write_readout_groups(parent: h5py.Group, streams: Iterable[StreamTable], devices: Mapping[str, h5py.Group]) -> None:
    """Write which devices were read how: `monitored` with each point, at `baseline`, `continuous`, `asynchronous`."""
    members: dict[str, set[str]] = {}
    for stream in streams:
        for device, keys in device_keys(stream).items():
            declared = stream.data_keys
            if stream.is_aside:
                how = "baseline" if stream.name == "baseline" else "continuous"
            else:
                is_external = any(str(declared.get(key, {}).get("external", "")).startswith("STREAM:") for key in keys)
                how = "asynchronous" if is_external or stream.has_pages else "monitored"
            members.setdefault(how, set()).add(device)
    for how, names in sorted(members.items()):
        group = parent.create_group(how)
        set_attributes(group, {"NX_class": "NXcollection"})
        links = Names()
        for name in sorted(names):
            if name in devices:
                link_group(group, links[name], devices[name])


def device_keys(stream: StreamTable) -> dict[str, list[str]]:
    """Give the data keys of each device of a stream."""
    found: dict[str, list[str]] = {}
    for descriptor in stream.descriptors:
        object_keys = descriptor.get("object_keys") or {}
        for device, keys in object_keys.items():
            known = found.setdefault(str(device), [])
            known += [key for key in keys if key not in known]
        for device in descriptor.get("configuration") or {}:
            found.setdefault(str(device), [])
    return found


def hinted_classes(stream: StreamTable, device: str) -> list[str]:
    """Give the NeXus classes that a device gives itself in its hints."""
    found = [(descriptor.get("hints") or {}).get(device, {}).get("NX_class") for descriptor in stream.descriptors]
    return [str(nx_class) for nx_class in found if nx_class]


def _class_by_part(device: str, axes: Axes, keys: list[str], *, is_detector: bool) -> str:
    if device in axes.motors or axes.keys.intersection(keys):
        return "NXpositioner"
    return "NXdetector" if is_detector else "NXcollection"


def _link_values(group: h5py.Group, members: Names, stream: StreamTable, keys: list[str], hinted: list[str]) -> None:
    is_detector = group.attrs["NX_class"] in ("NXdetector", "NXmonitor")
    main = next((key for key in [*hinted, *keys] if key in keys), None)
    for key in keys:
        name = ("data" if is_detector else "value") if key == main else members[key]
        if name in group:  # of another stream, too
            name = members[f"{key}_{stream.name}"]
        if not add_link(group, name, stream, key):
            continue
        stamps = stream.timestamps.get(key)
        if stamps is not None and stamps.dataset is not None:
            group[members[f"{name}_timestamps"]] = stamps.dataset


def _write_configuration(group: h5py.Group, stream: StreamTable, device: str) -> None:
    """Write the configuration; another one that came later in the run gets a group of its own."""
    written: list[Mapping[str, Any]] = []
    for descriptor in stream.descriptors:
        configuration = (descriptor.get("configuration") or {}).get(device) or {}
        values = configuration.get("data") or {}
        if not values or configuration in written:
            continue
        written.append(configuration)
        name = "configuration" if len(written) == 1 else f"configuration_{len(written)}"
        if name in group:  # of another stream
            continue
        target = group.create_group(name)
        set_attributes(target, {"NX_class": "NXcollection", "time": _time_of(descriptor)})
        members, stamps = Names(), configuration.get("timestamps") or {}
        for key, value in values.items():
            attributes = key_attributes(key, (configuration.get("data_keys") or {}).get(key, {}))
            write_value(target, members[key], value, attributes | {"timestamp": stamps.get(key)})


def _time_of(descriptor: Document) -> str | None:
    moment = descriptor.get("time")
    return iso_time(seconds(moment)) if moment is not None else None


def write_logs(logs: h5py.Group, names: Names, stream: StreamTable, begin: float) -> None:
    """Write the signals of a monitor's stream as NXlog: values by their own timestamps, from `begin` on (Unix time)."""
    for key, stamps in stream.timestamps.items():
        log = logs.create_group(names[key])
        set_attributes(log, {"NX_class": "NXlog", "stream": stream.name})
        if add_link(log, "value", stream, key) and stamps.dataset is not None:
            write_elapsed(log, "time", stamps.dataset, begin)
            log["timestamps"] = stamps.dataset


def write_elapsed(group: h5py.Group, name: str, moments: h5py.Dataset | None, begin: float) -> h5py.Dataset:
    """Write the seconds from `begin` (Unix time) to each of these moments, never all of them in memory."""
    count = 0 if moments is None else len(moments)
    elapsed = group.create_dataset(name, (count,), np.float64)
    for row in range(0, count, _BLOCK):
        assert moments is not None
        elapsed[row : row + _BLOCK] = moments[row : row + _BLOCK] - begin
    set_attributes(elapsed, {"units": "s", "start": iso_time(begin)})
    return elapsed
