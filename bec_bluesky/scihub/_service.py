"""The SciHub service: takes in what happens to runs, and delivers it to connectors without ever holding anybody up."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import msgspec

from bec_bluesky.channels import FILES, RUNS, Channel
from bec_bluesky.messages.products import FileGrowing, FileReady, RunClosed, RunOpened
from bec_bluesky.scihub._connectors import Connector, LogbookFile
from bec_bluesky.scihub._journal import Entry, Journal
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings

__all__ = ["SciHub"]

_LONGEST_PAUSE = 300.0
"""Seconds between two tries at most."""


class SciHub(Service):
    """Keeps the run log (`<data>/scihub.sqlite`) and delivers its entries to logbook and catalogues."""

    name: ClassVar[str] = "scihub"

    def __init__(self, settings: Settings, connectors: list[Connector] | None = None) -> None:
        super().__init__(settings)
        self._journal = Journal(settings.data_dir / "scihub.sqlite")
        self._connectors = connectors or [LogbookFile(settings.data_dir / "logbook.jsonl")]
        # SQLite objects belong to one thread; connectors may take long and get threads of their own
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scihub")
        self._something_posted = asyncio.Event()

    async def start(self) -> None:
        """Open the run log, take in what happened meanwhile, deliver."""
        await self._in_thread(self._journal.__enter__)
        self.spawn(self._take_in(RUNS, self._run), "runs")
        self.spawn(self._take_in(FILES, self._file), "files")
        for connector in self._connectors:
            self.spawn(self._deliver(connector), connector.name)

    async def finish(self) -> None:
        """Close the run log; what is undelivered is delivered by the next start."""
        await self._in_thread(self._journal.__exit__)
        self._thread.shutdown(wait=False)

    async def _take_in(self, channel: Channel, note: Callable[[Any], Entry | None]) -> None:
        after = await self._in_thread(self._journal.cursor, channel.name)
        async for stream_id, message in self.bus.follow(channel, after):
            await self._in_thread(self._write, channel.name, stream_id, message, note)
            self._something_posted.set()

    def _write(self, stream: str, stream_id: str, message: Any, note: Callable[[Any], Entry | None]) -> None:
        with self._journal.together():
            entry = note(message)
            if entry is not None:
                for connector in self._connectors:
                    self._journal.post(connector.name, entry)
            self._journal.move(stream, stream_id)

    def _run(self, message: RunOpened | RunClosed) -> Entry | None:
        if isinstance(message, RunOpened):
            self._journal.opened(message.run_uid, message.scan_id, message.plan_name, message.user, message.time)
            return None
        self._journal.closed(message.run_uid, message.time, message.exit_status, message.documents)
        facts = self._journal.run_facts(message.run_uid)
        return Entry(f"{message.run_uid}:closed", "run_closed", message.run_uid, facts)

    def _file(self, message: FileGrowing | FileReady) -> Entry | None:
        if isinstance(message, FileGrowing):
            return None
        self._journal.file(message.run_uid, message.writer, message.path, message.size, message.problems)
        facts = msgspec.to_builtins(message)
        key = f"{message.run_uid}:{message.writer}:{message.path}"  # a file that was moved is told anew
        return Entry(key, "file_ready", message.run_uid, facts)

    async def _deliver(self, connector: Connector) -> None:
        while True:
            self._something_posted.clear()
            for number, entry, tries in await self._in_thread(self._journal.due, connector.name, time.time()):
                try:
                    await asyncio.to_thread(connector.deliver, entry)
                except Exception as error:  # noqa: BLE001  # here the service meets a plug-in and a remote place
                    pause = min(2.0**tries, _LONGEST_PAUSE)
                    problem = f"{type(error).__name__}: {error}"
                    await self._in_thread(self._journal.postpone, number, time.time() + pause, problem)
                    self.note = f"{connector.name} takes nothing: {problem}"
                    break  # in order: what comes later waits too
                await self._in_thread(self._journal.delivered, number)
                self.note = ""
            self.facts = {"undelivered": await self._in_thread(self._journal.waiting)}
            try:
                async with asyncio.timeout(1.0):
                    await self._something_posted.wait()
            except TimeoutError:
                pass  # look again for what is due by time

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
