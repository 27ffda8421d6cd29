"""What our step scans do at each point."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from annotated_types import Ge, Unit
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator

from plans.one_instruction import one_instruction_step

__all__ = ["Number", "Seconds", "scan_points", "step"]

Seconds = Annotated[float, Ge(0), Unit("s")]
Number = Annotated[int, Ge(1)]


def step(
    settle: float = 0.0, repeats: int = 1, *, one_instruction: bool = False
) -> Callable[..., MsgGenerator[Any]] | None:
    """Give a `per_step` that waits `settle` seconds, then reads `repeats` times; None if that of bluesky will do.

    Each repeat is an event of its own. A pause in the middle of a burst takes the whole point again. A point that is
    one instruction to the device server can neither wait nor repeat: that raises ValueError.
    """
    if one_instruction:
        if settle or repeats != 1:
            raise ValueError("a point that is one instruction cannot wait in between: leave out one_instruction")
        return one_instruction_step
    if not settle and repeats == 1:
        return None

    def one_nd_step(detectors: Any, step: Any, pos_cache: Any) -> Any:  # bluesky tells hooks apart by these names
        """Move, wait, read."""
        yield from bps.move_per_step(step, pos_cache)
        if settle:
            yield from bps.sleep(settle)
        for _ in range(repeats):
            yield from bps.trigger_and_read([*detectors, *step])

    return one_nd_step


def scan_points(
    name: str,
    detectors: Sequence[Readable],
    axes: Mapping[NamedMovable[Any], Iterable[float]],
    arguments: Mapping[str, Any],
    *,
    relative: bool,
    settle: float,
    repeats: int,
    md: Mapping[str, Any] | None,
) -> MsgGenerator[str]:
    """Take a step scan over points, as the plan `name` with its arguments says of itself in the start document."""
    positions = {motor: [float(each) for each in along] for motor, along in axes.items()}
    number = len(next(iter(positions.values()))) * repeats
    options = {"relative": relative, "settle": settle, "repeats": repeats}
    metadata = {
        "plan_name": name,
        "plan_args": {
            "detectors": list(map(repr, detectors)),
            "motors": list(map(repr, positions)),
            **arguments,
            **options,
        },
        "num_points": number,
        "num_intervals": number - 1,
        "extents": [[min(along), max(along)] for along in positions.values()],
        **(md or {}),
    }
    pairs: list[Any] = [each for pair in positions.items() for each in pair]

    def steps() -> MsgGenerator[str]:
        return (yield from bp.list_scan(list(detectors), *pairs, per_step=step(settle, repeats), md=metadata))

    if not relative:
        return (yield from steps())
    motors = list(positions)
    return (yield from bpp.reset_positions_wrapper(bpp.relative_set_wrapper(steps(), motors), motors))
