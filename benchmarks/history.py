"""The history short and long, by its index and without it, in one run.

    python benchmarks/history.py [--short 100] [--long 100000] [--repeats 20]

Items like those of a beamline, on a private Redis; each time is the best of the repeats, of one page of 50. `without`
looks through the whole stream, as the scan server does where SQLite has no trigrams. It ends with the targets that were
missed, and with 1 if there are any.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS_DONE
from bec_bluesky.messages.queue import GetHistory, ItemDone, ItemResult, QueueItem
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.testing import private_system

_BATCH = 1000
_TARGET = 100.0
"""Milliseconds for whatever is asked of the long history."""
_QUESTIONS: dict[str, dict[str, Any]] = {
    "newest page": {},
    "word of one item": {"text": "needle"},
    "word of none": {"text": "haystack"},
    "two letters of one item": {"text": "qz"},
    "word of all": {"text": "alignment"},
    "user of one item": {"user": "zoe"},
    "status of 1 in 20": {"status": "failed"},
    "word of all, user of one": {"text": "alignment", "user": "zoe"},
    "user and sample of no item together": {"user": "anna", "sample": "FeO"},
    "scan number": {"scan_id": 8},
    "id of an item": {"item_id": "00000007"},
}


@dataclass
class Times:
    """Milliseconds of each question."""

    indexed: dict[str, float]
    without: dict[str, float]


def items(first: int, count: int) -> list[QueueItem]:
    chance = random.Random(first)
    made: list[QueueItem] = []
    for number in range(first, first + count):
        user = chance.choice(("anna", "bert", "carl"))
        status, reason = ("failed", "samx: 12.5 is above the limit") if chance.random() < 0.05 else ("completed", "")
        run_uid = str(uuid.UUID(int=chance.getrandbits(128)))
        result = ItemResult(exit_status=status, reason=reason, run_uids=[run_uid], scan_ids=[number])
        one: dict[str, Any] = {"user": "zoe", "note": "needle qz"} if number == 7 else {"user": user}
        made.append(
            QueueItem(
                item_id=f"{number:08x}{chance.getrandbits(96):024x}",
                plan=chance.choice(("scan", "count", "grid_scan")),
                args=[["det"], "samx", -1, 1],
                kwargs={"num": 21},
                title=f"alignment {number}",
                sample="CuO" if user == "anna" else "FeO",
                state="done",
                result=result,
                **one,
            )
        )
    return made


async def fill(bus: Bus, first: int, end: int) -> None:
    for start in range(first, end, _BATCH):
        await bus.append_all(ITEMS_DONE, [ItemDone(item=each) for each in items(start, min(_BATCH, end - start))])


async def best(reader: HistoryReader, asked: dict[str, Any], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        await reader.page(GetHistory(**asked))
        times.append(1000 * (time.perf_counter() - begin))
    return min(times)


async def built(reader: HistoryReader) -> float:
    """Put what is missing into the index; give the seconds."""
    begin = time.perf_counter()
    await reader.build_index()
    return time.perf_counter() - begin


async def measured(indexed: HistoryReader, without: HistoryReader, repeats: int) -> Times:
    return Times(
        {name: await best(indexed, asked, repeats) for name, asked in _QUESTIONS.items()},
        {name: await best(without, asked, max(1, repeats // 5)) for name, asked in _QUESTIONS.items()},
    )


async def compare(url: str, directory: Path, short: int, long: int, repeats: int) -> int:
    file = directory / "history.sqlite"
    async with Bus(url, "benchmark") as bus:
        indexed, without = HistoryReader(bus, file), HistoryReader(bus, None)
        try:
            await fill(bus, 0, short)
            await built(indexed)
            of_short = await measured(indexed, without, repeats)
            await fill(bus, short, long)
            seconds = await built(indexed)
            of_long = await measured(indexed, without, repeats)
        finally:
            indexed.close()
        memory: Any = await bus.redis.memory_usage(bus.key(ITEMS_DONE))
    print(f"{'milliseconds':36} {short:>9,} {long:>9,} {'ratio':>7} {'without':>9} {'times':>7}")
    for name, took in of_long.indexed.items():
        before, slow = of_short.indexed[name], of_long.without[name]
        row = f"{name:36} {before:9.2f} {took:9.2f} {took / before:7.1f} {slow:9.1f} {slow / took:7.1f}"
        print(row)
    per_item = memory / long
    print(f"Redis keeps {memory / 1e6:.0f} MB, {per_item:.0f} bytes an item; the index has ", end="")
    print(f"{file.stat().st_size / 1e6:.0f} MB and is made in {seconds:.1f} s")
    missed = [f"{name}: {took:.1f} ms" for name, took in of_long.indexed.items() if took > _TARGET]
    print(f"above {_TARGET:g} ms: {'; '.join(missed) or 'none'}")
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, default=100)
    parser.add_argument("--long", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory)) as settings:
        assert settings.redis_url is not None
        counts = (options.short, options.long, options.repeats)
        return asyncio.run(compare(settings.redis_url, Path(directory), *counts))


if __name__ == "__main__":
    sys.exit(main())
