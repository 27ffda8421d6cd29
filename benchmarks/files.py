"""How fast the NeXus writer takes a run, and how soon after its end the file is there.

    python benchmarks/files.py [--events 20000] [--frames 200] [--devices 200] [--repeats 3]

Compared in one run, on the same disk, with h5py used as in its introduction: a row a time into resizable data sets, and
frames of 2 MB with a chunk each. Both get the same values; the sides alternate, and the best of the repeats is shown.
The writer also keeps timestamps, all documents and units, makes the tree of NeXus, brings all to the disk (frames by
h5py are measured with and without that), and computes a checksum.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from event_model import compose_run  # noqa: E402

from bec_bluesky.documents import FileReady  # noqa: E402
from writers.nexus import NexusWriter  # noqa: E402

COLUMNS = 10
FRAME = (1024, 1024)
"""Pixels of two bytes: 2 MB."""
SOON = 1000
"""Events of the run whose end is measured."""
_NUMBER: dict[str, Any] = {"dtype": "number", "shape": [], "source": "benchmark"}
_FRAMES: dict[str, Any] = {"dtype": "array", "dtype_numpy": "<u2", "shape": list(FRAME), "source": "benchmark"}
Documents = list[tuple[str, dict[str, Any]]]


def documents(rows: list[dict[str, Any]], keys: dict[str, Any], devices: int) -> tuple[Documents, Documents, Documents]:
    """Give what opens a run, its events, and what ends it; the keys are spread over so many devices."""
    run = compose_run(metadata={"scan_id": 1, "plan_name": "benchmark"})
    names = list(keys)
    objects = {f"dev{number}": names[number::devices] for number in range(devices)}
    described = run.compose_descriptor(
        name="primary",
        data_keys=keys,
        object_keys=objects,
        configuration={name: {"data": {}, "timestamps": {}, "data_keys": {}} for name in objects},
        hints={name: {"fields": own[:1]} for name, own in objects.items()},
        validate=False,
    )
    descriptor = described.descriptor_doc["uid"]
    events: Documents = [
        (
            "event",
            {
                "descriptor": descriptor,
                "uid": f"{descriptor}/{number}",
                "seq_num": number,
                "time": 1000.0 + number * 1e-3,
                "data": row,
                "timestamps": dict.fromkeys(keys, 1000.0 + number * 1e-3),
                "filled": {},
            },
        )
        for number, row in enumerate(rows, 1)
    ]
    head: Documents = [("start", dict(run.start_doc)), ("descriptor", {**described.descriptor_doc, "time": 1000.0})]
    return head, events, [("stop", {**run.compose_stop(validate=False), "num_events": {"primary": len(rows)}})]


@dataclass(frozen=True)
class Taken:
    """Seconds from the first event on."""

    events: float
    """Until the last event was taken."""
    named: float
    """Until the complete file had its name, on the disk."""
    ready: float
    """Until it was announced with its checksum."""


def ours(directory: Path, rows: list[dict[str, Any]], keys: dict[str, Any], devices: int = 1) -> Taken:
    """Write a run, as a document service does."""
    head, events, stop = documents(rows, keys, devices)
    found: list[Any] = []
    writer = NexusWriter(directory=directory, emit=found.append, min_free=0, wait_for_results=0.0)
    writer.tick()
    for name, doc in head:
        writer(name, doc)
    began = time.perf_counter()
    for name, doc in events:
        writer(name, doc)
        writer.tick()
    taken = time.perf_counter() - began
    for name, doc in stop:
        writer(name, doc)
    named = time.perf_counter() - began
    while not any(isinstance(product, FileReady) for product in found):
        time.sleep(0.001)
        writer.tick()
    ready = time.perf_counter() - began
    writer.close()
    return Taken(taken, named, ready)


def by_hand(directory: Path, rows: list[dict[str, Any]], keys: dict[str, Any], *, to_disk: bool = False) -> float:
    """Give the seconds that h5py takes for a row a time, flushed at the end; `to_disk` waits for the disk, too."""
    began = time.perf_counter()
    path = directory / "by-hand.h5"
    with h5py.File(path, "w") as file:
        sets = {
            key: file.create_dataset(
                key,
                (0, *described["shape"]),
                maxshape=(None, *described["shape"]),
                chunks=(1, *described["shape"]) if described["shape"] else (1024,),
                dtype=described.get("dtype_numpy", "<f8"),
            )
            for key, described in keys.items()
        }
        for number, row in enumerate(rows):
            for key, value in row.items():
                sets[key].resize(number + 1, axis=0)
                sets[key][number] = value
        file.flush()
    if to_disk:
        with path.open("rb") as written:
            os.fsync(written.fileno())
    return time.perf_counter() - began


def after_stop(taken: Taken) -> float:
    """Give the seconds from the stop document to the announcement."""
    return taken.ready - taken.events


def best(repeats: int, *sides: Callable[[Path], float]) -> list[float]:
    """Give the least of each side's seconds; the sides alternate."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for taken, side in zip(times, sides, strict=True):
            with tempfile.TemporaryDirectory(prefix="files-", dir=ROOT) as directory:
                taken.append(side(Path(directory)))
    return [min(taken) for taken in times]


def main() -> int:
    """Measure, and print a line each with what both sides took, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    keys = {f"k{number}": _NUMBER for number in range(COLUMNS)}
    rows = [{key: number + column / COLUMNS for column, key in enumerate(keys)} for number in range(asked.events)]
    few = rows[: max(100, asked.events // 20)]  # it is slow
    mine, theirs = best(asked.repeats, lambda d: ours(d, rows, keys).ready, lambda d: by_hand(d, few, keys))
    rate, slow = len(rows) / mine, len(few) / theirs
    print(f"scalars, {COLUMNS} columns: {rate:,.0f} events/s, row by row {slow:,.0f}: ratio {rate / slow:.1f}")

    frames = np.random.default_rng(1).integers(0, 2**14, (4, *FRAME), dtype="<u2")
    shots = [{"cam": frames[number % 4]} for number in range(asked.frames)]
    camera = {"cam": _FRAMES}
    named, ready, theirs, on_disk = best(
        asked.repeats,
        lambda d: ours(d, shots, camera).named,
        lambda d: ours(d, shots, camera).ready,
        lambda d: by_hand(d, shots, camera),
        lambda d: by_hand(d, shots, camera, to_disk=True),
    )
    size = asked.frames * frames[0].nbytes / 1e6
    print(f"frames of 2 MB, by hand: {size / theirs:,.0f} MB/s, to the disk {size / on_disk:,.0f}")
    for what, mine in (("on the disk under its name", named), ("announced with its checksum", ready)):
        rates = f"ratio {theirs / mine:.2f} by hand, {on_disk / mine:.2f} by hand to the disk"
        print(f"frames of 2 MB, until the file is {what}: {size / mine:,.0f} MB/s, {rates}")

    soon = rows[:SOON]
    many = {f"d{number}": _NUMBER for number in range(asked.devices)}
    wide = [dict.fromkeys(many, float(number)) for number in range(100)]
    first, second = best(
        asked.repeats,
        lambda d: after_stop(ours(d, soon, keys)),
        lambda d: after_stop(ours(d, wide, many, asked.devices)),
    )
    print(f"file ready after stop: {first * 1e3:.0f} ms with {len(soon)} events of {COLUMNS} columns")
    ratio = f"ratio {second / first:.1f} to the former"
    print(f"file ready after stop: {second * 1e3:.0f} ms with {asked.devices} devices: {ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
