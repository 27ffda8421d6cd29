"""What storing runs costs, and how soon what was measured can be used: Tiled, the bundler, and the RunEngine meanwhile.

    python benchmarks/data.py [--events 5000] [--peer-events 150] [--seconds 10] [--points 500] [--repeats 5]

Everything that `profile.toml` hosts runs as `bec-bluesky up` starts it, on a real Redis. Compared in one run, by turns
where both take long:

- Tiled, ms an event: our sink against bluesky's own TiledWriter that writes event by event, into the same server;
- Tiled, seconds from an event to its row being readable by a client: the same two, at the same rate;
- RunEngine, points a second of a scan by a device server: with all of it, against a system that has no writers, as fast
  as it goes and with an exposure of 10 ms;
- bundler, ms from the document that completes a point being on Redis to the point being there: against a process that
  reads the same documents and writes a point each that it does not make.
"""

import argparse
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import bluesky.plan_stubs as bps  # noqa: E402
import bluesky.plans as bp  # noqa: E402
import redis  # noqa: E402
from bluesky_tiled_plugins import TiledWriter as PlainTiledWriter  # noqa: E402
from tiled.client import from_uri  # noqa: E402

from bec_bluesky.accelerations import chosen  # noqa: E402
from bec_bluesky.channels import DOCUMENTS, POINTS  # noqa: E402
from bec_bluesky.documents import CatalogAddress, find_catalog  # noqa: E402
from bec_bluesky.messages import encode, unpack  # noqa: E402
from bec_bluesky.messages.products import Point  # noqa: E402
from bec_bluesky.settings import Settings  # noqa: E402
from bec_bluesky.testing import private_system  # noqa: E402
from benchmarks.benchmark_sides import Cell, Chain, Devices, Side  # noqa: E402
from benchmarks.data_services import Documents, OnRedis, running_writers, until  # noqa: E402
from benchmarks.files import documents  # noqa: E402
from benchmarks.remote_vs_local import cpu_of, device_server  # noqa: E402
from writers.tiled import TiledWriter  # noqa: E402

COLUMNS = 10
RATE = 10.0
"""Events a second when delays are measured."""
EXPOSURE = 0.01
POINT_RATE = 100.0
TARGETS = {"event": 2.0, "delay": 0.5, "speed": 0.95, "point": 5.0}
"""ms an event, seconds, part of the points a second without writers, ms (p95)."""
_KEYS: dict[str, Any] = {f"k{n}": {"dtype": "number", "shape": [], "source": "benchmark"} for n in range(COLUMNS)}


@dataclass(frozen=True)
class Exposing(Cell):
    """A scan whose detectors expose for a while."""

    exposure: float = 0.0

    def make(self, devices: Devices, points: int) -> Any:
        """Give the plan."""
        if not self.exposure:
            return super().make(devices, points)
        detectors = [devices[f"a_det{index}"] for index in range(self.devices)]

        def expose(devices: Any) -> Any:
            yield from bps.sleep(self.exposure)
            return (yield from bps.trigger_and_read(devices))

        return bp.scan(
            detectors, devices["a_motor"], 0, 1, points, per_step=partial(bps.one_nd_step, take_reading=expose)
        )


def run_of(events: int) -> tuple[Documents, Documents, Documents]:
    """Give what opens a run, its events, and its end."""
    return documents([dict.fromkeys(_KEYS, float(number)) for number in range(events)], _KEYS, 1)


def percentile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


# ── Tiled ──


def cost_of_ours(address: CatalogAddress, events: int) -> float:
    """Give the seconds an event, from the start document to the stored run."""
    writer = TiledWriter(address.uri, address.api_key)
    writer.tick()  # as in the document service
    began = time.perf_counter()
    for name, doc in itertools.chain(*run_of(events)):
        writer(name, doc)
    if not writer.wait(600.0):
        raise SystemExit("the run was not stored")
    taken = time.perf_counter() - began
    writer.close()
    return taken / events


