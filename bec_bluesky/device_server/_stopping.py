"""Stopping: everything at once, or what a lost client left behind."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._entry import Entry
from bec_bluesky.device_server._monitors import Monitors
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.device_server._steps import Steps
from bec_bluesky.errors import RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import DeviceInfo, Op

__all__ = ["MOVING_VERBS", "Stopping"]

_log = logger(__name__)
_LONGEST_STOP = 1.0
"""Seconds in which a device must have confirmed that it stopped."""
_NOBODY = ""
"""Client of what is cleaned up after a lost one."""
_MOST_TOKENS = 4096
MOVING_VERBS = frozenset({"set", "put", "prepare", "trigger", "stage", "kickoff", "configure"})
"""What a plan may no longer do after a panic stop; `complete`, `unstage` and `stop` are its clean-up."""


class Stopping:
    """Stops devices at the same time, in threads of its own: those that execute may all be blocked."""

    def __init__(
        self,
        registry: Registry,
        statuses: Statuses,
        monitors: Monitors,
        steps: Steps,
        do: Callable[[str, str, str], None],
        token_of: Callable[[str, str], str],
    ) -> None:
        """`do(path, verb, token)` has an operation carried out after those on its device that were accepted before.

        `token_of(client, path)` gives the token by which a client holds a device, if it does.
        """
        self._registry = registry
        self._statuses = statuses
        self._monitors = monitors
        self._steps = steps
        self._do = do
        self._token_of = token_of
        self.threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="stop")
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """{path: its `stop`, which may hang}"""
        self._tokens: dict[str, str] = {}
        """{token: when everything was stopped while it was in use, or nothing}; the newest last."""

    async def stop_all(self) -> dict[str, str]:
        """Stop every device that can be stopped; give {path: what went wrong}.

        Whoever holds devices by a token, a plan, moves nothing any more: the next `set` would undo the stop.
        """
        now = time.strftime("%H:%M:%S")
        self._tokens = {token: when or now for token, when in self._tokens.items()}
        self._steps.give_up_all()
        paths = [path for entry in self._registry.connected() for path in _stoppable(entry.infos)]
        _log.warning("everything is stopped: %d devices", len(paths))
        return await self._stop_paths(paths)

    def check(self, token: str, op: Op) -> None:
        """Raise RefusedError if everything was stopped since the holder of this token began, and it goes on moving."""
        when = self._tokens.pop(token, "")
        self._tokens[token] = when
        if len(self._tokens) > _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        if when and op.verb in MOVING_VERBS:
            raise RefusedError(
                f"{op.device}.{op.verb} is not carried out: a panic stop at {when} ended this plan; start it again",
                "panic_stop",
            )

    def clients(self) -> set[str]:
        """Give the clients that would leave something behind."""
        return (self._statuses.clients() | self._monitors.clients()) - {_NOBODY}

    async def lose_client(self, client: str) -> dict[str, str]:
        """Stop what a client moved, unstage what it staged, end its subscriptions; give {path: what went wrong}.

        What has `on_client_lost: continue` goes on moving, and stays staged.
        """
        self._monitors.remove_all(client)
        self._steps.give_up(client)
        mine = [each for each in self._statuses.running if each.batch.client == client and not each.is_orphaned]
        flying = self._statuses.take_flying(client)
        staged = [path for path in self._statuses.take_staged(client) if self._is_to_stop(path)]
        for running in mine:
            running.is_orphaned = True
        moving = dict.fromkeys([each.op.device for each in mine] + flying)
        stoppable = [path for path in moving if self._is_to_stop(path) and self._can_stop(path)]
        failures = await self._stop_paths(stoppable)
        for path in flying:
            if path in stoppable:
                self._end_flight(path)
        for path in reversed(staged):
            self._do(path, "unstage", self._token_of(client, path))
        if stoppable or staged:
            _log.warning("client %s is gone: stopped %s, unstaged %s", client, stoppable, staged)
        return failures

    async def stop_device(self, entry: Entry) -> None:
        """Stop a device that is to be let go of; what goes wrong is logged."""
        await self._stop_paths(_stoppable(entry.infos))

    def _is_to_stop(self, path: str) -> bool:
        entry = self._registry.entries.get(path.partition(".")[0])
        return entry is not None and entry.spec.on_client_lost == "stop"

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
        """Stop at once; what was accepted before is stopped in its turn, too."""
        paths = list(paths)
        for path in paths:
            self._do(path, "stop", "")
        return dict(item for item in await asyncio.gather(*map(self._stop, paths)) if item[1])

    async def _stop(self, path: str) -> tuple[str, str]:
        stop = self._under_way.get(path)  # one that hangs is waited for once more, and not called again
        if stop is None:
            stop = asyncio.ensure_future(self._call_stop(path))
            self._under_way[path] = stop
            stop.add_done_callback(lambda done: self._ended(path, done))
        done, _ = await asyncio.wait([stop], timeout=_LONGEST_STOP)
        if not done:
            _log.error("%s does not return from stop()", path, extra={"device": path})
            return path, f"its stop() has not returned for {_LONGEST_STOP:g} s"
        try:
            stop.result()
        except Exception as error:  # noqa: BLE001  # the others must be stopped whatever this one says
            _log.error("%s could not be stopped: %s", path, error, extra={"device": path})
            return path, f"{type(error).__name__}: {error}"
        return path, ""

    async def _call_stop(self, path: str) -> None:
        await _layers.stop(self._registry.find(path).device, self.threads)

    def _ended(self, path: str, stop: "asyncio.Task[None]") -> None:
        del self._under_way[path]
        if not stop.cancelled():
            stop.exception()  # who waited for it has told

    def close(self) -> None:
        """Wait for no `stop` that hangs."""
        for stop in list(self._under_way.values()):
            stop.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)


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
