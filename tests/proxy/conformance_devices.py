"""Deterministic devices, built in process and, from a device file, in a device server: the very same factories."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ophyd import Component, Device, PseudoPositioner, PseudoSingle, Signal, SoftPositioner
from ophyd.pseudopos import pseudo_position_argument, real_position_argument
from ophyd.sim import MockFlyer, SynAxis, SynGauss
from ophyd.status import DeviceStatus
from ophyd_async.core import (
    DeviceVector,
    StandardReadable,
    StaticFilenameProvider,
    StaticPathProvider,
    StrictEnum,
    soft_signal_rw,
)
from ophyd_async.sim import SimBlobDetector, SimMotor

from devices.burst import Burst
from tests.conformance import faulty


class Mode(StrictEnum):
    """Values of the soft enumeration signal."""

    SLOW = "slow"
    FAST = "fast"


class BrokenDetector(Device):
    """Reads well, fails when it is triggered."""

    value = Component(Signal, value=1.0, kind="hinted")

    def trigger(self) -> DeviceStatus:
        status = DeviceStatus(self)
        status.set_exception(RuntimeError("the shutter is stuck"))
        return status


class RefusingDetector(Device):
    """Raises in `trigger` itself."""

    value = Component(Signal, value=1.0, kind="hinted")

    def trigger(self) -> DeviceStatus:
        raise LookupError("no such filter")


class UnreadableDetector(Device):
    """Is triggered well, but cannot be read."""

    value = Component(Signal, value=1.0, kind="hinted")

    def trigger(self) -> DeviceStatus:
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def read(self) -> Any:
        raise ConnectionError("the cable is out")


class Counter(Device):
    """Tells how often it was triggered."""

    value = Component(Signal, value=0, kind="hinted")

    def trigger(self) -> DeviceStatus:
        self.value.put(self.value.get() + 1)
        status = DeviceStatus(self)
        status.set_finished()
        return status


class Bank(StandardReadable):
    """Numbered parts."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.parts = DeviceVector({number: soft_signal_rw(float, float(number)) for number in (1, 2)})
        super().__init__(name=name)


class Creeping(SoftPositioner):
    """Creeps on, and never arrives: a move ends when it is stopped, or by its timeout."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, egu="mm")
        self._position = 0.0  # an `init_pos` would be moved to
        self._stopped = threading.Event()

    def _setup_move(self, position: Any, status: Any) -> None:
        self._stopped = stopped = threading.Event()
        self._run_subs(sub_type=self.SUB_START)
        self._started_moving = self._moving = True

        def creep() -> None:
            while not stopped.wait(0.02):
                self._set_position(self.position + (position - self.position) / 1000)

        threading.Thread(target=creep, name=f"{self.name} creeps", daemon=True).start()

    def stop(self, *, success: bool = False) -> None:
        self._stopped.set()
        super().stop(success=success)


class Turned(PseudoPositioner):
    """Two axes at 45 degrees to two real ones."""

    along = Component(PseudoSingle, limits=(-10, 10))
    across = Component(PseudoSingle, limits=(-10, 10))
    left = Component(SoftPositioner, init_pos=0.0)
    right = Component(SoftPositioner, init_pos=0.0)

    @pseudo_position_argument
    def forward(self, position: Any) -> Any:
        return self.RealPosition(left=position.along - position.across, right=position.along + position.across)

    @real_position_argument
    def inverse(self, position: Any) -> Any:
        return self.PseudoPosition(
            along=(position.left + position.right) / 2, across=(position.right - position.left) / 2
        )


def limited(name: str) -> SoftPositioner:
    return SoftPositioner(name=name, limits=(-2, 2), init_pos=0, egu="mm")


def blob(name: str, directory: str) -> SimBlobDetector:
    Path(directory).mkdir(parents=True, exist_ok=True)
    return SimBlobDetector(StaticPathProvider(StaticFilenameProvider("blob"), Path(directory)), name=name)


def slow_motor(name: str) -> SimMotor:
    return SimMotor(name=name, instant=False)


def plain_signal(name: str) -> Signal:
    return Signal(name=name, value=1.0)


def float_signal(name: str) -> Any:
    return soft_signal_rw(float, 1.5, name=name, units="K", precision=2)


def mode_signal(name: str) -> Any:
    return soft_signal_rw(Mode, Mode.SLOW, name=name)


def gauss(name: str, motor: Any, field: str) -> SynGauss:
    return SynGauss(name, motor, field, center=0.0, Imax=10.0, sigma=1.0)


def flyer(name: str, detector: Any, motor: Any) -> MockFlyer:
    return MockFlyer(name, detector, motor, -1, 1, 5)


def burst(name: str, motor: Any, slow: Any, temperature: Any, det: Any, counter: Any, broken: Any) -> Burst:
    return Burst([motor, slow, temperature], [det, counter, broken, temperature], most_points=40, name=name)


TABLE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "motor": (SynAxis, {}),
    "motor2": (SynAxis, {}),
    "det": (gauss, {"motor": "$motor", "field": "motor"}),
    "det2": (gauss, {"motor": "$motor2", "field": "motor2"}),
    "limited": (limited, {}),
    "sig": (plain_signal, {}),
    "broken": (BrokenDetector, {}),
    "refusing": (RefusingDetector, {}),
    "unreadable": (UnreadableDetector, {}),
    "counter": (Counter, {}),
    "sim_x": (SimMotor, {}),
    "sim_y": (SimMotor, {}),
    "bank": (Bank, {}),
    "turned": (Turned, {}),
    "slow": (slow_motor, {}),
    "creeping": (Creeping, {}),
    "temperature": (float_signal, {}),
    "mode": (mode_signal, {}),
    "blob": (blob, {"directory": "%files"}),
    "blob2": (blob, {"directory": "%files2"}),
    "image": (faulty.image, {"directory": "%images"}),
    "wave": (faulty.wave, {}),
    "faulty": (faulty.Faulty, {}),
    "faulty_async": (faulty.FaultyAsync, {}),
    "flyer": (flyer, {"detector": "$det", "motor": "$motor"}),
    "burst": (burst, {name: f"${name}" for name in ("motor", "slow", "temperature", "det", "counter", "broken")}),
}
"""{name: (factory, keywords)}; `$` refers to a device, `%files` to a directory of its own."""


def build(files: Path) -> dict[str, Any]:
    """Make all devices in this process; those of ophyd-async are to be connected."""
    made: dict[str, Any] = {}
    for name, (factory, keywords) in TABLE.items():
        made[name] = factory(name=name, **{key: _argument(value, files, made) for key, value in keywords.items()})
    return made


def device_file(files: Path) -> str:
    """Write the same devices as a device file."""
    lines = ["version: 1", "devices:"]
    for name, (factory, keywords) in TABLE.items():
        lines += [f"  {name}:", f"    class: {factory.__module__}:{factory.__qualname__}"]
        if keywords:
            lines.append("    kwargs:")
        for key, value in keywords.items():
            text = f"{{$ref: {value[1:]}}}" if value.startswith("$") else _argument(value, files, {})
            lines.append(f"      {key}: {text}")
    return "\n".join(lines) + "\n"


def _argument(value: str, files: Path, made: dict[str, Any]) -> Any:
    if value.startswith("$"):
        return made[value[1:]]
    return str(files / value[1:]) if value.startswith("%") else value