def cost_of_plain(address: CatalogAddress, events: int) -> float:
    client = from_uri(address.uri, api_key=address.api_key)
    writer = PlainTiledWriter(client, batch_size=1)
    began = time.perf_counter()
    for name, doc in itertools.chain(*run_of(events)):
        writer(name, doc)
    taken = time.perf_counter() - began
    client.context.http_client.close()
    return taken / events


def delays(address: CatalogAddress, seconds: float, begin: Callable[[Documents], Any], take: Any) -> list[float]:
    """Feed events at a rate, read meanwhile; give for each the seconds from when it was due to when it was read."""
    head, events, stop = run_of(int(seconds * RATE))
    catalog = from_uri(address.uri, api_key=address.api_key)
    uid = head[0][1]["uid"]
    begin(head)
    first = time.perf_counter() + 0.5
    found: list[float] = []
    stream: Any = None
    fed = 0
    while len(found) < len(events):
        due = int((time.perf_counter() - first) * RATE) + 1
        if due > fed:
            take(uid, events[fed:due])
            fed = min(due, len(events))
        try:
            stream = stream or catalog[uid]["primary"]
            read = len(stream.read(["seq_num"])["seq_num"])
        except KeyError:
            read = 0
        now = time.perf_counter()
        found += [now - first - number / RATE for number in range(len(found), read)]
        if now - first > seconds + 60:
            raise SystemExit("events are not readable a minute after the last of them")
        time.sleep(0.05)
    take(uid, stop)
    catalog.context.http_client.close()
    return found


def plain_delays(address: CatalogAddress, seconds: float) -> list[float]:
    client = from_uri(address.uri, api_key=address.api_key)
    writer = PlainTiledWriter(client, batch_size=1)

    def take(_: str, docs: Documents) -> None:
        for name, doc in docs:
            writer(name, doc)

    try:
        return delays(address, seconds, lambda head: take("", head), take)
    finally:
        client.context.http_client.close()


# ── RunEngine ──


def engine_rates(settings: Settings, asked: Any, exposure: float, with_writers: Side, alone: Side) -> list[list[float]]:
    """Give the points a second of each repeat, with all writers and without; the sides alternate."""
    cell = Exposing("scan", "ophyd-async", asked.devices, exposure)
    on_redis = OnRedis(settings)
    rates: list[list[float]] = [[], []]
    for turn in range(asked.repeats + 1):
        for side, found in zip((with_writers, alone), rates, strict=True):
            rate = asked.points / side.run(cell, asked.points).seconds
            if turn:  # the first one warms up
                found.append(rate)
            if side is with_writers:
                uid = on_redis.newest_run()
                until(lambda uid=uid: on_redis.is_stored(uid, "bundler", "nexus", "tiled"), "the run is stored")
    return rates


# ── bundler ──


def point_delays(on_redis: OnRedis, run: tuple[Documents, Documents, Documents]) -> list[float]:
    """Give for each point the seconds from its event on Redis to the point on Redis."""
    head, events, stop = run
    uid = on_redis.open(head)
    found: list[float] = []
    due = time.perf_counter() + 1.0
    for number, event in enumerate(events, 1):
        time.sleep(max(0.0, due - time.perf_counter()))
        on_redis.publish(uid, [event])
        began = time.perf_counter()
        on_redis.next_point(uid, number)
        found.append(time.perf_counter() - began)
        due += 1 / POINT_RATE
    on_redis.close(uid, stop)
    return found


def echo(settings: Settings, uid: str, is_ready: Any) -> None:
    """Write a point for each event: what the way through a process and Redis takes by itself."""
    client = redis.Redis.from_url(settings.redis_url or "")
    source, target = (channel.key(settings.beamline, run=uid) for channel in (DOCUMENTS, POINTS))
    last = "0-0"
    is_ready.set()
    while True:
        answer: Any = client.xread({source: last}, block=1000)
        for number, fields in answer[0][1] if answer else ():
            last = number
            document = unpack(fields[b"d"])
            if fields[b"n"] == b"event":
                index, values = document["seq_num"], document["data"]
                point = Point(run_uid=uid, scan_id=1, stream="primary", index=index, time=0.0, data=values)
                client.xadd(target, {"m": encode(point)}, id=f"{index}-0")
            elif fields[b"n"] == b"stop":
                return


