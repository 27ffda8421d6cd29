"""Round trips of a person's device calls, against a bare PUBLISH that another process echoes on the same Redis.

    python benchmarks/device_calls.py [--calls 2000] [--repeats 5]

`bl.dev.samx.read()` and its kin are called from the main thread of a client; the device server is a process, Redis
another one. The bare echo is a process that publishes what it hears. They take turns, so that a noisy machine disturbs
all; the best of the repeats counts. The target: a p50 below 1 ms.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bec_bluesky.bus import Wire, parse  # noqa: E402
from bec_bluesky.client import Client  # noqa: E402
from bec_bluesky.settings import Settings  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402

TARGET = 1.0
"""Milliseconds, for the p50 of read and get."""
DEVICES = """
version: 1
devices:
  samx: {class: "ophyd.sim:SynAxis"}
  theta: {class: ophyd_async.sim:SimMotor}
"""
ASKED, SAID = "benchmark:asked", "benchmark:said"
READY_WITHIN = 60.0


async def echo(url: str) -> None:
    """Publish what is heard, for ever."""
    wire: Wire

    def heard(_: bytes, data: bytes) -> None:
        wire.send("PUBLISH", SAID, data)

    wire = await Wire.connect(parse(url), heard)
    await wire.subscribe(ASKED)
    await asyncio.Event().wait()


async def time_echo(url: str, calls: int) -> list[float]:
    """Give the seconds of bare round trips."""
    arrived = asyncio.Event()
    wire = await Wire.connect(parse(url), lambda *_: arrived.set())
    await wire.subscribe(SAID)
    while not await wire.call("PUBLISH", ASKED, b"x" * 120):  # noqa: ASYNC110  # until the other process listens
        await asyncio.sleep(0.01)
    await arrived.wait()
    took: list[float] = []
    for _ in range(calls):
        arrived.clear()
        began = time.perf_counter()
        wire.send("PUBLISH", ASKED, b"x" * 120)
        await arrived.wait()
        took.append(time.perf_counter() - began)
    wire.close()
    return took


def time_calls(call: Callable[[], object], calls: int) -> list[float]:
    """Give the seconds of calls."""
    took: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return took


@contextlib.contextmanager
def processes(settings: Settings) -> Iterator[None]:
    """Run a device server and the echo."""
    environment = os.environ | settings.environment() | {"PYTHONPATH": str(ROOT)}
    commands = [
        [sys.executable, "-m", "bec_bluesky.device_server"],
        [sys.executable, str(Path(__file__).resolve()), "--echo", settings.redis_url or ""],
    ]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20.0)


def measure(settings: Settings, calls: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Give {what: (p50, p99)} in milliseconds, the best of the repeats."""
    with processes(settings), Client(settings) as bl:
        deadline = time.monotonic() + READY_WITHIN
        while "theta" not in bl.dev or bl.dev.theta.state != "connected":
            if time.monotonic() > deadline:
                raise SystemExit("the device server did not come up")
            time.sleep(0.05)
        dev = bl.dev
        sides: dict[str, Callable[[], list[float]]] = {
            "bare echo": lambda: asyncio.run(time_echo(settings.redis_url or "", calls)),
            "samx.read (ophyd)": lambda: time_calls(dev.samx.read, calls),
            "samx.get (ophyd)": lambda: time_calls(dev.samx.get, calls),
            "theta.read (ophyd-async)": lambda: time_calls(dev.theta.read, calls),
            "theta.velocity.get (ophyd-async)": lambda: time_calls(dev.theta.velocity.get, calls),
        }
        best: dict[str, tuple[float, float]] = {}
        for _ in range(repeats):
            for what, run in sides.items():
                cuts = statistics.quantiles(run(), n=100)
                best[what] = min(best.get(what, (cuts[49], cuts[98])), (cuts[49], cuts[98]))
    return {what: (p50 * 1e3, p99 * 1e3) for what, (p50, p99) in best.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--echo", metavar="URL", help="be the process that echoes")
    given = parser.parse_args()
    if given.echo:
        asyncio.run(echo(given.echo))
        return 0
    with tempfile.TemporaryDirectory() as name, private_system(Path(name)) as settings:
        collection = Path(name) / "profile" / "profile_collection"
        collection.mkdir(parents=True)
        (collection / "devices.yaml").write_text(DEVICES)
        found = measure(settings.with_(profile=Path(name) / "profile"), given.calls, given.repeats)
    bare = found["bare echo"][0]
    print(f"{'':34} {'p50 ms':>8} {'p99 ms':>8} {'p50 / bare':>11}")
    for what, (p50, p99) in found.items():
        print(f"{what:34} {p50:8.3f} {p99:8.3f} {p50 / bare:11.2f}")
    worst = max(p50 for what, (p50, _) in found.items() if what != "bare echo")
    print(f"target: p50 < {TARGET:g} ms: {'met' if worst < TARGET else 'MISSED'} (worst {worst:.3f} ms)")
    return 0 if worst < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
