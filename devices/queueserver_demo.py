"""Devices that bluesky-queueserver's tutorials and clients expect by name, where those of ophyd.sim do not do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ophyd import Component, Device
from ophyd.sim import DirectImage, InvariantSignal, SynAxis, SynGauss
from ophyd.status import AndStatus

__all__ = ["Bundle", "Invariant", "JitteryAxis", "PlainImage"]


class JitteryAxis(SynAxis):
    """A motor whose readback is up to 1 beside where it was sent."""

    def __init__(self, *, name: str, **kwargs: Any) -> None:
        random = np.random.default_rng()
        super().__init__(name=name, readback_func=lambda position: position + random.random(), **kwargs)


class PlainImage(DirectImage):
    """A small image of ones, in the event itself."""

    def __init__(self, *, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, func=lambda: np.ones((10, 10)), **kwargs)
        self.img.name = f"{name}_img"


class Invariant(InvariantSignal):
    """Always 0."""

    def __init__(self, *, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, func=lambda: 0, **kwargs)


class Stage(Device):
    """Three axes that also move together."""

    x = Component(SynAxis, labels={"motors"})
    y = Component(SynAxis, labels={"motors"})
    z = Component(SynAxis, labels={"motors"})

    def set(self, position: Sequence[float]) -> Any:
        """Move to (x, y, z)."""
        x, y, z = position
        return AndStatus(AndStatus(self.x.set(x), self.y.set(y)), self.z.set(z))


class Peak(SynGauss):
    """A detector that sees a peak along an axis of its bundle's stage."""

    def __init__(self, *, axis: str, name: str, **kwargs: Any) -> None:
        self._axis = axis
        super().__init__(name, None, "", 0, 5, sigma=0.5, **kwargs)

    def _compute(self) -> float:
        position = getattr(self.root.mtrs, self._axis).position
        parts: tuple[Any, ...] = (self.center, self.Imax, self.sigma)
        center, height, sigma = (part.get() for part in parts)
        return float(height * np.exp(-((position - center) ** 2) / (2 * sigma**2)))


class Detectors(Device):
    """Two detectors."""

    det_A = Component(Peak, axis="x", labels={"detectors"})
    det_B = Component(Peak, axis="y", labels={"detectors"})


class Bundle(Device):
    """A stage, and detectors that see where it is."""

    mtrs = Component(Stage)
    dets = Component(Detectors)
