"""Positions that are kept and found again."""

from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import NamedMovable
from bluesky.utils import Msg, MsgGenerator

__all__ = ["restore", "snapshot"]


def snapshot(
    devices: Sequence[NamedMovable[Any]], *, label: str = "", md: dict[str, Any] | None = None
) -> MsgGenerator[dict[str, Any]]:
    """Record where devices are, in a run of one event, to come back there with `restore`.

    Parameters
    ----------
    devices :
        What can be moved.
    label :
        What the snapshot is called, in the start document.
    md :
        Goes into the start document.

    Returns
    -------
    {name of the device: where it was sent last; where it is, if nobody knows that}
    """
    metadata = {
        "plan_name": "snapshot",
        "detectors": [device.name for device in devices],
        "plan_args": {"devices": list(map(repr, devices)), "label": label},
        "num_points": 1,
        **({"label": label} if label else {}),
        **(md or {}),
    }
    positions: dict[str, Any] = {}

    @bpp.run_decorator(md=metadata)
    def reading() -> MsgGenerator[None]:
        for device in devices:
            positions[device.name] = yield from _setpoint(device)
        read: list[Any] = list(devices)  # what can be moved can be read, too
        yield from bps.trigger_and_read(read)

    yield from reading()
    return positions


def restore(
    devices: Sequence[NamedMovable[Any]], positions: Mapping[str, Any], *, one_by_one: bool = False
) -> MsgGenerator[None]:
    """Bring devices back to the positions of a snapshot.

    Parameters
    ----------
    devices :
        What is moved, in this order if one by one.
    positions :
        Positions by device name, as `snapshot` returned them; those of other devices are left alone.
    one_by_one :
        Whether each device waits until the one before has arrived, where things could touch.
    """
    missing = [device.name for device in devices if device.name not in positions]
    if missing:
        raise ValueError(
            f"the snapshot has no position of {', '.join(missing)}; it has {', '.join(positions) or 'none'}"
        )
    if one_by_one:
        for device in devices:
            yield from bps.mv(device, positions[device.name])
        return
    targets = [each for device in devices for each in (device, positions[device.name])]
    if targets:
        yield from bps.mv(*targets)


def _setpoint(device: Any) -> MsgGenerator[Any]:
    if hasattr(device, "locate"):
        location: Any = yield Msg("locate", device)  # the overloads of `bps.locate` are no generators to type checkers
        setpoint = location["setpoint"]
        return location["readback"] if setpoint is None else setpoint
    return (yield from bps.rd(device))
