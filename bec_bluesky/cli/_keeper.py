"""Keeps one process running: starts it, starts it again when it crashes, stops it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bec_bluesky.cli._parts import Part
from bec_bluesky.cli._processes import Identity, identify, step_back
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.log import logger

__all__ = ["Keeper", "StartFailedError"]

_log = logger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a crashed process is started again; doubled each time."""
_STABLE = 60.0
"""Seconds after which a crash counts as the first one."""

Say = Callable[[str], None]


class StartFailedError(BecBlueskyError):
    """A part of the system ended before it was ready."""


class Keeper:
    """One part of the system and its process."""

    def __init__(self, part: Part, environment: dict[str, str], log_dir: Path, say: Say) -> None:
        self.part = part
        self.output = log_dir / f"{part.name}.out"
        self.is_ready = False
        """Whether it was ever ready; set by the supervisor."""
        self.identity: Identity | None = None
        self._environment = environment
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._output_start = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start the process, in a session of its own; its output is appended to `<logs>/<name>.out`."""
        descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._output_start = os.fstat(descriptor).st_size
            self._process = await asyncio.create_subprocess_exec(
                *self.part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailedError(f"{self.part.name}: {self.part.command[0]!r} cannot be run: {error}") from None
        finally:
            os.close(descriptor)
        self.identity = identify(self._process.pid)
        if self.is_ready:  # started again: a run may go on meanwhile
            self.step_back()

    def step_back(self) -> None:
        """Let the process go after others that want the processor, if it is one that can."""
        if self._process is not None and self.part.niceness:
            step_back(self._process.pid, self.part.niceness)

    async def keep(self, started: Callable[[], None]) -> None:
        """Watch the process, starting it again after a crash; `started` is called then.

        Raises StartFailedError if it ends before it was ever ready.
        """
        pause = _FIRST_PAUSE
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._process.wait()
            if self._is_stopping:
                return
            self._end_group()
            if not self.is_ready:
                raise StartFailedError(self._why(code))
            if time.monotonic() - began > _STABLE:
                pause = _FIRST_PAUSE
            text = f"{self.part.name} {_ended(code)}: started again in {pause:g} s ({self.output})"
            _log.error(text)
            self._say(text)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if self._is_stopping:
                return
            await self.start()
            started()

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Ask the process to end; kill it after its grace time, or at once when `hurry` is set."""
        self._is_stopping = True
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        waiting = asyncio.ensure_future(self._process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({waiting, hurried}, timeout=self.part.grace, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                self._say(f"{self.part.name} did not stop: killed")
                _log.error("%s did not stop within %g s: killed", self.part.name, self.part.grace)
            self._end_group()
            await waiting
        finally:
            waiting.cancel()
            hurried.cancel()

    def _end_group(self) -> None:
        """Kill what is left of the process's session."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _why(self, code: int) -> str:
        """Say why it did not start: its own last words."""
        try:
            with self.output.open("rb") as file:
                file.seek(self._output_start)
                lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        # a service ends with `name: why`, which may go on over several lines
        starts = [number for number, line in enumerate(lines) if line.startswith(f"{self.part.name}: ")]
        lines = lines[starts[-1] :] if starts else lines[-1:]
        said = "; ".join(lines).removeprefix(f"{self.part.name}: ") if lines else "it said nothing"
        return f"{self.part.name} did not start ({_ended(code)}): {said} (all of it: {self.output})"


def _ended(code: int) -> str:
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
