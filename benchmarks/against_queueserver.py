"""Our queue against bluesky-queueserver's, in one run: the same plan, the same machine, a Redis each.

    python benchmarks/against_queueserver.py [--plans 300] [--plans-peer 20] [--submits 100] [--submits-peer 20]
                                             [--adds 1000] [--kills 5] [--kills-peer 1] [--memory 1000]

The plan is a `count` of one reading of a simulated detector; what takes time is the machinery. Times end when the run's
start document is there, as a callback in the process that runs plans notes it, on both sides alike. The systems are
measured one after the other; clients are processes of their own. Memory is that of all processes but Redis.
`--memory 10000` takes some minutes. It ends with the targets that were missed, and with 1 if there are any.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import argparse  # noqa: E402
import asyncio  # noqa: E402
import itertools  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Awaitable, Callable, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

from benchmarks.queue_systems import Client, Ours, Peer, Run, System  # noqa: E402

_PATIENCE = 120.0
_BATCH = 500
_numbers = itertools.count()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_run(system: System, number: int) -> list[Run]:
    """Wait until an item's run is the newest; give all."""
    async with asyncio.timeout(_PATIENCE):
        while not (runs := system.runs()) or runs[-1][0] != number:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    return runs


def some(count: int) -> list[int]:
    return list(itertools.islice(_numbers, count))


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


async def plans_a_second(system: System, client: Client, count: int) -> float:
    """From the start of the first run to that of the last."""
    numbers = some(count)
    await client.add(numbers)
    await client.start()
    times = {number: when for number, when, _ in await until_run(system, numbers[-1])}
    await until(client.is_idle)
    return (count - 1) / (times[numbers[-1]] - times[numbers[0]])


async def submit_to_start(system: System, client: Client, count: int) -> list[float]:
    """Milliseconds from an item's submission, to run at once, to its run."""
    took: list[float] = []
    for number in some(count):
        begin = time.monotonic()
        await client.execute(number)
        took.append(1000 * ((await until_run(system, number))[-1][1] - begin))
        await until(client.is_idle)
    return took


async def status_latency(system: System, client: Client, count: int, at_once: bool) -> list[float]:
    """Milliseconds of each status call while another process adds items."""
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Event()
    adder = spawning.Process(target=_add, args=(system.door, some(count), at_once, ready))
    adder.start()
    try:
        while not ready.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        took: list[float] = []
        while adder.is_alive():
            begin = time.perf_counter()
            await client.is_idle()
            took.append(1000 * (time.perf_counter() - begin))
            await asyncio.sleep(0.001)
    finally:
        adder.join()
    if adder.exitcode:
        raise SystemExit(f"{system.name}: items could not be added")
    await client.clear()
    return took


def _add(door: tuple[Any, Any], numbers: list[int], at_once: bool, ready: Any) -> None:
    async def add() -> None:
        connect, where = door
        async with connect(where) as client:
            ready.set()
            for each in [numbers] if at_once else [[number] for number in numbers]:
                await client.add(each)

    asyncio.run(add())


async def after_a_kill(system: System, client: Client, count: int) -> list[float]:
    """Seconds from the end of the worker to the next run, with what a person has to do in between."""
    took: list[float] = []
    for _ in range(count):
        await until(client.is_whole)
        victim, following = some(2)
        await client.add([victim], delay=600.0)
        await client.add([following])
        await client.start()
        runs = await until_run(system, victim)
        await asyncio.sleep(0.5)
        begin = time.monotonic()
        os.kill(runs[-1][2], signal.SIGKILL)
        await client.recover()
        while len(now := system.runs()) == len(runs):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        took.append(now[len(runs)][1] - begin)
    return took


async def growth(system: System, client: Client, count: int) -> float:
    """Kilobytes that each item leaves in memory."""
    await plans_a_second(system, client, max(2, count // 5))  # what is learned once
    before = system.resident()
    for size in [_BATCH] * (count // _BATCH) + [count % _BATCH] * bool(count % _BATCH):
        await plans_a_second(system, client, size)
    return (system.resident() - before) / 1024 / count


@dataclass(frozen=True)
class Quantity:
    name: str
    target: float
    is_most: bool = True

    def times_better(self, mine: float, other: float) -> float:
        """Below 1: worse."""
        return other / max(mine, 1e-9) if self.is_most else mine / max(other, 1e-9)

    def is_met(self, value: float) -> bool:
        return value <= self.target if self.is_most else value >= self.target


QUANTITIES = (
    Quantity("plans a second", 40.0, is_most=False),
    Quantity("submit to start, p50, ms", 10.0),
    Quantity("submit to start, p99, ms", 50.0),
    Quantity("status, p50, while items are added one by one, ms", 5.0),
    Quantity("status, p99, while items are added one by one, ms", 5.0),
    Quantity("status, p99, while items are added in one request, ms", 5.0),
    Quantity("next item after a killed worker, the slowest, s", 0.5),
    Quantity("memory that an item leaves behind, kB", 1.0),
)


async def measure(system: System, options: Any) -> list[float]:
    """Give the quantities of one system."""
    mine = "" if isinstance(system, Ours) else "_peer"
    connect, where = system.door
    async with connect(where) as client:
        await until(client.is_idle)
        await until(client.is_whole)
        await plans_a_second(system, client, 5)  # what is imported and learned at the first run
        rate = await plans_a_second(system, client, getattr(options, f"plans{mine}"))
        started = await submit_to_start(system, client, getattr(options, f"submits{mine}"))
        one_by_one = await status_latency(system, client, options.adds, at_once=False)
        at_once = await status_latency(system, client, options.adds, at_once=True)
        memory = await growth(system, client, getattr(options, f"memory{mine}"))
        killed = await after_a_kill(system, client, getattr(options, f"kills{mine}"))
    return [
        rate,
        percentile(started, 50),
        percentile(started, 99),
        percentile(one_by_one, 50),
        percentile(one_by_one, 99),
        percentile(at_once, 99),
        max(killed),
        memory,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, ours, peers in (("plans", 300, 20), ("submits", 100, 20), ("kills", 5, 1), ("memory", 1000, 40)):
        parser.add_argument(f"--{name}", type=int, default=ours)
        parser.add_argument(f"--{name}-peer", type=int, default=peers)
    parser.add_argument("--adds", type=int, default=1000)
    parser.add_argument("--only-ours", action="store_true")
    options = parser.parse_args()
    measured: list[list[float]] = []
    with tempfile.TemporaryDirectory() as directory:
        for make in (Ours,) if options.only_ours else (Ours, Peer):
            with make(Path(directory, make.name)) as system:
                measured.append(asyncio.run(measure(system, options)))
    print(f"{'':56} {Ours.name:>12} {Peer.name:>12} {'times better':>12}")
    missed: list[str] = []
    for quantity, mine, *peers in zip(QUANTITIES, *measured, strict=True):
        ratio = [f"{each:12.2f} {quantity.times_better(mine, each):12.2f}" for each in peers]
        print(f"{quantity.name:56} {mine:12.2f} {' '.join(ratio)}")
        if not quantity.is_met(mine):
            missed.append(f"missed: {quantity.name}: {mine:.2f}, to be {quantity.target:g}")
    print("\n".join(missed) or "every target is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
