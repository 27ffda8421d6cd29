"""Say what a device is, so that a proxy can be made of it."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import bluesky.protocols
import msgspec
import ophyd

from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.device_server._layers import Layer, children, layer_of, part
from bec_bluesky.device_server._needs import references
from bec_bluesky.messages import encode
from bec_bluesky.messages.devices import DeviceInfo

__all__ = ["METHODS", "STATUS_METHODS", "absent", "describe", "hints_of", "limits_now", "respecified"]

STATUS_METHODS = frozenset({"set", "trigger", "stage", "unstage", "prepare", "kickoff", "complete"})
"""What answers with a status."""
METHODS = STATUS_METHODS | {
    *("read", "describe", "read_configuration", "describe_configuration", "configure"),
    *("locate", "stop", "pause", "resume", "check_value", "subscribe", "clear_sub"),
    *("collect", "collect_pages", "describe_collect", "collect_asset_docs", "get_index"),
}
"""The methods of bluesky's protocols."""
_PROTOCOLS = {
    name: protocol
    for name in dir(bluesky.protocols)
    if getattr(protocol := getattr(bluesky.protocols, name), "_is_runtime_protocol", False)
}
_PROPERTIES = (
    *("position", "limits", "low_limit", "high_limit", "egu", "precision", "component_names", "read_attrs"),
    *("dotted_name", "attr_name", "kind"),
)
_MOST_DEPTH = 8


def describe(
    name: str, spec: DeviceSpec, server: str, device: Any, generation: int, reason: str = ""
) -> list[DeviceInfo]:
    """Describe a device and every part of it."""
    device_info, *parts = _walk(device, name, None, spec, server, generation, depth=0)
    return [msgspec.structs.replace(device_info, reason=reason), *parts]


def absent(name: str, spec: DeviceSpec, server: str, state: Any, reason: str, generation: int) -> DeviceInfo:
    """Describe a device that is not there, with its reason."""
    return DeviceInfo(
        name=name,
        path=name,
        server=server,
        state=state,
        reason=reason,
        device_class=spec.class_,
        generation=generation,
        **_from_file(spec),
    )


def _from_file(spec: DeviceSpec) -> dict[str, Any]:
    limits = (spec.limits.low, spec.limits.high) if spec.limits else None
    return {
        "labels": spec.labels,
        "readout": spec.readout,
        "limits": limits,
        "enabled": spec.enabled,
        "read_only": spec.read_only,
        "metadata": spec.metadata,
        "refers_to": list(dict.fromkeys(path.partition(".")[0] for path in references(spec))),
    }


def respecified(infos: list[DeviceInfo], spec: DeviceSpec) -> list[DeviceInfo]:
    """Say of a device and its parts what the device file says now; they stay as they are."""
    return [msgspec.structs.replace(info, **_said_of(spec, is_part=info.parent is not None)) for info in infos]


def _said_of(spec: DeviceSpec, *, is_part: bool) -> dict[str, Any]:
    return {"enabled": spec.enabled, "read_only": spec.read_only} if is_part else _from_file(spec)


def _walk(
    device: Any, path: str, parent: str | None, spec: DeviceSpec, server: str, generation: int, *, depth: int
) -> Iterator[DeviceInfo]:
    parts = dict(children(device)) if depth < _MOST_DEPTH else {}
    layer = layer_of(device)
    yield DeviceInfo(
        name=str(device.name),
        path=path,
        server=server,
        state="connected",
        layer=layer,
        device_class=f"{type(device).__module__}.{type(device).__qualname__}",
        protocols=[name for name, protocol in _PROTOCOLS.items() if _is(device, protocol)],
        methods=sorted(_methods(device, layer)),
        properties=_properties(device),
        parent=parent,
        children=list(parts),
        hints=hints_of(device),
        generation=generation,
        representation=repr(device),
        **_said_of(spec, is_part=parent is not None),
    )
    for name, child in parts.items():
        yield from _walk(child, f"{path}.{name}", path, spec, server, generation, depth=depth + 1)


def _is(device: Any, protocol: Any) -> bool:
    try:
        return isinstance(device, protocol)
    except Exception:  # noqa: BLE001  # before Python 3.12 that evaluates properties, and a stranger's may fail
        return False


def _methods(device: Any, layer: Layer) -> Iterator[str]:
    for name in METHODS:
        if callable(getattr(device, name, None)):
            yield name
    if layer == "ophyd" and isinstance(device, ophyd.Signal):
        yield "get"
        yield "put"
    for name in getattr(device, "USER_ACCESS", ()):
        if callable(getattr(device, name, None)):
            yield str(name)


def _properties(device: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _PROPERTIES:
        with contextlib.suppress(Exception):  # what cannot be had now is not there
            value: Any = getattr(device, name)
            value = list(value) if isinstance(value, (tuple, list)) else value
            encode(value)
            found[name] = value
    for name in ("real_positioners", "pseudo_positioners"):  # bluesky asks for them by these names
        positioners = getattr(device, name, None)
        if positioners is not None:
            found[name] = [positioner.attr_name for positioner in positioners]
    for name in ("RealPosition", "PseudoPosition"):
        fields = getattr(getattr(device, name, None), "_fields", None)
        if fields is not None:
            found[name] = list(fields)
    return found


def limits_now(infos: Iterable[DeviceInfo], device: Any) -> dict[str, list[Any]]:
    """Give {path: limits} of a described device and its parts, for those whose limits are others now; may block."""
    found: dict[str, list[Any]] = {}
    for info in infos:
        if "limits" in info.properties:
            with contextlib.suppress(Exception):  # its control system is away, or a stranger's property failed
                limits = list(part(device, info.path.split(".")[1:]).limits)
                if limits != info.properties["limits"]:
                    found[info.path] = limits
    return found


def hints_of(device: Any) -> dict[str, Any] | None:
    """Give what to plot of a device; None if it does not say that, or not yet."""
    try:
        hints = device.hints
        encode(hints)
    except Exception:  # noqa: BLE001  # no hints, or none before `prepare`
        return None
    return dict(hints)