def echo_delays(settings: Settings, points: int) -> list[float]:
    settings = settings.with_(beamline="echo")
    on_redis = OnRedis(settings)
    run = run_of(points)
    spawning = multiprocessing.get_context("spawn")
    is_ready = spawning.Event()
    process = spawning.Process(target=echo, args=(settings, run[0][0][1]["uid"], is_ready))
    process.start()
    try:
        if not is_ready.wait(60.0):
            raise SystemExit("the process that echoes does not start")
        return point_delays(on_redis, run)
    finally:
        process.join(5.0)
        process.kill()


# ── all ──


def report(what: str, unit: str, ours: float, theirs: float, *, is_met: bool) -> bool:
    """Print a line; give whether the target is met."""
    print(
        f"{what:48} {ours:9.2f} {theirs:9.2f} {unit:9} {ours / theirs:6.2f}  {'' if is_met else 'missed'}", flush=True
    )
    return is_met


def main() -> int:
    """Measure; give 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--peer-events", type=int, default=150, help="events that bluesky's own TiledWriter gets")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which events come while delays are measured")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--devices", type=int, default=5, help="detectors of the scan")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory)) as settings:
        lonely = settings.with_(beamline="lonely", data_dir=Path(directory) / "lonely")
        chain = (asked.devices, True, chosen("all"))
        with (
            device_server(settings, asked.devices),
            device_server(lonely, asked.devices),
            running_writers(settings) as (running, pids),
            Side(Chain, settings, *chain) as with_writers,
            Side(Chain, lonely, *chain) as alone,
        ):
            return 0 if all(measure(running, pids, asked, with_writers, alone)) else 1


def measure(settings: Settings, pids: dict[str, int], asked: Any, with_writers: Side, alone: Side) -> list[bool]:
    address = find_catalog(settings)
    assert address is not None
    on_redis = OnRedis(settings)
    met: list[bool] = []
    print(f"{'':48} {'here':>9} {'other':>9} {'':9} {'ratio':>6}")

    ours, theirs = cost_of_ours(address, asked.events) * 1e3, cost_of_plain(address, asked.peer_events) * 1e3
    met.append(report("Tiled, an event", "ms", ours, theirs, is_met=ours <= TARGETS["event"]))

    found, other = delays(address, asked.seconds, on_redis.open, on_redis.publish), plain_delays(address, asked.seconds)
    for name, part in (("median", 0.5), ("p95", 0.95)):
        ours, theirs = percentile(found, part), percentile(other, part)
        met.append(report(f"event to readable, {name}", "s", ours, theirs, is_met=ours <= TARGETS["delay"]))

    for name, exposure in (("10 ms exposure", EXPOSURE), ("no time", 0.0)):
        before = {each: cpu_of(pid) for each, pid in pids.items()}
        rates = engine_rates(settings, asked, exposure, with_writers, alone)
        points = (asked.repeats + 1) * asked.points
        used = {each: (cpu_of(pid) - before[each]) * 1e3 / points for each, pid in pids.items()}
        ours, theirs = (statistics.median(each) for each in rates)
        enough = ours >= TARGETS["speed"] * theirs
        met.append(report(f"RunEngine with writers, {name}, median", "points/s", ours, theirs, is_met=enough))
        print("  CPU, ms a point: " + ", ".join(f"{each} {cost:.2f}" for each, cost in used.items()))

    found, other = point_delays(on_redis, run_of(asked.points)), echo_delays(settings, asked.points)
    for name, part in (("median", 0.5), ("p95", 0.95)):
        ours, theirs = percentile(found, part) * 1e3, percentile(other, part) * 1e3
        met.append(report(f"completing document to point, {name}", "ms", ours, theirs, is_met=ours <= TARGETS["point"]))
    return met


if __name__ == "__main__":
    sys.exit(main())
