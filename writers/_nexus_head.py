"""What a run's file says of the run as a whole: who, what, when."""

from collections.abc import Mapping
from typing import Any

import h5py

from bec_bluesky import __version__
from bec_bluesky.documents import Document, is_lost
from writers._nexus_text import Names, encode, iso_time, seconds, set_attributes, write_value

__all__ = ["collection", "group_in", "write_head", "write_root", "write_tail"]

_IDENTIFIERS = ("uid", "scan_id", "plan_name", "plan_type")
_AS_JSON = ("plan_args", "versions")
_ELSEWHERE = {
    *_IDENTIFIERS,
    *_AS_JSON,
    "num_points",
    "time",
    "title",
    "user",
    "sample",
    "proposal",
    "hints",
    "data_session",
}


def collection(parent: h5py.Group, name: str) -> h5py.Group:
    """Make a group for what NeXus has no class for."""
    group = parent.create_group(name)
    set_attributes(group, {"NX_class": "NXcollection"})
    return group


def group_in(parent: h5py.Group, name: str) -> h5py.Group:
    """Give a group that is there."""
    group = parent[name]
    assert isinstance(group, h5py.Group)
    return group


def write_root(file: h5py.File, moment: float) -> None:
    """Write the attributes of the file; `moment` is its time, seconds since 1970."""
    set_attributes(
        file,
        {
            "NX_class": "NXroot",
            "default": "entry",
            "creator": "bec-bluesky",
            "creator_version": __version__,
            "file_time": iso_time(moment),
            "h5py_version": h5py.version.version,
            "HDF5_Version": h5py.version.hdf5_version,
        },
    )


def write_head(entry: h5py.Group, start: Document) -> None:
    """Write what the start document tells."""
    set_attributes(entry, {"NX_class": "NXentry"})
    plan = str(start.get("plan_name") or "run")
    write_value(entry, "title", str(start.get("title") or f"{start.get('scan_id', '')} {plan}".strip()))
    write_value(entry, "entry_identifier", str(start["uid"]))
    write_value(entry, "start_time", iso_time(seconds(start.get("time"))))
    write_value(entry, "program_name", "bec-bluesky", {"version": __version__})
    run = collection(entry, "run")
    for key in _IDENTIFIERS:
        if start.get(key) is not None:
            write_value(run, key, start[key])
    if start.get("num_points") is not None:
        write_value(run, "num_points_planned", start["num_points"])
    for key in _AS_JSON:
        if key in start:
            write_value(run, key, encode(start[key]), {"encoding": "json"})
    metadata, names = collection(run, "metadata"), Names()
    for key, value in start.items():
        if key not in _ELSEWHERE and value is not None:
            write_value(metadata, names[str(key)], value)
    _write_people(entry, start)


def _write_people(entry: h5py.Group, start: Document) -> None:
    for key, nx_class in (("user", "NXuser"), ("sample", "NXsample")):
        found: Any = start.get(key)
        found = start.get(f"{key}_name") if found in (None, "") else found
        if found in (None, ""):
            continue
        group = entry.create_group(key)
        set_attributes(group, {"NX_class": nx_class})
        fields = found if isinstance(found, Mapping) else {"name": found if isinstance(found, str) else encode(found)}
        names = Names()
        for field, value in fields.items():
            write_value(group, names[str(field)], value)
    proposal = next((start[key] for key in ("proposal", "data_session") if start.get(key) not in (None, "")), None)
    if proposal is not None:
        write_value(entry, "experiment_identifier", proposal if isinstance(proposal, str) else encode(proposal))


def write_tail(entry: h5py.Group, start: Document, stop: Document) -> None:
    """Write what the stop document tells."""
    begin, end = seconds(start.get("time")), seconds(stop.get("time"))
    write_value(entry, "end_time", iso_time(end))
    write_value(entry, "duration", round(end - begin), {"units": "s"})
    run = group_in(entry, "run")
    write_value(run, "duration", end - begin, {"units": "s"})
    write_value(run, "exit_status", str(stop.get("exit_status") or ""))
    write_value(run, "reason", str(stop.get("reason") or ""))
    if is_lost(stop):
        write_value(run, "documents_lost", True)
