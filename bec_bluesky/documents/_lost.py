"""Runs whose documents are gone from Redis, and who may close them."""

import fcntl
import os
import uuid
from typing import Any

from bec_bluesky.documents._mender import Document
from bec_bluesky.settings import Settings

__all__ = ["LOST", "is_lost", "lost_stop", "system_id"]

LOST = "the run was cut short: its documents were lost with Redis, and how it went on is not known"
_MARK = "documents_lost"


def lost_stop(run_uid: str, time: float) -> dict[str, Any]:
    """Make the stop document of a run whose own will not come; `time` is that of the newest document that came."""
    stop = {"uid": str(uuid.uuid4()), "run_start": run_uid, "time": time, "exit_status": "fail", "reason": LOST}
    return stop | {_MARK: True}


def is_lost(stop: Document) -> bool:
    """Tell whether a stop document was made by `lost_stop`: should the documents come after all, they count."""
    return bool(stop.get(_MARK))


def system_id(settings: Settings) -> str:
    """Give the lasting name of this system, which sinks note in what they have begun: only its owner may close that.

    Processes that start together get the same one. Raises OSError if its file can be neither read nor made.
    """
    path = settings.data_dir / "system.id"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        name = file.read().strip()
        if not name:  # made just now, or by a process that was killed before it wrote
            name = uuid.uuid4().hex
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
    return f"{settings.beamline}:{name}"
