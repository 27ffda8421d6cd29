"""Exports the reduced data of a small-angle scattering run, I(Q), as an NXcanSAS file.

Definition: NXcanSAS of the NeXus International Advisory Committee and canSAS,
https://manual.nexusformat.org/classes/applications/NXcanSAS.html
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np

from bec_bluesky.documents import Document
from bec_bluesky.documents import file_prefix as prefix_of
from bec_bluesky.errors import RefusedError, choices
from writers._disk import publish
from writers._nexus_text import Names, encode, iso_time, scan_number, seconds, set_attributes, write_value
from writers._nxcansas_curve import Curve, Frames, Integration, given_curve, integrated_curve
from writers._nxsas_definition import entry_of, member_of, missing, scan_axes
from writers._nxsas_geometry import geometry
from writers._nxsas_tree import merged, technique_trees
from writers.nxsas import Serializer

__all__ = ["export"]

_SOURCE = ("name", "type", "probe", "beam_shape")
_DETECTOR = ("beam_center_x", "beam_center_y", "x_pixel_size", "y_pixel_size")
_SAMPLE = ("name", "thickness", "transmission", "temperature", "x_position", "y_position")


def export(
    gen: Iterable[tuple[str, Document]],
    directory: str | Path,
    file_prefix: str = "{uid}-",
    *,
    frames: Frames = "average",
    reduced: Mapping[str, str] | None = None,
    bins: int | None = None,
    units: str = "1/nm",
    mask: str | Path | None = None,
    polarization: float | None = None,
    tree: Mapping[str, Any] | None = None,
) -> dict[str, list[Path]]:
    """Write I(Q) of one run into `<file_prefix>_iq.h5`; give `{"stream_data": [path]}`.

    What the run has is taken: `reduced`, or `techniques[n]["nxcansas"]` of the start document, names Q, I and Idev by
    data keys of the primary stream or by references as in the tree of NXsas. Otherwise pyFAI integrates the frames with
    the geometry that the run's NXsas file has, into `bins` of Q in `units`, 1/nm or 1/angstrom, without the pixels of
    `mask`. `frames` is "average" for one curve, "each" for one of each frame or event.
    `tree` is that of NXsas, under those of the start document. Raises RefusedError for a run without either, with what
    is missing, PlugInError without pyFAI, and FileExistsError if the name is taken.
    """
    if frames not in get_args(Frames):
        raise RefusedError(f"no frames={frames!r}: {choices(str(frames), get_args(Frames))}", "bad_option")
    how = Integration(bins, units, mask, polarization)
    folder = Path(directory).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nxcansas-", dir=folder) as inside:
        with Serializer(inside, "run", tree=tree) as serializer:
            for name, document in gen:
                serializer(name, dict(document))
        (raw,) = serializer.artifacts["stream_data"]
        start = serializer.first
        target = folder / f"{prefix_of(file_prefix, start).rstrip('-_.') or 'run'}_iq.h5"
        if target.exists():
            raise FileExistsError(f"{target} is there already: it is not overwritten")
        part = Path(inside) / "reduced.h5"
        with h5py.File(raw, "r") as file:
            where = reduced or merged(*technique_trees(start, "nxcansas"))
            curve = given_curve(_group(file["bluesky"]), where, frames) if where else _integrate(raw, file, how, frames)
            with h5py.File(part, "w", libver="earliest") as made:
                _Entry(made, file, start, curve).write(serializer.problems)
        publish(part, target)
    return {"stream_data": [target]}


def _integrate(raw: Path, file: h5py.File, how: Integration, frames: Frames) -> Curve:
    entry = entry_of(file)
    instrument = _group(member_of(entry, "NXinstrument"))
    detector = _group(member_of(instrument, "NXdetector"))
    lacks = list(missing(entry, only=("NXmonochromator", "NXdetector")))
    lacks += [f"{detector.name}/{name} is not given" for name in _DETECTOR[:2] if name not in detector]
    if lacks:
        raise RefusedError(
            "this run names no I(Q) (`reduced`, or `nxcansas` in `techniques` of its start document), and has not what "
            f"the integration of frames needs: {'; '.join(lacks)}",
            "no_curve",
        )
    data = detector["data"]
    assert isinstance(data, h5py.Dataset)
    return integrated_curve(data, geometry(raw), how, frames)


def _group(found: Any) -> h5py.Group:
    assert isinstance(found, h5py.Group)  # the NXsas writer makes them all
    return found


class _Entry:
    """The SASentry of one run."""

    def __init__(self, file: h5py.File, raw: h5py.File, start: Document, curve: Curve) -> None:
        self._file = file
        self._raw = entry_of(raw)
        self._streams = _group(raw["bluesky/events"])
        self._start = start
        self._curve = curve
        self._entry = file.create_group("entry")

    def write(self, problems: list[str]) -> None:
        set_attributes(self._file, {"NX_class": "NXroot", "default": "entry", "creator": "bec-bluesky"})
        classes = {"NX_class": "NXentry", "canSAS_class": "SASentry", "version": "1.1", "default": "data"}
        set_attributes(self._entry, classes)
        write_value(self._entry, "definition", "NXcanSAS", {"version": "1.1"})
        self._copy(self._raw, self._entry, ("title", "start_time", "end_time"))
        number = scan_number(self._start)
        write_value(self._entry, "run", str(number or self._start["uid"]), {"name": self._start.get("plan_name")})
        write_value(self._entry, "entry_identifier", str(self._start["uid"]))
        self._write_data()
        self._write_instrument()
        if (sample := member_of(self._raw, "NXsample")) is not None and "name" in sample:
            self._copy(sample, self._new(self._entry, "sample", "NXsample", "SASsample"), _SAMPLE)
        self._write_process()
        self._write_note("start_document", "application/json", encode(self._start))
        if problems:
            self._write_note("problems", "text/plain", "\n".join(problems))

    def _write_data(self) -> None:
        curve, data = self._curve, self._new(self._entry, "data", "NXdata", "SASdata")
        axes = ["Q"]
        if curve.intensity.ndim == 2:
            axes = [self._write_axis(data, len(curve.intensity)), "Q"]
        write_value(data, "Q", curve.q, {"units": curve.q_units, "long_name": f"Q ({curve.q_units})"})
        write_value(data, "I", curve.intensity, {"units": curve.units, "long_name": f"I ({curve.units})"})
        attributes: dict[str, Any] = {"signal": "I", "axes": axes, "I_axes": ",".join(axes), "Q_indices": len(axes) - 1}
        if curve.deviation is not None:
            write_value(data, "Idev", curve.deviation, {"units": curve.units})
            data["I_errors"] = data["Idev"]  # NeXus' name, by which silx finds them
            if len(axes) == 1:  # of more axes, silx (3.1) takes it to name the errors of each, and shows no plot
                set_attributes(data["I"], {"uncertainties": "Idev"})
        write_value(data, "Mask", np.zeros(curve.intensity.shape, np.int8), {"long_name": "1 where I is not valid"})
        attributes["mask"] = "Mask"  # which the definition wants of every file
        set_attributes(data, attributes | {"timestamp": iso_time(seconds(self._start.get("time")))})

    def _write_axis(self, data: h5py.Group, rows: int) -> str:
        """Write what the curves are of: the scan's motors, else the number of the frame; give the first one's name."""
        names = Names("Q", "I", "Idev")
        found = list(scan_axes(self._start, self._streams, rows))
        for key, column in found:
            write_value(data, names[key], column[()], dict(column.attrs) | {"long_name": key})
            set_attributes(data, {f"{names[key]}_indices": 0})
        if found:
            return names[found[0][0]]
        write_value(data, "frame", np.arange(1, rows + 1))
        set_attributes(data, {"frame_indices": 0})
        return "frame"

    def _write_instrument(self) -> None:
        raw = _group(member_of(self._raw, "NXinstrument"))
        instrument = self._new(self._entry, "instrument", "NXinstrument", "SASinstrument")
        self._copy(raw, instrument, ("name",))
        source = self._new(instrument, "source", "NXsource", "SASsource")
        self._copy(_group(member_of(raw, "NXsource")), source, _SOURCE)
        monochromator = _group(member_of(raw, "NXmonochromator"))
        for name in ("wavelength", "wavelength_spread"):
            self._copy(monochromator, source, (name,), {name: f"incident_{name}"})
        there = _group(member_of(raw, "NXdetector"))
        detector = self._new(instrument, "detector", "NXdetector", "SASdetector")
        self._copy(there, detector, ("name", "distance", *_DETECTOR), {"distance": "SDD"})
        if "name" not in detector:
            write_value(detector, "name", "detector")

    def _write_process(self) -> None:
        curve = self._curve
        process = self._new(self._entry, "process", "NXprocess", "SASprocess")
        facts = {"name": curve.process, "description": curve.description, "program": curve.program}
        for name, value in (facts | {"version": curve.program_version}).items():
            if value:
                write_value(process, name, value)
        write_value(process, "date", iso_time(time.time()))
        for name, (value, units) in curve.terms.items():
            write_value(process, name, str(value), {"units": units})  # terms are texts, by the definition

    def _write_note(self, name: str, kind: str, text: str) -> None:
        note = self._entry.create_group(name)  # pynxtools (0.16) finds no canSAS_class of a SASnote
        set_attributes(note, {"NX_class": "NXnote"})
        write_value(note, "type", kind)
        note["data"] = np.bytes_(text.encode())

    def _new(self, parent: h5py.Group, name: str, nx_class: str, cansas_class: str) -> h5py.Group:
        group = parent.create_group(name)
        set_attributes(group, {"NX_class": nx_class, "canSAS_class": cansas_class})
        return group

    def _copy(
        self, source: h5py.Group, target: h5py.Group, names: Iterable[str], new: Mapping[str, str] | None = None
    ) -> None:
        """Copy values that are there, with their units."""
        for name in names:
            found = source.get(name)
            if isinstance(found, h5py.Dataset):
                value = found.asstr()[()] if h5py.check_string_dtype(found.dtype) else found[()]
                write_value(target, (new or {}).get(name, name), value, {"units": found.attrs.get("units")})
