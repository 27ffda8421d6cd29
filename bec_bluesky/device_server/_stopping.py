"""Stopping: everything at once, or what a lost client left behind."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._monitors import Monitors
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.device_server._steps import Steps
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import DeviceInfo, Instruction, Op

__all__ = ["Stopping"]

_log = logger(__name__)


class Stopping:
    """Stops devices at the same time, in threads of its own: those that execute may all be blocked."""

    def __init__(
        self,
        registry: Registry,
        statuses: Statuses,
        monitors: Monitors,
        steps: Steps,
        execute: Callable[[Instruction], None],
    ) -> None:
        self._registry = registry
        self._statuses = statuses
        self._monitors = monitors
        self._steps = steps
        self._execute = execute
        self.threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="stop")

    async def stop_all(self) -> dict[str, str]:
        """Stop every device that can be stopped; give {path: what went wrong}."""
        self._steps.give_up_all()
        paths = [path for entry in self._registry.connected() for path in _stoppable(entry.infos)]
        _log.warning("everything is stopped: %d devices", len(paths))
        return await self._stop_paths(paths)

    async def lose_client(self, client: str) -> dict[str, str]:
        """Stop what a client moved, unstage what it staged, end its subscriptions; give {path: what went wrong}."""
        self._monitors.remove_all(client)
        self._steps.give_up(client)
        moving = {each.op.device for each in self._statuses.running if each.batch.client == client}
        flying = [path for path, owner in self._statuses.flying.items() if owner == client]
        moving.update(flying)
        stoppable = [path for path in moving if self._can_stop(path)]
        failures = await self._stop_paths(stoppable)
        for path in flying:
            self._statuses.flying.pop(path, None)
            if path in stoppable:
                self._end_flight(path)
        staged = [path for path, owner in self._statuses.staged.items() if owner == client]
        for path in reversed(staged):
            self._execute(Instruction(client, "", [Op(0, path, "unstage")]))
        if stoppable or staged:
            _log.warning("client %s is gone: stopped %s, unstaged %s", client, stoppable, staged)
        return failures

    def _end_flight(self, path: str) -> None:
        """Take notice of the end of a flight that nobody will `complete`, or asyncio complains of its error."""
        found = self._registry.find(path)
        if found.layer == "ophyd-async" and hasattr(found.device, "complete"):
            with contextlib.suppress(Exception):  # what it raises is nobody's business any more
                found.device.complete().add_callback(lambda status: status.exception())

    def _can_stop(self, path: str) -> bool:
        try:
            return hasattr(self._registry.find(path).device, "stop")
        except LookupError:
            return False

    async def _stop_paths(self, paths: Iterable[str]) -> dict[str, str]:
        return dict(item for item in await asyncio.gather(*map(self._stop, paths)) if item[1])

    async def _stop(self, path: str) -> tuple[str, str]:
        try:
            await _layers.stop(self._registry.find(path).device, self.threads)
        except Exception as error:  # noqa: BLE001  # the others must be stopped whatever this one says
            _log.error("%s could not be stopped: %s", path, error, extra={"device": path})
            return path, f"{type(error).__name__}: {error}"
        return path, ""


def _stoppable(infos: Iterable[DeviceInfo]) -> list[str]:
    """Give the paths that can be stopped; a device of ophyd stops its parts itself."""
    found: list[str] = []
    stops_its_parts: list[str] = []
    for info in infos:
        if "stop" not in info.methods or any(info.path.startswith(f"{parent}.") for parent in stops_its_parts):
            continue
        found.append(info.path)
        if info.layer == "ophyd":
            stops_its_parts.append(info.path)
    return found
