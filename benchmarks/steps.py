"""Points a second of a scan by a device server: ordinary steps, one instruction a point, and a burst.

    python benchmarks/steps.py [--points 500] [--repeats 3] [--devices 1 5 20] [--stock]

The best of the repeats is shown, which alternate between the three, so that a noisy machine disturbs all. The RunEngine
is accelerated like the worker's, unless `--stock` is given; documents go to nobody.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import bluesky.plans as bp  # noqa: E402
import uvloop  # noqa: E402
from bluesky import RunEngine  # noqa: E402

from bec_bluesky.accelerations import accelerate  # noqa: E402
from bec_bluesky.proxy import DeviceLink, prepare_engine  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402
from benchmarks import benchmark_devices  # noqa: E402
from benchmarks.remote_vs_local import device_server  # noqa: E402
from plans.burst import burst_scan  # noqa: E402
from plans.one_instruction import one_instruction_step  # noqa: E402

Scan = Callable[[Mapping[str, Any], list[Any], Any, int], Any]
WAYS: dict[str, Scan] = {
    "ordinary": lambda devices, detectors, motor, points: bp.scan(detectors, motor, 0, 1, points),
    "one instruction": lambda devices, detectors, motor, points: bp.scan(
        detectors, motor, 0, 1, points, per_step=one_instruction_step
    ),
    "burst": lambda devices, detectors, motor, points: burst_scan(devices["burst"], detectors, motor, 0, 1, points),
}


def in_loop(RE: RunEngine, coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, RE.loop).result(60.0)


def wait_for_devices(link: DeviceLink, names: set[str]) -> None:
    deadline = time.monotonic() + 60.0
    while not (names <= set(link.devices) and link.is_ready):
        if time.monotonic() > deadline:
            raise SystemExit(f"the device server did not come up with {', '.join(names - set(link.devices))}")
        time.sleep(0.05)


def points_per_second(RE: RunEngine, plan: Any, points: int) -> float:
    began = time.perf_counter()
    RE(plan)
    return points / (time.perf_counter() - began)


def compare(RE: Any, link: DeviceLink, options: Any) -> None:
    print(f"{'layer':12} {'devices':>7}  " + "  ".join(f"{way + '/s':>17} {'ratio':>5} {'trips':>5}" for way in WAYS))
    for layer, layer_name in (("o", "ophyd"), ("a", "ophyd-async")):
        for number in options.devices:
            detectors = [link.devices[f"{layer}_det{index}"] for index in range(number)]
            best = dict.fromkeys(WAYS, 0.0)
            trips = dict.fromkeys(WAYS, 0.0)
            for _ in range(options.repeats):
                for way, scan in WAYS.items():
                    plan = scan(link.devices, detectors, link.devices[f"{layer}_motor"], options.points)
                    before = link.operations.round_trips
                    best[way] = max(best[way], points_per_second(RE, plan, options.points))
                    trips[way] = (link.operations.round_trips - before) / options.points
            cells = [f"{best[way]:17.0f} {best[way] / best['ordinary']:5.2f} {trips[way]:5.2f}" for way in WAYS]
            print(f"{layer_name:12} {number:7}  " + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--stock", action="store_true")
    options = parser.parse_args()
    number = max(options.devices)
    with (
        tempfile.TemporaryDirectory() as directory,
        private_system(Path(directory)) as settings,
        device_server(settings, number),
    ):
        RE = RunEngine(loop=uvloop.new_event_loop(), context_managers=[])
        if not options.stock:
            accelerate(RE)
        link = in_loop(RE, DeviceLink.connect(settings.redis_url or "", settings.beamline))
        prepare_engine(RE, link)
        wait_for_devices(link, {"burst", *benchmark_devices.names(number)})
        compare(RE, link, options)
        in_loop(RE, link.close())


if __name__ == "__main__":
    main()
