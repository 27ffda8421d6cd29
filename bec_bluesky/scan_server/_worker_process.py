"""One worker or task process: its start, the frames to and from it, its end."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bec_bluesky.log import logger
from bec_bluesky.messages.worker import FromWorker, Ping, Shutdown, ToWorker, WorkerReady
from bec_bluesky.scan_server._console import Console, Tail
from bec_bluesky.scan_server._frames import FrameReader, frame
from bec_bluesky.settings import Settings

__all__ = ["WORKER_COMMAND", "WorkerProcess"]

_log = logger(__name__)
WORKER_COMMAND = (sys.executable, "-m", "bec_bluesky.scan_server.worker")
_PING_PERIOD = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_START = 90.0
"""Seconds until a worker must be ready."""
_OUTPUTS_KEPT = 20
"""Files with what workers printed; as many of task processes."""
_TAIL = 10_000
"""Bytes of its end that are looked at when a worker dies."""
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)')
_LIBRARIES = ("site-packages", "/lib/python", "bec_bluesky/", "<frozen")


class WorkerProcess:
    """A worker in a session of its own, at the other end of a socket pair.

    It lives in `run()`, which ends when the process has; `why` says then what became of it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: tuple[str, ...] = WORKER_COMMAND,
        on_message: Callable[["WorkerProcess", FromWorker], None],
        silence: float = 10.0,
        memory: int = 0,
        number: int = 0,
        kind: str = "worker",
        console: Console | None = None,
        source: str = "worker",
    ) -> None:
        """It is ended after `silence` seconds without a sign of life, and beyond `memory` bytes (0: it may have any).

        `kind` is what people call it; what it prints is published on `console` in the name of `source`.
        """
        self._settings = settings
        self._command = command
        self._on_message = on_message
        self._silence = silence
        self._memory = memory
        self._number = number
        self._kind = kind
        self._console, self._source = console, source
        self._tail: Tail | None = None
        """Follows what it prints, while it lives."""
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._is_heard = True
        self._is_ready = False
        self._ended_because = ""
        self._output: Path | None = None
        self.why = ""
        """One sentence, once it has ended."""
        self.is_expected_to_end = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def is_connected(self) -> bool:
        """Whether what is sent arrives, now or when it is ready."""
        return self._writer is not None and not self._writer.is_closing()

    def send(self, message: ToWorker) -> None:
        """Send a frame; to a worker that has just died it goes nowhere."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    @property
    def output(self) -> str:
        """The end of what it printed since it got its present name."""
        return "" if self._tail is None else self._tail.output

    def prints_as(self, source: str, item_id: str = "") -> str:
        """Have what it prints from now on published in another name; gives the end of what it printed before."""
        if self._console is None or self._tail is None:
            return ""
        self._console.catch_up(self._tail)
        output = self._tail.output
        self._tail.begin(source, item_id)
        return output

    def shut_down(self) -> None:
        """Ask it to abort what runs, clean up and exit."""
        self.is_expected_to_end = True
        self.send(Shutdown())

    def kill(self, because: str) -> None:
        """End it and its children at once; `because` becomes the reason."""
        self._ended_because = self._ended_because or because
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def run(self) -> None:
        """Start it, hand on what it says, and give its end; cancelled, it is killed."""
        ours, theirs = socket.socketpair()
        output = self._open_output()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--fd",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self._settings.environment(), "PYTHONFAULTHANDLER": "1"},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(output)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        if self._console is not None and self._output is not None:
            self._tail = self._console.follow(self._output, self._source)
        if self.is_expected_to_end:  # asked for while it was being started
            self.send(Shutdown())
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch(), name=f"watch {self._kind} {self.pid}")
                await self._hear(reader)
                code = await self._exit_code()
                watch.cancel()
            self.why = self._describe(code)
        finally:
            self.kill("the scan server let go of it")
            self._writer.close()
            await self._process.wait()
            if self._console is not None and self._tail is not None:
                self._console.leave(self._tail)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader(reader, FromWorker)
        try:
            while (message := await frames.read()) is not None:
                self._is_heard = True
                self._is_ready = self._is_ready or isinstance(message, WorkerReady)
                self._on_message(self, message)
        except ConnectionError as error:
            self.kill(str(error))

    async def _exit_code(self) -> int:
        assert self._process is not None
        try:
            async with asyncio.timeout(5.0):
                return await self._process.wait()
        except TimeoutError:
            self.kill("it closed its connection and did not exit")
            return await self._process.wait()

    async def _watch(self) -> None:
        """Ping; a worker that says nothing for too long, or takes too much memory, is ended.

        Counted in our own turns, so that a scan server which was itself suspended does not blame the worker.
        """
        silent = 0
        number = 0
        while True:
            number += 1
            self._is_heard = False
            if self._is_ready:
                self.send(Ping(number=number))
            await asyncio.sleep(_PING_PERIOD)
            if self._memory and (used := self._resident()) > self._memory:
                self.kill(
                    f"it had {used / 1e6:,.0f} MB in memory, and may have {self._memory / 1e6:,.0f} MB ([worker])"
                )
            silent = 0 if self._is_heard else silent + 1
            if silent * _PING_PERIOD >= (self._silence if self._is_ready else _LONGEST_START):
                verb = "answer" if self._is_ready else "get ready"
                self.kill(f"it did not {verb} for {silent * _PING_PERIOD:g} s")

    def _resident(self) -> int:
        """Give the bytes that it has in memory; 0 if that is not known (any more)."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def _describe(self, code: int) -> str:
        if self._ended_because:
            return f"the {self._kind} process was ended: {self._ended_because}"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = "unknown"
            return f"the {self._kind} process was killed by signal {-code} ({name})" + self._last_words()
        if code == 0:
            return f"the {self._kind} process exited"
        return f"the {self._kind} process exited with code {code}" + self._last_words()

    def _last_words(self) -> str:
        """Quote the last line that it printed, if there is any."""
        try:
            text = self._output.read_bytes()[-_TAIL:].decode(errors="replace") if self._output is not None else ""
        except OSError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            return ""
        said = _fatal_error(lines) or f"it said last: {lines[-1][:300]}"
        return f"; {said} (more in {self._output})"

    def _open_output(self) -> int:
        """Open a file for what it prints: a file, not a pipe, so that it may print when this process is gone."""
        directory = self._settings.log_dir / f"{self._kind}s"
        directory.mkdir(parents=True, exist_ok=True)
        for old in sorted(directory.glob("*.out"))[: -(_OUTPUTS_KEPT - 1)]:
            old.unlink(missing_ok=True)
        clock = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._output = directory / f"{clock}-{os.getpid()}-{self._number:04d}.out"
        return os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _fatal_error(lines: list[str]) -> str:
    """Say of what Python tells when it crashes the error and the innermost line that is no library's."""
    fatal = [number for number, line in enumerate(lines) if line.startswith("Fatal Python error: ")]
    if not fatal:
        return ""
    error = lines[fatal[-1]].removeprefix("Fatal Python error: ")
    begin = next((n for n, line in enumerate(lines) if n > fatal[-1] and line.startswith("Current thread")), fatal[-1])
    for line in lines[begin + 1 :]:
        frame = _FRAME.match(line)
        if frame is None:
            break
        if not any(part in frame["file"] for part in _LIBRARIES):
            return f"{error} ({frame['name']} in {Path(frame['file']).name}, line {frame['line']})"
    return error
