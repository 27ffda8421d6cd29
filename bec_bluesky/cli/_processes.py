"""Processes told apart for good: a pid and when it was born, since pids are used again."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Identity", "command_of", "end", "identify", "step_back"]


@dataclass(frozen=True)
class Identity:
    """One process, never another that got its number later."""

    pid: int
    birth: str

    @property
    def is_alive(self) -> bool:
        return self.birth != "" and _birth(self.pid) == self.birth


def identify(pid: int) -> Identity:
    """Take the identity of a process; one that is gone has no birth and is not alive."""
    return Identity(pid, _birth(pid))


def _birth(pid: int) -> str:
    """Say when a process was started, in whatever way this system tells; empty if it is gone or a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            return ""
        return "" if fields[0] in ("Z", "X") else fields[19]
    said = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def command_of(pid: int) -> str:
    """Give the command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        said = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return said.stdout.strip()


def step_back(pid: int, niceness: int) -> None:
    """Let a process that leads a session go after others that want the processor, with all its threads.

    Harmless if it is gone; there is no way back without privileges. Linux (sched_autogroup) compares processes of
    different sessions by the niceness of the session, not by their own.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, pid, niceness)
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def end(processes: Iterable[Identity], *, grace: float) -> list[int]:
    """Ask processes to end, kill those that have not after `grace` seconds; give the pids of the killed ones.

    Each led a session of its own: what is left of its group is killed too.
    """
    asked = [process for process in processes if process.is_alive]
    for process in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(process.is_alive for process in asked) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = [process.pid for process in asked if process.is_alive]
    for process in asked:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return killed
