"""What the application definition NXsas asks of a file, filled in from the run and checked.

Definition: NXsas of the NeXus International Advisory Committee, https://manual.nexusformat.org/classes/applications/NXsas.html
"""

from collections.abc import Collection, Iterator
from typing import Any

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_text import Names, iso_time, set_attributes, write_value

__all__ = ["complete", "entry_of", "member_of", "missing", "scan_axes"]

_FLOATS = {
    "NXmonochromator": ("wavelength", "wavelength_spread"),
    "NXdetector": ("distance", "x_pixel_size", "y_pixel_size", "beam_center_x", "beam_center_y"),
}
_REQUIRED = {
    "NXsource": ("type", "probe"),
    "NXmonochromator": ("wavelength",),
    "NXdetector": ("data", "distance", "x_pixel_size", "y_pixel_size"),
}
_NAMES = {"NXsource": "source", "NXmonochromator": "monochromator", "NXdetector": "detector"}


def entry_of(file: h5py.File) -> h5py.Group:
    """Give the file's first NXentry, which is made if there is none."""
    return _group_of(file, "NXentry", "entry")


def complete(file: h5py.File, start: Document, stop: Document, streams: h5py.Group) -> None:
    """Add what the tree did not say and the run knows: definition, times, names, the frames, the plot."""
    entry = entry_of(file)
    set_attributes(
        file, {"NX_class": "NXroot", "default": str(entry.name).rpartition("/")[2], "creator": "bec-bluesky"}
    )
    _replace(entry, "definition", "NXsas")
    title = f"{start.get('scan_id', '')} {start.get('plan_name') or 'run'}".strip()
    _unless_there(entry, "title", str(start.get("title") or title))
    for name, document in (("start_time", start), ("end_time", stop)):
        if not _is_text(entry.get(name)):  # trees of suitcase-nxsas link to seconds, which NXsas does not allow
            _replace(entry, name, iso_time(float(document["time"])))
    instrument = _group_of(entry, "NXinstrument", "instrument")
    place = next((start[key] for key in ("beamline", "beamline_id", "instrument") if start.get(key)), None)
    if isinstance(place, str):
        _unless_there(instrument, "name", place)
    sample = start.get("sample") or start.get("sample_name")
    named = sample.get("name") if isinstance(sample, dict) else sample
    if isinstance(named, str):
        _unless_there(_group_of(entry, "NXsample", "sample"), "name", named)
    for nx_class, names in _FLOATS.items():
        for name in names:
            _as_float(_group_of(instrument, nx_class, _NAMES[nx_class]), name)
    _add_plot(entry, instrument, start, streams)


def missing(entry: h5py.Group, only: Collection[str] = ()) -> Iterator[str]:
    """Say what NXsas requires and the file has not; `only` in groups of these classes, if any are named."""
    instrument = _group_of(entry, "NXinstrument", "instrument")
    if "name" not in instrument and not only:
        yield f"NXsas requires {instrument.name}/name, which neither the tree nor the metadata (beamline) give"
    for nx_class, names in _REQUIRED.items():
        if only and nx_class not in only:
            continue
        group = _group_of(instrument, nx_class, _NAMES[nx_class])
        for name in names:
            if name not in group:
                yield f"NXsas requires {group.name}/{name}, which the tree does not give"


def _add_plot(entry: h5py.Group, instrument: h5py.Group, start: Document, streams: h5py.Group) -> None:
    """Give the detector its frames, if the tree gave none, and plot them along the scan."""
    detector = _group_of(instrument, "NXdetector", "detector")
    found = next(_frames(streams), None)
    if "data" not in detector and found is not None:
        detector["data"] = found
    plot = _group_of(entry, "NXdata", "data")
    entry.attrs["default"] = str(plot.name).rpartition("/")[2]
    if "data" not in detector:
        return
    if "data" in plot:
        del plot["data"]
    plot["data"] = h5py.SoftLink(f"{detector.name}/data")
    set_attributes(plot, {"signal": "data"})
    if isinstance(detector.get("data", getlink=True), h5py.ExternalLink):  # to a file that is not there
        return
    frames: Any = detector["data"]
    frames.attrs["target"] = f"{detector.name}/data"  # by which readers know that the other one is a link
    if frames.ndim != 3:
        return
    axes, names = list(scan_axes(start, streams, len(frames))), Names("data")
    for key, column in axes:
        plot[names[key]] = column
        plot.attrs[f"{names[key]}_indices"] = 0
    if axes:
        set_attributes(plot, {"axes": [names[axes[0][0]], ".", "."]})


def _frames(streams: h5py.Group) -> Iterator[h5py.Dataset]:
    """Give the columns that hold images, those of the primary stream first."""
    for stream in sorted(streams, key=lambda name: name != "primary"):
        data: Any = streams[stream]["data"]  # pyright: ignore[reportIndexIssue]  # groups, made by ourselves
        for name in data:
            if isinstance(data.get(name, getlink=True), h5py.ExternalLink):
                continue
            if data[name].ndim >= 3 and data[name].dtype.kind in "biuf":
                yield data[name]


def scan_axes(start: Document, streams: h5py.Group, rows: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """Give the scanned motors that have as many values as there are rows."""
    for fields, stream in (start.get("hints") or {}).get("dimensions") or ():
        for key in fields:
            column = streams.get(f"{Names()[str(stream)]}/data/{Names()[str(key)]}")
            if isinstance(column, h5py.Dataset) and column.shape == (rows,) and column.dtype.kind in "iuf":
                yield str(key), column


def member_of(parent: h5py.Group, nx_class: str) -> h5py.Group | None:
    """Give the first group of a class."""
    for member in parent.values():
        if isinstance(member, h5py.Group) and member.attrs.get("NX_class") == nx_class:
            return member
    return None


def _group_of(parent: h5py.Group, nx_class: str, name: str) -> h5py.Group:
    if (found := member_of(parent, nx_class)) is None:
        found = parent.require_group(name)
        found.attrs["NX_class"] = nx_class
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, h5py.Dataset) and h5py.check_string_dtype(value.dtype) is not None


def _unless_there(group: h5py.Group, name: str, value: str) -> None:
    if group.get(name) is None:
        write_value(group, name, value)


def _replace(group: h5py.Group, name: str, value: Any, attributes: dict[str, Any] | None = None) -> None:
    if name in group:
        del group[name]
    write_value(group, name, value, attributes)


def _as_float(group: h5py.Group, name: str) -> None:
    """Make a number of what the definition wants as one: integers are copied as such."""
    found = group.get(name)
    if isinstance(found, h5py.Dataset) and found.dtype.kind in "iub":
        _replace(group, name, np.asarray(found[()], dtype=np.float64), dict(found.attrs))
