"""Simulated devices where those of ophyd.sim and ophyd_async.sim do not go far enough."""

import asyncio
from typing import Literal

import numpy as np
from bluesky.protocols import Reading
from ophyd_async.core import (
    DEFAULT_TIMEOUT,
    AsyncStatus,
    LazyMock,
    StandardReadable,
    StrictEnum,
    soft_signal_r_and_setter,
    soft_signal_rw,
)
from ophyd_async.core import StandardReadableFormat as Format
from ophyd_async.sim import PatternGenerator, SimMotor

__all__ = ["BeamPositionMonitor", "PatternMotor", "ShutterState"]


class ShutterState(StrictEnum):
    """Where a shutter is."""

    CLOSED = "closed"
    OPEN = "open"


class PatternMotor(SimMotor):
    """A sample axis that the simulated detectors of the same pattern see move."""

    def __init__(self, pattern_generator: PatternGenerator, axis: Literal["x", "y"], name: str = "") -> None:
        self._tell = pattern_generator.set_x if axis == "x" else pattern_generator.set_y
        self._is_followed = False
        super().__init__(name=name, instant=False)

    async def connect(
        self, mock: bool | LazyMock = False, timeout: float = DEFAULT_TIMEOUT, force_reconnect: bool = False
    ) -> None:
        """Connect, and tell the pattern from now on where this axis is."""
        await super().connect(mock, timeout, force_reconnect)
        if not self._is_followed:
            self._is_followed = True
            self.user_readback.subscribe_reading(self._moved)

    def _moved(self, readings: dict[str, Reading[float]]) -> None:
        for reading in readings.values():
            self._tell(reading["value"])


class BeamPositionMonitor(StandardReadable):
    """Position (mm) and intensity (nA) of a beam that drifts slowly and jitters at each trigger."""

    def __init__(self, period: float = 60.0, drift: float = 0.05, noise: float = 0.002, name: str = "") -> None:
        self._period = period
        self._drift = drift
        self._noise = noise
        self._random = np.random.default_rng()
        with self.add_children_as_readables(Format.HINTED_SIGNAL):
            self.x, self._set_x = soft_signal_r_and_setter(float, 0.0, units="mm", precision=4)
            self.y, self._set_y = soft_signal_r_and_setter(float, 0.0, units="mm", precision=4)
            self.intensity, self._set_intensity = soft_signal_r_and_setter(float, 100.0, units="nA", precision=2)
        with self.add_children_as_readables(Format.CONFIG_SIGNAL):
            self.integration_time = soft_signal_rw(float, 0.01, units="s")
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Integrate for the integration time, then show where the beam is."""
        await asyncio.sleep(await self.integration_time.get_value())
        phase = 2 * np.pi * asyncio.get_running_loop().time() / self._period
        jitter = self._random.normal(0.0, self._noise, 2)
        self._set_x(float(self._drift * np.sin(phase) + jitter[0]))
        self._set_y(float(self._drift * np.cos(phase) + jitter[1]))
        self._set_intensity(float(self._random.normal(100.0, 0.5)))
