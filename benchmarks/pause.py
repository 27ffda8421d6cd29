"""How soon `pause now` stops the motors: a person's request over the queue, against a stock RunEngine at home.

    python -m benchmarks.pause [--repeats 10]

A plan moves one motor, or fifty, without end. Here: a client asks the scan server, whose worker stops them on the
device server; at home: another thread calls `request_pause(defer=False)` of a stock RunEngine with the same devices in
its own process. Prints the milliseconds from the request to the `stop` of the last motor, median and
slowest, and the ratio.
"""

import argparse
import asyncio
import contextlib
import io
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from bec_bluesky.client import Client
from bec_bluesky.settings import Settings
from bec_bluesky.testing import private_system
from benchmarks.panic_stop import Mover

NUMBERS = (1, 50)
TARGET = 0.2
"""Seconds."""
_SETTLE = 0.3
"""Seconds that a move has been under way when the pause is asked for."""
_LONGEST = 30.0
_PLAN = '''
import bluesky.plan_stubs as bps

def move_for_ever(motors):
    """Move to where nothing ever is."""
    yield from bps.checkpoint()
    yield from bps.mv(*[each for motor in motors for each in (motor, 1.0)])
'''


def _at_home(number: int, repeats: int) -> list[float]:
    motors: list[Any] = [Mover(name=f"m{each}") for each in range(number)]

    def plan() -> Iterator[Any]:
        yield from bps.checkpoint()
        yield from bps.mv(*[each for motor in motors for each in (motor, 1.0)])

    RE = RunEngine({}, loop=asyncio.new_event_loop(), context_managers=[])
    times: list[float] = []
    for _ in range(repeats):
        began: list[float] = []

        def ask(began: list[float] = began) -> None:
            time.sleep(_SETTLE)
            began.append(time.monotonic())
            RE.request_pause(defer=False)

        thread = threading.Thread(target=ask)
        thread.start()
        with contextlib.redirect_stdout(io.StringIO()):  # it says what it does
            try:
                RE(plan())
            except RunEngineInterrupted:
                times.append(max(motor.stopped.get() for motor in motors) - began[0])
                RE.abort()
        thread.join()
    RE.loop.call_soon_threadsafe(RE.loop.stop)
    return times


def _by_queue(client: Client, number: int, repeats: int) -> list[float]:
    names = [f"m{each}" for each in range(number)]
    times: list[float] = []
    for _ in range(repeats):
        item = client.queue.execute("move_for_ever", names)
        _until(lambda: client.status.run_state == "running")
        time.sleep(_SETTLE)
        began = time.monotonic()
        client.pause(now=True)
        _until(lambda: client.status.run_state == "paused")
        times.append(max(client.dev[name].stopped.get() for name in names) - began)
        client.abort()
        item.wait(_LONGEST)
        _until(lambda: client.status.run_state == "idle")
    return times


def _until(condition: Any) -> None:
    deadline = time.monotonic() + _LONGEST
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the queue does not come to what is waited for")
        time.sleep(0.01)


def _start(settings: Settings, service: str) -> subprocess.Popen[bytes]:
    environment = os.environ | settings.environment() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-m", f"bec_bluesky.{service}"], env=environment)


def _profile(directory: Path) -> Path:
    collection = directory / "profile" / "profile_collection"
    (collection / "startup").mkdir(parents=True)
    (collection / "profile.toml").write_text('title = "pause"\n')
    lines = [f'  m{each}: {{class: "benchmarks.panic_stop:Mover"}}' for each in range(max(NUMBERS))]
    (collection / "devices.yaml").write_text("\n".join(["version: 1", "devices:", *lines]) + "\n")
    (collection / "startup" / "10-plans.py").write_text(_PLAN)
    return directory / "profile"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    slowest = 0.0
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory) / "data") as system:
        settings = system.with_(profile=_profile(Path(directory)))
        services = [_start(settings, service) for service in ("device_server", "scan_server")]
        try:
            with Client(settings) as client:
                _until(lambda: "scan_server" in client.services and "move_for_ever" in client.plans)
                _until(lambda: len(client.devices) >= max(NUMBERS))
                for number in NUMBERS:
                    here, home = _by_queue(client, number, repeats), _at_home(number, repeats)
                    slowest = max(slowest, *here)
                    ratio = statistics.median(here) / statistics.median(home)
                    print(f"{number:>3} motors: by the queue {_told(here)}, at home {_told(home)}, ratio {ratio:.2f}")
        finally:
            for service in reversed(services):
                service.terminate()
            for service in services:
                service.wait(30.0)
    print(
        f"the slowest: {1000 * slowest:.0f} ms; target {1000 * TARGET:.0f}: {'met' if slowest < TARGET else 'MISSED'}"
    )
    return 0 if slowest < TARGET else 1


def _told(times: list[float]) -> str:
    return f"{1000 * statistics.median(times):.1f} (slowest {1000 * max(times):.1f}) ms"


if __name__ == "__main__":
    sys.exit(main())
