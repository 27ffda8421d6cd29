"""Scan numbers on a real Redis that loses its data, with workers that are lost with it."""

import asyncio
from pathlib import Path

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SCAN_ID
from bec_bluesky.scan_server.worker._scan_numbers import ScanNumbers


async def test_numbers_go_on_when_redis_and_the_workers_are_lost_together(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "data" / "scan-number"
    assert [await ScanNumbers(bus, file).take() for _ in range(12)] == list(range(1, 13))
    await bus.redis.delete(bus.key(SCAN_ID))
    assert await ScanNumbers(bus, file).take() == 13


async def test_workers_of_several_queues_never_lower_the_kept_number(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "scan-number"
    workers = [ScanNumbers(bus, file) for _ in range(8)]
    taken = await asyncio.gather(*(worker.take() for worker in workers))
    taken += await asyncio.gather(*(worker.take() for worker in workers))
    assert sorted(taken) == list(range(1, 17))
    assert int(file.read_text()) == 16


async def test_without_a_file_numbers_are_those_of_redis(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "spoiled").write_text("no number")
    assert await ScanNumbers(bus, tmp_path / "spoiled").take() == 1
    numbers = ScanNumbers(bus, tmp_path)  # a directory cannot be written
    assert [await numbers.take() for _ in range(2)] == [2, 3]
    await bus.redis.set(bus.key(SCAN_ID), 41)
    assert await numbers.take() == 42
