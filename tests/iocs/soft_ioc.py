"""A soft IOC of ours (pythonSoftIOC: EPICS base, Channel Access and PV Access): `python soft_ioc.py PREFIX`.

| PV | what |
|---|---|
| `M1`, `M1:RBV`, `M1:DMOV`, `M1:VELO`, `M1:STOP` | a motor whose put completes when it has arrived; from -10 to 10 mm |
| `DET` | a peak over `M1`: 100 counts at 0, σ 1 mm |
| `QUIET` | the same, but its monitors keep silent (a dead band of 1e6): only a get sees it change |
| `CH1` … `CH3` | `M1` times 1, 2, 3 |
| `WF` | 100 points of a sine whose amplitude is `M1` |
| `COUNT` | counts up, ten times a second |
| `MODE`, `NAME` | an enumeration (slow, fast, off) and a string |
"""

import asyncio
import math
import sys

import numpy as np
from softioc import asyncio_dispatcher, builder, softioc

_STEP = 0.02
"""Seconds."""


class Axis:
    """Moves at a velocity, with everything that depends on where it is."""

    def __init__(self) -> None:
        self._readback = builder.aIn("M1:RBV", EGU="mm", PREC=3, initial_value=0.0)
        self._done = builder.boolIn("M1:DMOV", ZNAM="moving", ONAM="done", initial_value=True)
        self._velocity = builder.aOut("M1:VELO", EGU="mm/s", PREC=2, DRVL=0.01, DRVH=1000.0, initial_value=50.0)
        self._stop = builder.boolOut("M1:STOP", initial_value=False, always_update=True)
        builder.aOut(
            "M1",
            EGU="mm",
            PREC=3,
            DRVL=-10.0,
            DRVH=10.0,
            LOPR=-10.0,
            HOPR=10.0,
            initial_value=0.0,
            always_update=True,
            blocking=True,
            on_update=self._move,
        )
        self._peak = builder.aIn("DET", EGU="counts", PREC=1, initial_value=100.0)
        self._quiet = builder.aIn("QUIET", EGU="counts", PREC=1, MDEL=1e6, initial_value=100.0)
        self._channels = [builder.aIn(f"CH{number}", PREC=3, initial_value=0.0) for number in (1, 2, 3)]
        self._wave = builder.WaveformIn("WF", initial_value=np.zeros(100))

    async def _move(self, target: float) -> None:
        self._stop.set(False)
        self._done.set(False)
        position = self._readback.get()
        while position != target and not self._stop.get():
            step = self._velocity.get() * _STEP
            position = target if abs(target - position) <= step else position + math.copysign(step, target - position)
            await asyncio.sleep(_STEP)
            self._be_at(position)
        self._done.set(True)

    def _be_at(self, position: float) -> None:
        counts = 100.0 * math.exp(-(position**2) / 2)
        self._peak.set(counts)
        self._quiet.set(counts)
        for number, channel in enumerate(self._channels, start=1):
            channel.set(number * position)
        self._wave.set(position * np.sin(np.linspace(0, 2 * np.pi, 100)))
        self._readback.set(position)


def run(prefix: str) -> None:
    """Serve the PVs until the process is ended."""
    dispatcher = asyncio_dispatcher.AsyncioDispatcher()
    builder.SetDeviceName(prefix.rstrip(":"))
    Axis()
    count = builder.longIn("COUNT", initial_value=0)
    builder.mbbOut("MODE", "slow", "fast", "off", initial_value=0)
    builder.stringOut("NAME", initial_value="copper")
    builder.LoadDatabase()
    softioc.iocInit(dispatcher)

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.1)
            count.set(count.get() + 1)

    asyncio.run_coroutine_threadsafe(tick(), dispatcher.loop).result()


if __name__ == "__main__":
    run(sys.argv[1])
