"""The geometry that an NXsas file tells."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py

from bec_bluesky.errors import SettingsError

__all__ = ["geometry"]

_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "nm": 1e-9, "angstrom": 1e-10}


def geometry(path: str | Path) -> dict[str, Any]:
    """Read the geometry of an NXsas file as pyFAI's PONI: `pyFAI.load(geometry("run.h5"))`; lengths are in metres.

    The detector stands at right angles to the beam. Raises KeyError for a file that lacks what NXsas requires.
    """
    with h5py.File(path, "r") as file:
        entry = file[str(file.attrs["default"])]
        assert isinstance(entry, h5py.Group)
        by_class = {group.attrs.get("NX_class"): group for group in _groups(entry)}
        detector, monochromator = by_class["NXdetector"], by_class["NXmonochromator"]
        pixel1, pixel2 = _metres(detector, "y_pixel_size"), _metres(detector, "x_pixel_size")
        shape: Any = detector["data"].shape  # pyright: ignore[reportAttributeAccessIssue]  # a dataset, by definition
        return {
            "poni_version": 2,
            "detector": "Detector",
            "detector_config": {"pixel1": pixel1, "pixel2": pixel2, "max_shape": list(shape[-2:])},
            "dist": _metres(detector, "distance"),
            "poni1": _metres(detector, "beam_center_y") if "beam_center_y" in detector else 0.0,
            "poni2": _metres(detector, "beam_center_x") if "beam_center_x" in detector else 0.0,
            "rot1": 0.0,
            "rot2": 0.0,
            "rot3": 0.0,
            "wavelength": _metres(monochromator, "wavelength"),
        }


def _groups(parent: h5py.Group) -> Iterable[h5py.Group]:
    for member in parent.values():
        if isinstance(member, h5py.Group):
            yield member
            yield from _groups(member)


def _metres(group: h5py.Group, name: str) -> float:
    dataset: Any = group[name]
    units = str(dataset.attrs.get("units", "m"))
    if units not in _METRES and units.lower() not in _METRES:
        raise SettingsError(f"{dataset.name} is in {units!r}, which is no length that is known here: {list(_METRES)}")
    value = dataset[()]
    return float(value if dataset.shape == () else value.flat[0]) * _METRES.get(units, _METRES.get(units.lower(), 1.0))
