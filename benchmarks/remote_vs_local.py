"""Points a second of the same plans with devices in process and in a device server, both with a stock RunEngine.

    python benchmarks/remote_vs_local.py [--points 200] [--repeats 3] [--devices 1 5 20]

The best of the repeats is shown, which alternate between the two sides, so that a noisy machine disturbs both.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bluesky.plans as bp  # noqa: E402
from bluesky import RunEngine  # noqa: E402
from ophyd_async.core import Device as AsyncDevice  # noqa: E402

from bec_bluesky.proxy import DeviceLink, prepare_engine  # noqa: E402
from bec_bluesky.settings import Settings  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402
from benchmarks import benchmark_devices  # noqa: E402

Devices = Mapping[str, Any]
Plan = Callable[[Devices, str, int, int], Any]


def count(devices: Devices, layer: str, number: int, points: int) -> Any:
    return bp.count([devices[f"{layer}_det{index}"] for index in range(number)], points)


def scan(devices: Devices, layer: str, number: int, points: int) -> Any:
    detectors = [devices[f"{layer}_det{index}"] for index in range(number)]
    return bp.scan(detectors, devices[f"{layer}_motor"], 0, 1, points)


def make_engine(loop_policy: Any = None) -> RunEngine:
    try:
        import uvloop

        loop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    return RunEngine(loop=loop, context_managers=[])


def in_loop(RE: RunEngine, coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, RE.loop).result(60.0)


async def connected(devices: dict[str, Any]) -> dict[str, Any]:
    for device in devices.values():
        if isinstance(device, AsyncDevice):
            await device.connect()
    return devices


def start_server(settings: Settings, number: int) -> tuple[subprocess.Popen[bytes], Path]:
    profile = settings.data_dir / "profile"
    (profile / "profile_collection").mkdir(parents=True)
    (profile / "profile_collection" / "devices.yaml").write_text(benchmark_devices.device_file(number))
    environment = os.environ | settings.with_(profile=profile).environment() | {"PYTHONPATH": str(ROOT)}
    log = settings.data_dir / "server.log"
    command = [sys.executable, "-m", "bec_bluesky.device_server"]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output), log


def wait_for_devices(link: DeviceLink, names: set[str], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60.0
    while not (names <= set(link.devices) and all(link.server(link.devices[n].info.server).epoch for n in names)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the device server did not come up:\n{log.read_text()}")
        time.sleep(0.05)


def points_per_second(RE: RunEngine, plan: Any, points: int) -> float:
    began = time.perf_counter()
    RE(plan)
    return points / (time.perf_counter() - began)


def compare(local: RunEngine, remote: RunEngine, at_home: Devices, link: DeviceLink, options: Any) -> None:
    print(
        f"{'plan':7} {'layer':12} {'devices':>7} {'local/s':>9} {'remote/s':>9} {'ratio':>6} {'round trips/point':>18}"
    )
    for plan in (count, scan):
        for layer, layer_name in (("o", "ophyd"), ("a", "ophyd-async")):
            for number in options.devices:
                best_local = best_remote = trips = 0.0
                for _ in range(options.repeats):
                    made = plan(at_home, layer, number, options.points)
                    best_local = max(best_local, points_per_second(local, made, options.points))
                    before = link.operations.round_trips
                    made = plan(link.devices, layer, number, options.points)
                    best_remote = max(best_remote, points_per_second(remote, made, options.points))
                    trips = (link.operations.round_trips - before) / options.points
                print(
                    f"{plan.__name__:7} {layer_name:12} {number:7} {best_local:9.0f} {best_remote:9.0f} "
                    f"{best_remote / best_local:6.2f} {trips:18.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--no-read-ahead", action="store_true")
    options = parser.parse_args()
    number = max(options.devices)
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory)) as settings:
        process, log = start_server(settings, number)
        local, remote = make_engine(), make_engine()
        try:
            at_home = in_loop(local, connected(benchmark_devices.build(number)))
            link = in_loop(remote, DeviceLink.connect(settings.redis_url or "", settings.beamline))
            prepare_engine(remote, link, read_ahead=not options.no_read_ahead)
            wait_for_devices(link, set(at_home), process, log)
            compare(local, remote, at_home, link, options)
            in_loop(remote, link.close())
        finally:
            process.terminate()
            process.wait(20.0)


if __name__ == "__main__":
    main()
