"""The check that ophyd positioners make in `set()` itself: the plan must see LimitError, not a failed status."""

from typing import Any

from bec_bluesky.messages.devices import DeviceInfo

__all__ = ["check", "limits_of"]


def limits_of(info: DeviceInfo) -> tuple[Any, Any] | None:
    """Give (low, high) in the device's units: those of the device file, else the device's own; None: there are none."""
    limits = info.limits or info.properties.get("limits")
    if not limits or len(limits) != 2 or None in limits:
        return None
    low, high = limits
    return (low, high) if low < high else None  # EPICS: equal limits mean none


def check(info: DeviceInfo, value: Any) -> None:
    """Raise what a positioner of ophyd would: LimitError; PVPositioner and PseudoSingle ValueError.

    Devices of ophyd-async check while they move, so their error comes with the status, as in process.
    """
    limits = limits_of(info)
    if limits is None or not _is_number(value) or limits[0] <= value <= limits[1]:
        return
    if info.limits is None and info.device_class.endswith("PseudoSingle"):  # its PseudoPositioner checks all axes
        raise ValueError(
            f"Position is outside of pseudo single limits: {info.name}, {limits[0]} < {value} < {limits[1]}"
        )
    if info.limits is None and {"setpoint", "readback"} <= {*info.children}:  # PVPositioner, which takes its setpoint's
        raise ValueError(f"{value} outside of user-specified limits")
    from ophyd.utils import LimitError

    if "user_setpoint" in info.children:  # EpicsMotor lets its setpoint check
        raise LimitError(f"{info.name}_user_setpoint: value {value} outside of range: [{limits[0]}, {limits[1]}]")
    raise LimitError(f"position={value} not within limits {limits}")


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0
