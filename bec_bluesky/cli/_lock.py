"""One system a data directory: a lock that dies with its supervisor, and a record of what was started."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bec_bluesky.cli._processes import Identity, identify
from bec_bluesky.errors import BecBlueskyError, SettingsError
from bec_bluesky.settings import Settings

__all__ = ["AlreadyUpError", "Record", "SystemLock", "read_record"]


class AlreadyUpError(BecBlueskyError):
    """A system of this data directory runs, or remains of one."""


@dataclass(frozen=True)
class Record:
    """What the lock file says."""

    supervisor: Identity
    beamline: str
    processes: dict[str, Identity] = field(default_factory=dict[str, Identity])
    """What the supervisor started, by name, in the order in which it is stopped."""
    services: tuple[str, ...] = ()
    """What should have a heartbeat once everything is up."""

    @property
    def is_up(self) -> bool:
        """Whether the supervisor lives."""
        return self.supervisor.is_alive

    @property
    def remains(self) -> dict[str, Identity]:
        """What still runs of it."""
        return {name: process for name, process in self.processes.items() if process.is_alive}


def _path(settings: Settings) -> Path:
    return settings.data_dir / "up.lock"


def read_record(settings: Settings) -> Record | None:
    """Read what was started last in this data directory; None if nothing ever was, or it was stopped in order."""
    for _ in range(5):  # it may be being rewritten
        try:
            facts: Any = json.loads(_path(settings).read_text())
        except OSError:
            return None
        except ValueError:
            if _path(settings).stat().st_size == 0:
                return None
            time.sleep(0.02)
            continue
        processes = {name: Identity(pid, birth) for name, (pid, birth) in facts["processes"].items()}
        supervisor = Identity(facts["pid"], facts["birth"])
        return Record(supervisor, facts["beamline"], processes, tuple(facts["services"]))
    return None


class SystemLock:
    """Held by the supervisor as long as it lives; the file names it and what it started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._descriptor = -1
        self._me = identify(os.getpid())

    def __enter__(self) -> Self:
        """Take the lock; raises AlreadyUpError naming who has it, SettingsError if the directory can't be written."""
        try:
            self._settings.data_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(_path(self._settings), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"the data directory {self._settings.data_dir} cannot be written ({error.strerror}): "
                "give another one by --data or BEC_BLUESKY_DATA_DIR"
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyUpError(_already_up(self._settings)) from None
        remains = _remains(self._settings)
        if remains:
            os.close(self._descriptor)
            raise AlreadyUpError(remains)
        self.write({})
        return self

    def write(self, processes: Mapping[str, Identity], services: Sequence[str] = ()) -> None:
        """Record what runs, in the order in which it is to be stopped, and which services there should be."""
        facts = {
            "pid": self._me.pid,
            "birth": self._me.birth,
            "beamline": self._settings.beamline,
            "services": list(services),
            "processes": {name: (process.pid, process.birth) for name, process in processes.items()},
        }
        content = json.dumps(facts).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _already_up(settings: Settings) -> str:
    record = read_record(settings)
    pid = f" (pid {record.supervisor.pid})" if record is not None else ""
    beamline = record.beamline if record is not None else settings.beamline
    return (
        f"beamline {beamline!r} is already up in {settings.data_dir}{pid}: see `bec-bluesky status`, or stop it with "
        "`bec-bluesky down`"
    )


def _remains(settings: Settings) -> str:
    record = read_record(settings)
    if record is None or not record.remains:
        return ""
    names = ", ".join(f"{name} (pid {process.pid})" for name, process in record.remains.items())
    return (
        f"of an earlier system in {settings.data_dir}, whose supervisor was killed, there still run {names}: "
        "end them with `bec-bluesky down`, then start again"
    )
