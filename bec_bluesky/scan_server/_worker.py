"""What is known of one worker."""

import asyncio

from bec_bluesky.messages.worker import CheckResult, ModulesReloaded
from bec_bluesky.scan_server._activity import Job
from bec_bluesky.scan_server._worker_process import WorkerProcess

__all__ = ["Worker"]


class Worker:
    """A process, what it runs, and what it was asked."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.is_ready = False
        self.is_spoiled = False
        """Whether its RunEngine can't be used again."""
        self.device_client = ""
        self.job: Job | None = None
        self.checks: dict[str, asyncio.Future[CheckResult]] = {}
        self.reloads: list[asyncio.Future[ModulesReloaded]] = []
        """Of plans and scripts, in the order in which they were asked for."""

    @property
    def is_free(self) -> bool:
        return self.is_ready and not self.is_spoiled and self.job is None and not self.reloads
