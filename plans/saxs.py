"""Small-angle scattering: frames of a camera, with what an NXsas file needs in the metadata."""

from collections.abc import Mapping
from typing import Annotated, Any

import bluesky.plans as bp
from annotated_types import Ge
from bluesky.protocols import Movable, Readable
from bluesky.utils import MsgGenerator

__all__ = ["saxs_count", "saxs_scan"]

_GEOMETRY = ("distance", "x_pixel_size", "y_pixel_size", "beam_center_x", "beam_center_y")


def saxs_count(
    camera: Readable,
    num: Annotated[int, Ge(1)] = 1,
    *,
    source: str = "Synchrotron X-ray Source",
    probe: str = "x-ray",
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take frames one after the other.

    Parameters
    ----------
    camera :
        What takes them; its configuration has distance, pixel sizes, beam centre and wavelength.
    num :
        Number of frames.
    source :
        Kind of source, in the words of NeXus.
    probe :
        x-ray or neutron.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    metadata = {"plan_name": "saxs_count", "techniques": [_technique(camera.name, source, probe)], **(md or {})}
    return (yield from bp.count([camera], num, md=metadata))


def saxs_scan(
    camera: Readable,
    motor: Movable,
    start: float,
    stop: float,
    num: Annotated[int, Ge(1)],
    *,
    source: str = "Synchrotron X-ray Source",
    probe: str = "x-ray",
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Step a motor and take a frame at each point.

    Parameters
    ----------
    camera :
        What takes the frames; its configuration has distance, pixel sizes, beam centre and wavelength.
    motor :
        What is moved.
    start :
        First position, in the motor's units.
    stop :
        Last position, in the motor's units.
    num :
        Number of points, both ends included.
    source :
        Kind of source, in the words of NeXus.
    probe :
        x-ray or neutron.
    md :
        Goes into the start document.

    Returns
    -------
    Uid of the run.
    """
    metadata = {"plan_name": "saxs_scan", "techniques": [_technique(camera.name, source, probe)], **(md or {})}
    return (yield from bp.scan([camera], motor, start, stop, num=num, md=metadata))


def _technique(camera: str, source: str, probe: str) -> Mapping[str, Any]:
    """Give the metadata tree of suitcase-nxsas: where the values of an NXsas file are among the documents."""
    configured = f"#bluesky/descriptors/primary/configuration/{camera}/data/{camera}-"
    detector: dict[str, Any] = {name: f"{configured}{name}" for name in _GEOMETRY}
    return {
        "technique": "SAXS",
        "version": 1,
        "nxsas": {
            "entry": {
                "_attributes": {"NX_class": "NXentry"},
                "instrument": {
                    "_attributes": {"NX_class": "NXinstrument"},
                    "source": {"_attributes": {"NX_class": "NXsource"}, "type": source, "probe": probe},
                    "monochromator": {
                        "_attributes": {"NX_class": "NXmonochromator"},
                        "wavelength": f"{configured}wavelength",
                    },
                    "detector": {
                        "_attributes": {"NX_class": "NXdetector"},
                        "data": f"#bluesky/events/primary/data/{camera}",
                        **detector,
                    },
                },
            },
        },
    }
