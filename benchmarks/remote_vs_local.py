"""Points a second of ordinary plans: the stock RunEngine with devices in process, against the whole remote chain.

    python benchmarks/remote_vs_local.py [--plans count scan] [--layers ophyd ophyd-async] [--devices 1 5 20]
                                         [--points 100] [--repeats 10] [--accelerations all] [--no-read-ahead]

The remote side is the worker's RunEngine with proxies, a device server and Redis, each a process; its documents are on
Redis when its time ends. The sides take turns, so that a noisy machine disturbs both, and the best of the repeats
counts. Their documents must be the same. CPU is milliseconds a point of each process.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import redis  # noqa: E402

from bec_bluesky.accelerations import chosen  # noqa: E402
from bec_bluesky.settings import Settings  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402
from benchmarks import benchmark_devices  # noqa: E402
from benchmarks.benchmark_sides import Cell, Chain, Home, Side  # noqa: E402

TARGETS = {"ophyd-async": 1.5, "ophyd": 1.0}
"""Least ratio in each cell."""
MEDIAN_TARGET = 2.0
ROUND_TRIPS_TARGET = {"count": 1.1, "scan": 2.1}
"""For each point after the first: 1 and 2, and some for a machine that does other things meanwhile."""
HEADER = (
    f"{'plan':6} {'layer':12} {'devices':>7} {'home/s':>8} {'remote/s':>9} {'ratio':>6} {'trips':>6}"
    f"   CPU ms/point: {'home':>6} {'worker':>7} {'devices':>8} {'redis':>6}"
)


@dataclass
class Line:
    """What was measured of a cell, over all repeats."""

    cell: Cell
    points: int
    home: float = 0.0
    """Points a second, the best."""
    remote: float = 0.0
    trips: list[float] = field(default_factory=list)
    """Round trips a point, of each run."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds by process."""
    total: int = 0

    @property
    def round_trips(self) -> float:
        return statistics.median(self.trips)

    @property
    def ratio(self) -> float:
        return self.remote / self.home

    def __str__(self) -> str:
        cpu = {name: 1000 * seconds / self.total for name, seconds in self.cpu.items()}
        return (
            f"{self.cell.plan:6} {self.cell.layer:12} {self.cell.devices:7} {self.home:8.0f} {self.remote:9.0f} "
            f"{self.ratio:6.2f} {self.round_trips:6.2f}                 "
            f"{cpu['home']:6.2f} {cpu['worker']:7.2f} {cpu['devices']:8.2f} {cpu['redis']:6.2f}"
        )


def cpu_of(pid: int) -> float:
    """Give the seconds of CPU that a process has used, where the system tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def device_server(settings: Settings, number: int) -> Iterator[int]:
    """Run a device server with the benchmark's devices while the block lasts; give its pid."""
    profile = settings.data_dir / "profile"
    (profile / "profile_collection").mkdir(parents=True)
    (profile / "profile_collection" / "devices.yaml").write_text(benchmark_devices.device_file(number))
    environment = os.environ | settings.with_(profile=profile).environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bec_bluesky.device_server"]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(20.0)


def measure(line: Line, home: Side, chain: Side, pids: dict[str, int]) -> None:
    """Run the cell once on each side."""
    cell, points = line.cell, line.points
    before = {name: cpu_of(pid) for name, pid in pids.items()}
    at_home, remotely = home.run(cell, points), chain.run(cell, points)
    used = {name: cpu_of(pid) - before[name] for name, pid in pids.items()}
    used |= {"home": at_home.cpu, "worker": remotely.cpu}
    if at_home.documents != remotely.documents:
        pairs = zip(at_home.documents, remotely.documents, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), (len(at_home.documents), len(remotely.documents)))
        raise SystemExit(f"{cell}: the documents differ:\n  home   {first[0]}\n  remote {first[1]}")
    line.home = max(line.home, points / at_home.seconds)
    line.remote = max(line.remote, points / remotely.seconds)
    line.trips.append(remotely.round_trips)
    for name, seconds in used.items():
        line.cpu[name] = line.cpu.get(name, 0.0) + seconds
    line.total += points


def verdict(lines: list[Line]) -> list[str]:
    """Say which targets are missed."""
    missed: list[str] = []
    for line in lines:
        cell = f"{line.cell.plan} {line.cell.layer} {line.cell.devices}"
        if line.ratio < TARGETS[line.cell.layer]:
            missed.append(f"{cell}: ratio {line.ratio:.2f}, to be {TARGETS[line.cell.layer]}")
        if line.round_trips > ROUND_TRIPS_TARGET[line.cell.plan]:
            missed.append(f"{cell}: {line.round_trips:.2f} round trips a point")
    median = statistics.median(line.ratio for line in lines)
    print(f"median ratio {median:.2f} (to be {MEDIAN_TARGET})")
    return missed + ([f"median ratio {median:.2f}"] if median < MEDIAN_TARGET else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", nargs="+", choices=["count", "scan"], default=["count", "scan"])
    parser.add_argument("--layers", nargs="+", choices=list(TARGETS), default=["ophyd", "ophyd-async"])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--accelerations", default="all", help="as the setting of this name")
    parser.add_argument("--no-read-ahead", action="store_true")
    options = parser.parse_args()
    number = max(options.devices)
    cells = [Cell(*each) for each in itertools.product(options.plans, options.layers, options.devices)]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory)) as settings:
        url = settings.redis_url or ""
        chain = (Chain, settings, number, not options.no_read_ahead, chosen(options.accelerations))
        with device_server(settings, number) as devices, Side(Home, number) as home, Side(*chain) as remote:
            redis_pid = redis.Redis.from_url(url).info("server")["process_id"]
            pids = {"devices": devices, "redis": redis_pid}
            print(HEADER)
            for cell in cells:
                lines.append(Line(cell, options.points))
                for _ in range(options.repeats):
                    measure(lines[-1], home, remote, pids)
                print(lines[-1], flush=True)
    missed = verdict(lines)
    print("\n".join(f"missed: {each}" for each in missed) or "every target is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
