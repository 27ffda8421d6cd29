"""A service's life: heartbeat, ordered shutdown, and an end when one of its tasks fails."""

import asyncio
from typing import ClassVar

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import SERVICES
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings


class Probe(Service):
    """Notes what happens to it."""

    name: ClassVar[str] = "probe"

    def __init__(self, settings: Settings, *, fails: bool = False) -> None:
        super().__init__(settings)
        self.events: list[str] = []
        self.is_started = asyncio.Event()
        self._fails = fails

    async def start(self) -> None:
        self.spawn(self._work(), "work")
        self.events.append("started")
        self.is_started.set()

    async def finish(self) -> None:
        self.events.append("finished")

    async def _work(self) -> None:
        try:
            if self._fails:
                raise RuntimeError("a part broke")
            await asyncio.Event().wait()
        finally:
            self.events.append("work ended")


async def test_a_service_beats_while_it_runs_and_finishes_before_its_tasks_end(settings: Settings, bus: Bus) -> None:
    service = Probe(settings)
    task = asyncio.create_task(service.run())
    await service.is_started.wait()
    async with asyncio.timeout(5):
        while (beat := await bus.get(SERVICES, service="probe")) is None or beat.state != "running":
            await asyncio.sleep(0.01)
    assert beat.incarnation == service.incarnation
    service.stop()
    await task
    assert service.events == ["started", "finished", "work ended"]
    assert await bus.get(SERVICES, service="probe") is None


async def test_a_task_that_fails_ends_the_service_in_order(settings: Settings) -> None:
    service = Probe(settings, fails=True)
    with pytest.raises(ExceptionGroup) as caught:
        await service.run()
    assert caught.group_contains(RuntimeError, match="a part broke")
    assert "finished" in service.events
