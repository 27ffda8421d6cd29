"""What surrounds the queues and stands in every status: environment, lock, rules, and how often each changed."""

from dataclasses import dataclass
from typing import Any

from bec_bluesky.messages.around_queue import LockState

__all__ = ["Surroundings"]


@dataclass
class Surroundings:
    """Facts for the status; each is changed by one owner."""

    environment: Any = "closed"
    """Owner: Environment."""
    lock: LockState | None = None
    """Owner: Locks."""
    rules_revision: int = 0
    """Owner: Permissions."""
    tasks: int = 0
    tasks_revision: int = 0
    """Owner: TaskBook."""
    interlocks: tuple[str, ...] = ()
    """Those that are tripped. Owner: Interlocks."""
    plans_revision: int = 0
    """Owner: the service."""
