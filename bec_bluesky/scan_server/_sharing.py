"""Which queue may use which devices: what runs has them, and who waits longest comes next. Nothing here does I/O.

An item begins only when all its devices are free, and does not begin if one of them is wanted by a queue that waits for
longer. So whoever waits longest waits for running items only, which end: no deadlock, and nobody waits for ever.
"""

from collections.abc import Mapping

from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.scan_server._queue import QueueState, devices_of, next_to_run

__all__ = ["line_up", "taken_by_others"]


def line_up(states: Mapping[str, QueueState], line: tuple[str, ...]) -> tuple[str, ...]:
    """Give the queues whose next item lacks only devices or a worker, in the order in which they began to wait."""
    ready = {name for name, state in states.items() if next_to_run(state) is not None}
    return (*(name for name in line if name in ready), *sorted(ready.difference(line)))


def taken_by_others(name: str, states: Mapping[str, QueueState], line: tuple[str, ...]) -> dict[str, str]:
    """Give the devices that a queue may not use now, and for each who has it, or comes first."""
    earlier = line[: line.index(name)] if name in line else line
    taken: dict[str, str] = {}
    for other in earlier:
        item = next_to_run(states[other]) if other != name else None
        if item is not None:
            taken |= dict.fromkeys(devices_of(item), f"{_who(item)}, which waits for longer")
    for other, state in states.items():
        if other != name and state.running is not None:
            taken |= dict.fromkeys(devices_of(state.running), _who(state.running))
    return taken


def _who(item: QueueItem) -> str:
    people = f", {item.user}" if item.user else ""
    return f"{item.plan} (item {item.item_id[:8]}{people}) of queue {item.queue or 'main'}"
