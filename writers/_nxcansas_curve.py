"""I(Q) of a run: as its documents have it, or by azimuthal integration of its frames with pyFAI."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from bec_bluesky.errors import PlugInError, RefusedError, choices
from writers._nxsas_tree import find

__all__ = ["Curve", "Frames", "Integration", "given_curve", "integrated_curve"]

Frames = Literal["average", "each"]
"""One curve of the run, or one of each frame."""

_Q_UNITS = {"1/nm": "q_nm^-1", "1/angstrom": "q_A^-1"}
_SPELLED = {
    "1/nm": ("nm^-1", "nm-1", "1/nanometer"),
    "1/angstrom": ("a^-1", "a-1", "1/a", "å^-1", "1/å", "angstrom^-1"),
    "1/m": ("m^-1", "m-1"),
    "1/cm": ("cm^-1", "cm-1"),
    "m2/g": ("m^2/g",),
    "cm2/g": ("cm^2/g",),
}
_OF_Q = ("1/nm", "1/angstrom", "1/m")
_OF_I = ("1/m", "1/cm", "m2/g", "cm2/g")


@dataclass(frozen=True)
class Curve:
    """Reduced data and how they came about."""

    q: np.ndarray
    intensity: np.ndarray
    """Of the shape of `q`, or (frames, Q)."""
    deviation: np.ndarray | None
    """Standard deviation of `intensity`."""
    q_units: str
    units: str
    process: str
    description: str
    program: str = "bec-bluesky"
    program_version: str = ""
    terms: Mapping[str, tuple[Any, str | None]] = field(default_factory=dict[str, tuple[Any, str | None]])
    """{name: (value, units)} of what the process depended on."""


@dataclass(frozen=True)
class Integration:
    """How frames are integrated."""

    bins: int | None = None
    """Of Q; as many as there are pixels from the beam to the farthest corner, if None."""
    units: str = "1/nm"
    mask: str | Path | None = None
    """An image of the shape of a frame (.npy, or what fabio reads) in which what is not 0 is left out."""
    polarization: float | None = None
    """Factor between -1 (vertical) and 1 (horizontal); no correction if None."""

    def __post_init__(self) -> None:
        """Raise RefusedError for what makes no sense."""
        for name, kind in (("bins", int), ("polarization", int | float)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise RefusedError(f"{name} is a number, not {value!r}", "bad_option")
        if self.units not in _Q_UNITS:
            raise RefusedError(f"no units {self.units!r} of Q: {choices(self.units, _Q_UNITS)}", "bad_option")
        if self.bins is not None and not 1 <= self.bins <= 1_000_000:
            raise RefusedError(f"{self.bins} bins make no curve: say from 1 to a million", "bad_option")
        if self.polarization is not None and not -1 <= self.polarization <= 1:
            raise RefusedError(f"a factor of polarization lies between -1 and 1, not {self.polarization}", "bad_option")


def given_curve(bluesky: h5py.Group, where: Mapping[str, str], frames: Frames) -> Curve:
    """Take I(Q) that a run has: `where` names Q, I and perhaps Idev, by data keys or `#bluesky/…` references.

    I and Idev have a row for each event; Q, too, with the same values in all of them, or is one row by itself. The
    average over the events has Idev by propagation.
    """
    unknown = set(where) - {"Q", "I", "Idev"}
    if unknown or not {"Q", "I"} <= set(where):
        raise RefusedError(f"reduced data are named by Q, I and Idev, not by {', '.join(where)}", "bad_option")
    found = {name: _dataset(bluesky, name, place) for name, place in where.items()}
    q, intensity = (np.asarray(found[name][()], dtype=np.float64) for name in ("Q", "I"))
    deviation = np.asarray(found["Idev"][()], dtype=np.float64) if "Idev" in found else None
    if q.ndim == 2 and len(q) and np.array_equal(q, np.broadcast_to(q[0], q.shape)):
        q = q[0]
    is_fit = q.ndim == 1 and intensity.ndim in (1, 2) and intensity.shape[-1:] == q.shape and intensity.size
    if not is_fit or (deviation is not None and deviation.shape != intensity.shape):
        shapes = ", ".join(f"{name} {each.shape}" for name, each in found.items())
        raise RefusedError(f"these are no curves over one Q for all points: {shapes}", "no_curve")
    if intensity.ndim == 2 and frames == "average":
        number = len(intensity)
        intensity = intensity.mean(axis=0)
        deviation = None if deviation is None else np.sqrt((deviation**2).sum(axis=0)) / number
    return Curve(
        q,
        intensity,
        deviation,
        _units(found["Q"], _OF_Q),
        _units(found["I"], _OF_I, default="arbitrary"),
        process="reduction before or during the run",
        description=f"I(Q) was in the run's documents, as {', '.join(map(str, where.values()))}",
    )


def integrated_curve(data: h5py.Dataset, poni: Mapping[str, Any], how: Integration, frames: Frames) -> Curve:
    """Integrate frames (…, y, x) azimuthally with pyFAI; `poni` is the geometry.

    Each pixel goes into one bin of Q, divided by its solid angle. Idev is that of Poisson's distribution of the counts:
    sqrt(counts) of each pixel, propagated. Pixels without a valid number in any frame are left out of all: negative,
    the largest of their unsigned type (as Dectris marks gaps), or not finite.
    """
    integrator, version = _integrator(poni)
    shape = data.shape[-2:]
    total, mask = np.zeros(shape), _mask(how.mask, shape)
    number = 0
    for frame in _each_frame(data):
        mask |= _is_invalid(frame)
        total += np.where(mask, 0, frame)
        number += 1
    if not number or mask.all():
        raise RefusedError("there is no frame with a valid pixel to integrate", "no_curve")
    bins = how.bins or _radius(poni, shape)
    options = {"mask": mask, "unit": _Q_UNITS[how.units], "polarization_factor": how.polarization}

    def curve(frame: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, ...]:
        made = integrator.integrate1d(frame, bins, variance=variance, method=("no", "csr", "cython"), **options)
        is_there = made.count > 0
        return (
            made.radial[is_there],
            made.intensity[is_there],
            np.sqrt(made.sum_variance[is_there]) / made.sum_normalization[is_there],
        )

    if frames == "average":
        q, intensity, deviation = curve(total / number, total / number**2)
    else:
        curves = [curve(valid, valid) for frame in _each_frame(data) for valid in (np.where(mask, 0.0, frame),)]
        q = curves[0][0]
        intensity, deviation = (np.stack([each[part] for each in curves]) for part in (1, 2))
    return Curve(
        q,
        intensity,
        deviation,
        how.units,
        "arbitrary",
        process="azimuthal integration",
        description="mean of the counts of the pixels in each bin of Q, by solid angle, "
        + ("averaged over the frames of the run" if frames == "average" else "for each frame")
        + "; Idev is its standard deviation if counts follow Poisson's distribution. No background is subtracted, "
        "nothing is divided by transmission, monitor or exposure time.",
        program="pyFAI",
        program_version=version,
        terms=_terms(poni, how, frames=number, bins=bins, masked_pixels=int(mask.sum())),
    )


def _terms(poni: Mapping[str, Any], how: Integration, **counts: int) -> dict[str, tuple[Any, str | None]]:
    lengths = {name: poni[name] for name in ("dist", "poni1", "poni2", "wavelength")}
    lengths |= {name: poni["detector_config"][name] for name in ("pixel1", "pixel2")}
    angles = {name: poni[name] for name in ("rot1", "rot2", "rot3")}
    return {
        **{name: (float(value), "m") for name, value in lengths.items()},
        **{name: (float(value), "rad") for name, value in angles.items()},
        **{name: (value, None) for name, value in counts.items()},
        "polarization_factor": ("none" if how.polarization is None else how.polarization, None),
        "solid_angle_correction": ("yes", None),
        "error_model": ("poisson", None),
        "mask": ("none" if how.mask is None else str(how.mask), None),
    }


def _integrator(poni: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        import pyFAI
    except ImportError as error:
        raise PlugInError("the integration of frames needs pyFAI: `pip install 'bec-bluesky[saxs]'`") from error
    return pyFAI.load(dict(poni)), str(pyFAI.version)


def _each_frame(data: h5py.Dataset) -> Iterator[np.ndarray]:
    """Give one frame after the other, since a run may have more than memory holds."""
    if data.ndim == 2:
        yield data[()]
        return
    for place in np.ndindex(data.shape[:-2]):
        yield data[place]


def _is_invalid(frame: np.ndarray) -> np.ndarray:
    if frame.dtype.kind == "f":
        return ~np.isfinite(frame) | (frame < 0)
    if frame.dtype.kind == "u":
        return frame == np.iinfo(frame.dtype).max if frame.dtype.itemsize > 1 else np.zeros(frame.shape, bool)
    return frame < 0


def _mask(path: str | Path | None, shape: tuple[int, ...]) -> np.ndarray:
    if path is None:
        return np.zeros(shape, bool)
    path = Path(path).expanduser()
    try:
        if path.suffix == ".npy":
            mask = np.load(path)
        else:
            import fabio  # pyFAI brings it

            with fabio.open(path) as image:
                mask = np.array(image.data)
    except (OSError, ValueError) as error:
        raise RefusedError(f"the mask {path} cannot be read: {error}", "bad_option") from error
    if mask.shape != shape:
        raise RefusedError(f"the mask {path} is {mask.shape}, and the frames are {shape}", "bad_option")
    return mask != 0


def _radius(poni: Mapping[str, Any], shape: tuple[int, ...]) -> int:
    """Give the pixels from the beam to the farthest corner."""
    sizes = poni["detector_config"]["pixel1"], poni["detector_config"]["pixel2"]
    beam = [poni[name] / size for name, size in zip(("poni1", "poni2"), sizes, strict=True)]
    sides = [max(abs(at), abs(length - at)) for at, length in zip(beam, shape, strict=True)]
    return max(1, round(float(np.hypot(*sides))))


def _dataset(bluesky: h5py.Group, name: str, place: str) -> h5py.Dataset:
    path = place.removeprefix("#bluesky/") if str(place).startswith("#") else f"events/primary/data/{place}"
    found = find(bluesky, path)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf":
        raise RefusedError(f"{name} = {place!r} names no numbers in this run", "no_curve")
    return found


def _units(dataset: h5py.Dataset, known: tuple[str, ...], default: str = "") -> str:
    """Give units in NXcanSAS' words; `default` for others, or RefusedError if there is none."""
    said = str(dataset.attrs.get("units", ""))
    for units in known:
        if said.lower().replace(" ", "") in (units, *_SPELLED[units]):
            return units
    if default:
        return default
    raise RefusedError(f"Q is in {said!r}, which is none of {', '.join(known)}: say so in its data key", "no_curve")
