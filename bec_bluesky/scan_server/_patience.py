"""How much workers are allowed."""

import os
from dataclasses import dataclass
from typing import Self

from bec_bluesky.plugins import WorkerLimits

__all__ = ["Patience"]


@dataclass(frozen=True)
class Patience:
    """How long a worker is waited for, in seconds."""

    silence: float = 10.0
    """A worker that says nothing for so long is ended."""
    wait_for_check: float = 2.0
    """So long an item waits for a worker that can check it."""
    check: float = 8.0
    """A worker that takes longer to check an item is ended."""
    halt: float = 5.0
    """A plan that takes longer to end when it is halted is ended with its worker."""
    memory: int = 0
    """Bytes in memory at which a worker is ended; 0: any number."""

    @classmethod
    def of(cls, limits: WorkerLimits) -> Self:
        """Take what the profile says."""
        memory = limits.memory * 1e6 or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
        return cls(silence=limits.silence, check=limits.check, halt=limits.halt, memory=int(memory))
