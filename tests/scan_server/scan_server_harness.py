"""A scan server in this process, and a client that asks it and waits for what it wants to see."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from bec_bluesky.bus import Caller
from bec_bluesky.messages.queue import GetHistory, GetQueue, GetStatus, History, Queue, QueueItem, ScanServerStatus
from bec_bluesky.scan_server import Patience, ScanServer
from bec_bluesky.settings import Settings

SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))
IMPATIENT = Patience(silence=2.0, wait_for_check=0.3, check=2.0, halt=1.0, memory=500_000_000)


@contextlib.asynccontextmanager
async def serving(server: ScanServer) -> AsyncIterator[ScanServer]:
    """Run a scan server while the block lasts; what ends it is raised."""
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        server.stop()
        await task


@contextlib.asynccontextmanager
async def process(settings: Settings, **options: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a scan server as a process of its own, with options of its constructor; killed at the end."""
    code = (
        "import sys; from bec_bluesky.scan_server import ScanServer; from bec_bluesky.service import main; "
        f"make = lambda settings: ScanServer(settings, worker_command={SCRIPTED!r}, **{options!r}); "
        "sys.exit(main(make, name='scan_server'))"
    )
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, **settings.environment()}
    )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.01)


class Client:
    """Asks, and waits for what it wants to see."""

    def __init__(self, caller: Caller) -> None:
        self.ask = caller.ask

    async def status(self) -> ScanServerStatus:
        return await self.ask(GetStatus())

    async def queue(self, timeout: float = 10.0) -> Queue:
        return await self.ask(GetQueue(), timeout=timeout)

    async def history(self) -> list[QueueItem]:
        page: History = await self.ask(GetHistory())
        return page.items

    async def until_status(self, **wanted: object) -> ScanServerStatus:
        """Wait until the status has these values."""

        async def has_them() -> bool:
            status = await self.status()
            return all(getattr(status, name) == value for name, value in wanted.items())

        try:
            await until(has_them)
        except TimeoutError:
            raise AssertionError(f"wanted {wanted}, it is {await self.status()}") from None
        return await self.status()

    async def until_ended(self, count: int) -> list[QueueItem]:
        """Wait until so many items have ended; give them, newest first."""
        await self.until_status(history=count)
        return await self.history()
