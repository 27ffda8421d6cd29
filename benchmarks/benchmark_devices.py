"""Devices that take no time, so that only the machinery is measured."""

from typing import Any

from ophyd.sim import SynAxis, SynGauss
from ophyd_async.core import AsyncStatus, StandardReadable, StandardReadableFormat, soft_signal_r_and_setter
from ophyd_async.sim import SimMotor


class SoftDetector(StandardReadable):
    """One reading, which grows with every trigger."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables(StandardReadableFormat.HINTED_SIGNAL):
            self.value, self._set_value = soft_signal_r_and_setter(float, 0.0)
        self._count = 0
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Take the next value."""
        self._count += 1
        self._set_value(float(self._count))


def gauss(name: str, motor: Any) -> SynGauss:
    return SynGauss(name, motor, "o_motor", center=0, Imax=1, sigma=1)


def build(number: int) -> dict[str, Any]:
    """Make a motor and `number` detectors of each layer, by the names that `device_file` gives them."""
    motor = SynAxis(name="o_motor")
    devices: dict[str, Any] = {"o_motor": motor, "a_motor": SimMotor(name="a_motor")}
    for index in range(number):
        devices[f"o_det{index}"] = gauss(f"o_det{index}", motor)
        devices[f"a_det{index}"] = SoftDetector(name=f"a_det{index}")
    return devices


def names(number: int) -> list[str]:
    """Give the names of the devices."""
    return [f"{layer}_{name}" for layer in "oa" for name in ("motor", *(f"det{index}" for index in range(number)))]


def device_file(number: int) -> str:
    """Write the same devices as a device file, and a burst of them."""
    lines = [
        "version: 1",
        "devices:",
        "  o_motor: {class: ophyd.sim:SynAxis}",
        "  a_motor: {class: ophyd_async.sim:SimMotor}",
    ]
    for index in range(number):
        lines.append(
            f"  o_det{index}: {{class: benchmarks.benchmark_devices:gauss, kwargs: {{motor: {{$ref: o_motor}}}}}}"
        )
        lines.append(f"  a_det{index}: {{class: benchmarks.benchmark_devices:SoftDetector}}")
    detectors = ", ".join(f"{{$ref: {layer}_det{index}}}" for layer in "oa" for index in range(number))
    lines += [
        "  burst:",
        "    class: devices.burst:Burst",
        f"    kwargs: {{movers: [{{$ref: o_motor}}, {{$ref: a_motor}}], detectors: [{detectors}]}}",
    ]
    return "\n".join(lines) + "\n"
