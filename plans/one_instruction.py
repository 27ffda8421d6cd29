"""Points of a step scan that are one instruction for remote devices: for `per_step` and `per_shot` of bluesky's plans.

    bp.scan([det], samx, -1, 1, 21, per_step=one_instruction_step)
    bp.count([det], 100, per_shot=one_instruction_shot)

Move, wait, trigger, wait, read and save travel as one message to the device server, and one comes back. Documents,
values and errors are those of bluesky's own `one_nd_step` and `one_shot`, which are done where that is not possible:
with devices in this process or on several servers, or that write files, or that must not be rewound.

What is hidden is hidden from preprocessors, `msg_hook` and simulators of plans: they see `checkpoint`, every `set` (so
relative scans and checks of limits are right), and then one `remote_step` instead of `wait`, `trigger`, `wait`,
`create`, `read` and `save`. A plan whose preprocessors look at those must not use it: it is the plan author's choice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.protocols import Movable, Readable
from bluesky.utils import Msg, MsgGenerator, all_safe_rewind, separate_devices, short_uid

__all__ = ["one_instruction_shot", "one_instruction_step"]


# plain functions, not generator functions: those in `__all__` are offered as plans, which these are not


def one_instruction_step(
    detectors: Sequence[Readable], step: Mapping[Movable, Any], pos_cache: dict[Movable, Any]
) -> MsgGenerator[None]:
    """Move to a point, trigger and read there, in one instruction if that is possible; for `per_step`."""
    devices = _steppable([*detectors, *step])
    return _point(devices, step, pos_cache) if devices else bps.one_nd_step(detectors, step, pos_cache)


def one_instruction_shot(detectors: Sequence[Readable]) -> MsgGenerator[None]:
    """Trigger and read, in one instruction if that is possible; for `per_shot`."""
    devices = _steppable(detectors)
    return _point(devices, {}, {}) if devices else bps.one_shot(detectors)


def _point(devices: Sequence[Any], step: Mapping[Any, Any], pos_cache: dict[Any, Any]) -> MsgGenerator[None]:
    yield Msg("checkpoint")
    group = short_uid("set")
    for motor, position in step.items():
        if position != pos_cache[motor]:
            yield Msg("set", motor, position, group=group)
            pos_cache[motor] = position
    yield Msg("remote_step", None, *devices, group=group, name="primary")


def _steppable(devices: Sequence[Any]) -> list[Any]:
    """Give the devices without parts of others, if a RunEngine can do the step for all of them; else none."""
    devices = separate_devices(list(devices))
    servers = {getattr(device, "steps_on", "") for device in devices}
    return devices if len(servers) == 1 and servers != {""} and all_safe_rewind(devices) else []
