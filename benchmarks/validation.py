"""How long it takes to validate plans: a batch given to the scan server, and bluesky's own generators iterated at home.

    python benchmarks/validation.py [--plans 100] [--points 51] [--repeats 3]

Ours is the whole way: a batch of `scan` sent over Redis, its arguments checked, each plan iterated by the workers
against device descriptions, the answer back. At home the same plans are only iterated, in this process, with bluesky's
stock wrapper (which formats a traceback for each stub) and answers that cost nothing; nothing is checked. Both
alternate; the best of the repeats is shown. Exit code 0: ours takes under a second for each 100 plans of 51 points.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import bluesky.plans as bp  # noqa: E402
from ophyd.sim import hw  # noqa: E402
from ophyd.status import Status  # noqa: E402

from bec_bluesky.bus import Bus, Caller  # noqa: E402
from bec_bluesky.channels import DEVICES, PLANS  # noqa: E402
from bec_bluesky.messages.queue import AddItem, AddItems, ClearQueue, GetStatus  # noqa: E402
from bec_bluesky.settings import Settings  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402

DEVICE_FILE = """
version: 1
devices:
  motor: {class: "ophyd.sim:SynAxis", limits: {low: -10, high: 10}}
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: motor}, motor_field: motor, center: 0, Imax: 1, sigma: 1}}
"""
TARGET = 1.0 / (100 * 51)
"""Seconds for each point."""


def at_home(plans: int, points: int) -> float:
    """Iterate the plans with bluesky's wrapper as it is."""
    devices = hw()
    done = Status()
    done.set_finished()
    answers: dict[str, Any] = {"set": done, "trigger": done, "read": {}, "stage": [], "unstage": [], "open_run": ""}
    began = time.perf_counter()
    for _ in range(plans):
        plan = bp.scan([devices.det], devices.motor, -1, 1, points)
        answer = None
        with contextlib.suppress(StopIteration):
            while True:
                answer = answers.get(plan.send(answer).command)
    return time.perf_counter() - began


@contextlib.contextmanager
def services(settings: Settings) -> Iterator[None]:
    """Run a device server and a scan server while the block lasts."""
    collection = settings.profile / "profile_collection"
    collection.mkdir(parents=True)
    (collection / "profile.toml").write_text('title = "benchmark"\n')
    (collection / "devices.yaml").write_text(DEVICE_FILE)
    environment = os.environ | settings.environment()
    names = ("device_server", "scan_server")
    processes = [
        subprocess.Popen([sys.executable, "-m", f"bec_bluesky.{name}"], env=environment, cwd=ROOT) for name in names
    ]
    try:
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(40.0)


async def until_ready(bus: Bus, caller: Caller) -> None:
    async with asyncio.timeout(90.0):
        while not (await bus.find_tables(DEVICES, "server") and await bus.fields(PLANS)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        while True:
            with contextlib.suppress(TimeoutError):
                if (await caller.ask(GetStatus(), timeout=2.0)).run_state == "idle":
                    break
    await asyncio.sleep(5.0)  # the spare, too


async def compare(settings: Settings, options: Any) -> bool:
    batch = AddItems(
        items=[
            AddItem(plan="scan", args=[["det"], "motor", -1, 1], kwargs={"num": options.points})
            for _ in range(options.plans)
        ]
    )
    home, ours = float("inf"), float("inf")
    async with Bus(settings.redis_url or "", settings.beamline) as bus, Caller(bus) as caller:
        await until_ready(bus, caller)
        for _ in range(options.repeats):
            home = min(home, await asyncio.to_thread(at_home, options.plans, options.points))
            began = time.perf_counter()
            added = await caller.ask(batch, timeout=60.0)
            ours = min(ours, time.perf_counter() - began)
            if added.warnings or any(item.properties["points"] != options.points for item in added.items):
                raise SystemExit(f"not all were checked: {added.warnings}")
            await caller.ask(ClearQueue())
    print(f"{options.plans} plans of {options.points} points")
    print(f"iterated at home, stock wrapper  {home:7.3f} s")
    print(f"validated by the scan server     {ours:7.3f} s   {home / ours:.1f} times as fast")
    is_met = ours < TARGET * options.plans * options.points
    print("target met" if is_met else "missed: 1 s for 100 plans of 51 points")
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=100)
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "profile"
        with private_system(Path(directory) / "system", profile=profile) as settings, services(settings):
            return 0 if asyncio.run(compare(settings, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
