"""Classes of remote devices, one for each set of methods, properties and children."""

import functools
from collections.abc import Iterator
from typing import Any

from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.proxy import _limits
from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._methods import method

__all__ = ["class_for"]

_LISTS_OF_CHILDREN = ("pseudo_positioners", "real_positioners")
_CONTAINERS = ("DeviceVector", "DeviceMap")


def class_for(info: DeviceInfo) -> type[RemoteDevice]:
    """Give the class for a device: with exactly its methods, properties and children."""
    methods = set(info.methods)
    if "set" in methods:
        methods.add("locate")  # bluesky's relative plans then ask, instead of reading `position` in the loop's thread
    if "subscribe" in methods:
        methods.add("get")  # suspenders read the value that way, whatever the layer
    return _make(
        info.device_class or "Device",
        frozenset(methods),
        frozenset(info.properties) | ({"hints"} if info.hints is not None else set()),
        tuple(info.children),
    )


@functools.lru_cache(maxsize=4096)
def _make(
    device_class: str, methods: frozenset[str], properties: frozenset[str], children: tuple[str, ...]
) -> type[RemoteDevice]:
    members: dict[str, Any] = {"__doc__": f"A remote {device_class}.", "__module__": RemoteDevice.__module__}
    members |= {name: _Child(name) for name in children if name.isidentifier()}
    members |= {name: _property(name) for name in properties if not hasattr(RemoteDevice, name)}
    members |= {name: method(name) for name in methods if not hasattr(RemoteDevice, name)}
    short_name = device_class.rpartition(".")[2].rpartition(":")[2]
    is_container = short_name in _CONTAINERS or any(not name.isidentifier() for name in children)
    bases = (_Container,) if is_container else (RemoteDevice,)
    return type(f"Remote{short_name}", bases, members)


class _Child:
    """A part of a device, as attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, device: RemoteDevice | None, owner: type | None = None) -> Any:
        return self if device is None else device._link.device(f"{device.path}.{self._name}")


class _Container(RemoteDevice):
    """What a DeviceVector (whole numbers) or a DeviceMap (names) adds."""

    def __getitem__(self, key: int | str) -> RemoteDevice:
        if str(key) not in self._info.children:
            raise KeyError(key)
        return self._link.device(f"{self.path}.{key}")

    def __iter__(self) -> Iterator[int | str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._info.children)

    def keys(self) -> list[int | str]:
        return [int(name) if name.isdecimal() else name for name in self._info.children]

    def values(self) -> list[RemoteDevice]:
        return [self[key] for key in self.keys()]

    def items(self) -> list[tuple[int | str, RemoteDevice]]:
        return [(key, self[key]) for key in self.keys()]


def _property(name: str) -> property:
    special = {"hints": _hints, "limits": _limits_property, "position": _position}.get(name)
    if special is not None:
        return property(special)
    if name in _LISTS_OF_CHILDREN:
        return property(lambda self: tuple(self._link.device(f"{self.path}.{child}") for child in _value(self, name)))
    return property(lambda self: _value(self, name))


def _value(device: RemoteDevice, name: str) -> Any:
    return device._info.properties[name]


def _hints(device: RemoteDevice) -> Any:
    """What to plot, as the device said last."""
    hints = device._info.hints
    return hints if hints is not None else device._info.properties.get("hints", {})


def _limits_property(device: RemoteDevice) -> Any:
    """(low, high) in the device's units; (0, 0) if there are none, as ophyd says it."""
    return _limits.limits_of(device._info) or (0, 0)


def _position(device: RemoteDevice) -> Any:
    """Where it is now: asked for, which blocks this thread for a round trip. In plans, `bps.rd` is better."""
    return device._link.ask(device.path, "locate")["readback"]
