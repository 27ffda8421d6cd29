"""Start a supervisor in the background, and stop one, wherever it came from."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from bec_bluesky import embedded
from bec_bluesky.bus import Bus
from bec_bluesky.channels import SERVICES
from bec_bluesky.cli._lock import Record, read_record
from bec_bluesky.cli._processes import Identity, command_of, end, identify
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages.common import Heartbeat
from bec_bluesky.settings import Settings

__all__ = ["Background", "down"]

_STOP_TIMEOUT = 120.0
Say = Callable[[str], None]


@dataclass
class Background:
    """A supervisor in a session of its own; on a leash it ends with the process that started it."""

    process: subprocess.Popen[bytes]
    _reports: Iterator[dict[str, Any]]
    _say: Say

    @classmethod
    def launch(cls, settings: Settings, say: Say, *, leash: bool = False) -> Self:
        """Start it; follow with `wait_for`."""
        reading, writing = os.pipe()
        output = subprocess.DEVNULL
        command = [sys.executable, "-m", "bec_bluesky", "up", "--report-fd", str(writing)]
        try:
            process = subprocess.Popen(
                [*command, "--leash"] if leash else command,
                env=os.environ | settings.environment(),
                stdin=subprocess.PIPE if leash else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writing,),
                start_new_session=True,
            )
        finally:
            os.close(writing)
        return cls(process, _lines(reading), say)

    def wait_for(self, milestone: str) -> None:
        """Show what it says until it reports `essential` or `ready`; raises BecBlueskyError with its reason if not.

        Ctrl-C meanwhile stops what was started.
        """
        try:
            for report in self._reports:
                if "say" in report:
                    self._say(report["say"])
                if "error" in report:
                    self.process.wait()
                    raise BecBlueskyError(report["error"])
                if milestone in report:
                    return
        except KeyboardInterrupt:
            self.stop()
            raise
        self.process.wait()
        raise BecBlueskyError(f"the supervisor ended with code {self.process.returncode} and gave no reason")

    def release(self) -> int:
        """Let it run on by itself; give its pid."""
        if self.process.stdin is not None:
            self.process.stdin.write(b"keep\n")
            self.process.stdin.close()
        self.process.returncode = 0  # it outlives us on purpose: Popen must not warn that it still runs
        return self.process.pid

    def stop(self) -> None:
        """Stop it and wait; Ctrl-C meanwhile makes it hurry."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        while True:
            try:
                for report in self._reports:
                    if "say" in report:
                        self._say(report["say"])
                self.process.wait()
                if self.process.stdin is not None:
                    self.process.stdin.close()
                return
            except KeyboardInterrupt:
                self.process.send_signal(signal.SIGTERM)


def _lines(descriptor: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(descriptor, "rb") as file:
        for line in file:
            yield json.loads(line)


def down(settings: Settings, say: Say) -> bool:
    """Stop the system of this data directory, also the remains of a killed one; False if nothing ran."""
    record = read_record(settings)
    if record is not None and record.is_up:
        _stop_supervisor(record, say)
        return True
    remains = record.remains if record is not None else {}
    if remains:
        say(f"the supervisor was killed; ending what it left: {', '.join(remains)}")
        for name, process in remains.items():
            if end([process], grace=30.0):
                say(f"{name} did not stop: killed")
    strays = _strays(settings)
    if strays:
        say(f"ending services without a supervisor: {', '.join(strays)}")
        end(strays.values(), grace=30.0)
    had_redis = settings.redis_url is None and embedded.stop(settings)
    return bool(remains) or bool(strays) or had_redis


def _strays(settings: Settings) -> dict[str, Identity]:
    """Find services on the private Redis that no record names, by their heartbeats."""
    server = None if settings.redis_url else embedded.find(settings)
    if server is None:
        return {}
    beats = asyncio.run(_heartbeats(server.url, settings.beamline))
    return {
        beat.service: identify(beat.pid)
        for beat in beats.values()
        if beat.host == socket.gethostname() and "bec_bluesky" in command_of(beat.pid)
    }


async def _heartbeats(url: str, beamline: str) -> dict[str, Heartbeat]:
    async with Bus(url, beamline) as bus:
        return await bus.find(SERVICES, "service")


def _stop_supervisor(record: Record, say: Say) -> None:
    pid = record.supervisor.pid
    say(f"stopping beamline {record.beamline!r} (pid {pid})")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while record.supervisor.is_alive:
        if time.monotonic() > deadline:
            raise BecBlueskyError(f"the supervisor (pid {pid}) did not stop within {_STOP_TIMEOUT:g} s")
        time.sleep(0.05)
