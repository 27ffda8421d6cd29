"""A scan server that lives in a thread of its own, for tests that are not coroutines, such as hypothesis' machines."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.messages.queue import GetHistory, GetQueue, GetStatus, QueueItem, RequestBody, ScanServerStatus
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.settings import Settings
from tests.patience import PATIENCE
from tests.scan_server.scan_server_harness import serving

__all__ = ["LiveScanServer", "live_scan_server"]


class LiveScanServer:
    """Asks the scan server, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: ScanServer, bus: Bus, caller: Caller) -> None:
        self.loop = loop
        self.server = server
        self.bus = bus
        self.caller = caller

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def ask(self, body: RequestBody) -> Any:
        return self.call(self.caller.ask(body, timeout=20.0))

    def status(self) -> ScanServerStatus:
        return self.ask(GetStatus())

    def waiting(self) -> list[QueueItem]:
        return self.ask(GetQueue()).waiting

    def ended(self, limit: int = 1) -> list[QueueItem]:
        """Give what has ended, newest first."""
        return self.ask(GetHistory(limit=limit)).items

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true; raises TimeoutError."""

        async def look() -> None:
            async with asyncio.timeout(PATIENCE / 2):
                while not await asyncio.to_thread(condition):
                    await asyncio.sleep(0.005)

        self.call(look())


@contextlib.contextmanager
def live_scan_server(settings: Settings, **options: Any) -> Iterator[LiveScanServer]:
    """Run a scan server, with options of its constructor, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="live scan server")
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    async def enter(stack: contextlib.AsyncExitStack) -> LiveScanServer:
        server = await stack.enter_async_context(serving(ScanServer(settings, **options)))
        bus = await stack.enter_async_context(Bus(settings.redis_url or "", settings.beamline))
        return LiveScanServer(loop, server, bus, await stack.enter_async_context(Caller(bus, user="ann")))

    stack = contextlib.AsyncExitStack()
    try:
        yield call(enter(stack))
    finally:
        call(stack.aclose())
        call(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()
