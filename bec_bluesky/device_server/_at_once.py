"""Statuses of ophyd that end at once: what follows then needs no further thread."""

import time
from collections.abc import Iterable
from typing import Any

from ophyd.status import StatusBase
from ophyd.utils import WaitTimeoutError

__all__ = ["ended_well"]

_GRACE = 0.0005
"""Seconds. ophyd ends a status in a thread of the status' own, which needs a moment even if there is nothing to do."""


def ended_well(results: Iterable[Any]) -> bool:
    """Tell whether all of these are statuses that ended well, within half a millisecond; in a thread that may wait."""
    deadline = time.monotonic() + _GRACE
    return all(isinstance(result, StatusBase) and _has_ended_well(result, deadline) for result in results)


def _has_ended_well(status: StatusBase, deadline: float) -> bool:
    if status.done:
        return status.success
    try:
        return status.exception(timeout=max(0.0, deadline - time.monotonic())) is None
    except WaitTimeoutError:
        return False
