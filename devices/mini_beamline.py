"""Devices of caproto's `mini_beamline` IOC, over Channel Access."""

from typing import Any

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, PVPositionerPC
from ophyd.status import DeviceStatus

__all__ = ["Axis", "Counter"]


class Axis(PVPositionerPC):
    """A motor that has arrived when the IOC completes the put.

    One record is setpoint and readback. The IOC cannot stop it: a move runs to its end, `stop()` only ends the waiting.
    """

    setpoint = Component(EpicsSignal, "mtr", kind="omitted")
    readback = Component(EpicsSignalRO, "mtr", kind="hinted")
    velocity = Component(EpicsSignal, "vel", kind="config")
    tick_rate = Component(EpicsSignal, "mtr_tick_rate", kind="config")
    """Hz."""

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.readback.name = self.name


class Counter(Device):
    """A detector that counts by itself, twice a second; a trigger waits for the next count."""

    counts = Component(EpicsSignalRO, "det", kind="hinted")
    exposure = Component(EpicsSignal, "exp", kind="config")

    def __init__(self, prefix: str = "", *, name: str, timeout: float = 10.0, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._timeout = timeout
        self.counts.name = self.name

    def trigger(self) -> DeviceStatus:
        """Wait for counts that were taken after this call, however late earlier ones are told.

        Only the IOC's clock decides: counts are new if their time stamp is later than that of those it has now.
        """
        self.counts.get(use_monitor=False)
        present = self.counts.timestamp
        status = DeviceStatus(self, timeout=self._timeout)

        def counted(*_: Any, timestamp: float, **__: Any) -> None:
            if timestamp > present and not status.done:
                status.set_finished()

        def end(_: Any) -> None:
            self.counts.clear_sub(counted)

        status.add_callback(end)
        self.counts.subscribe(counted, run=False)
        return status
