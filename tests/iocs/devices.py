"""Device classes for the IOCs, of ophyd and of ophyd-async, as a beamline would write them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated as A

import numpy as np
from ophyd import Component, Device, EpicsMotor, EpicsSignal, EpicsSignalRO, PVPositionerPC
from ophyd_async.core import (
    Array1D,
    DeviceVector,
    MovableLogic,
    SignalR,
    SignalRW,
    StandardMovable,
    StandardReadable,
    StrictEnum,
    TimeoutCalculator,
)
from ophyd_async.core import StandardReadableFormat as Format
from ophyd_async.epics.core import EpicsDevice, PvSuffix, epics_signal_r


class XYStage(Device):
    """Two motor records."""

    x = Component(EpicsMotor, "mtr1")
    y = Component(EpicsMotor, "mtr2")


class Axis(PVPositionerPC):
    """The axis of the soft IOC, of ophyd: it has arrived when the put completes."""

    setpoint = Component(EpicsSignal, "", limits=True, kind="normal")
    readback = Component(EpicsSignalRO, ":RBV", kind="hinted")
    velocity = Component(EpicsSignal, ":VELO", kind="config")
    stop_signal = Component(EpicsSignal, ":STOP", kind="omitted")
    stop_value = 1


@dataclass
class _AxisLogic(MovableLogic[float]):
    stop_: SignalRW[bool]

    async def stop(self) -> None:
        await self.stop_.set(True)

    async def move(self, new_position: float, timeout: TimeoutCalculator) -> None:
        """Move; the put completes on arrival."""
        await self.setpoint.set(new_position, timeout=timeout())


class AsyncAxis(EpicsDevice, StandardReadable, StandardMovable[float]):
    """The axis of the soft IOC, of ophyd-async: it has arrived when the put completes."""

    readback: A[SignalR[float], PvSuffix(":RBV"), Format.HINTED_SIGNAL]
    velocity: A[SignalRW[float], PvSuffix(":VELO"), Format.CONFIG_SIGNAL]
    setpoint: A[SignalRW[float], PvSuffix("")]
    stop_: A[SignalRW[bool], PvSuffix(":STOP")]

    @cached_property
    def movable_logic(self) -> MovableLogic[float]:
        return _AxisLogic(readback=self.readback, setpoint=self.setpoint, stop_=self.stop_)


class Mode(StrictEnum):
    """How the soft IOC's beamline works."""

    SLOW = "slow"
    FAST = "fast"
    OFF = "off"


class Station(EpicsDevice, StandardReadable):
    """What the soft IOC measures: peak, quiet peak, numbered channels, wave; mode and sample as configuration."""

    peak: A[SignalR[float], PvSuffix("DET"), Format.HINTED_SIGNAL]
    quiet: A[SignalR[float], PvSuffix("QUIET"), Format.HINTED_SIGNAL]
    wave: A[SignalR[Array1D[np.float64]], PvSuffix("WF"), Format.UNCACHED_SIGNAL]
    mode: A[SignalRW[Mode], PvSuffix("MODE"), Format.CONFIG_SIGNAL]
    sample: A[SignalRW[str], PvSuffix("NAME"), Format.CONFIG_SIGNAL]

    def __init__(self, prefix: str, name: str = "") -> None:
        with self.add_children_as_readables():
            self.channels = DeviceVector({number: epics_signal_r(float, f"{prefix}CH{number}") for number in (1, 2, 3)})
        super().__init__(prefix=prefix, name=name)
