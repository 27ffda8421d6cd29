"""A status that ends in the loop's own thread needs no call into that thread."""

import threading
from typing import Any

from bec_bluesky.accelerations._acceleration import Acceleration, extend

__all__ = ["STATUSES"]


def _add_status_to_group(self: Any, obj: Any, status_object: Any, group: Any, action: str) -> None:
    future = self._loop.create_future()
    pardon_failures = self._pardon_failures
    loop_thread = threading.get_ident()  # commands run in the loop

    def done(_: Any) -> None:
        self.log.debug("The object %r reports %r is done with status %r.", obj, action, status_object.success)
        if threading.get_ident() == loop_thread:
            self._status_object_completed(status_object, future, pardon_failures)
        else:
            self._loop.call_soon_threadsafe(self._status_object_completed, status_object, future, pardon_failures)

    try:
        status_object.add_callback(done)
    except AttributeError:  # ophyd before 0.8
        status_object.finished_cb = done
    self._groups[group].add(lambda: future)
    self._status_objs[group].add(status_object)


STATUSES = Acceleration(
    name="statuses",
    stock={
        "bluesky.run_engine:RunEngine._add_status_to_group": "913da5518ade",
        "bluesky.run_engine:RunEngine._status_object_completed": "cb06d9d52aeb",
    },
    in_engine=lambda RE: extend(RE, _add_status_to_group=_add_status_to_group),
)
"""Whatever thread a status ends in, its end is told by `call_soon_threadsafe`: a write to the loop's own pipe and
another turn of the loop. In the loop's thread (ophyd-async, remote devices) the future can be settled at once."""
