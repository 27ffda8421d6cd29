"""What differs between ophyd, ophyd-async and other devices: connecting, parts, values, letting go."""

import asyncio
import inspect
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, Literal

import ophyd
from ophyd.ophydobj import OphydObject
from ophyd_async.core import Device as AsyncDevice
from ophyd_async.core import SignalR, SignalW

__all__ = [
    "Layer",
    "children",
    "connect",
    "dispose",
    "get_value",
    "layer_of",
    "mute",
    "part",
    "reading_now",
    "set_signal",
    "stop",
    "sync_value",
]

Layer = Literal["ophyd", "ophyd-async", "other"]
_CONNECT_MORE = 0.3
"""Seconds that a device has to say itself, better than we could, what did not connect in time."""


def layer_of(device: Any) -> Layer:
    """Tell which library a device is of."""
    if isinstance(device, AsyncDevice):
        return "ophyd-async"
    return "ophyd" if isinstance(device, OphydObject) else "other"


async def connect(device: Any, timeout: float, pool: Executor) -> None:
    """Connect within `timeout` seconds, or raise what the device says; TimeoutError if it says nothing."""
    async with asyncio.timeout(timeout + _CONNECT_MORE):
        if isinstance(device, AsyncDevice):
            await device.connect(timeout=timeout, force_reconnect=True)
        elif hasattr(device, "wait_for_connection"):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, lambda: _wait_for_connection(device, timeout))


def _wait_for_connection(device: Any, timeout: float) -> None:
    if isinstance(device, ophyd.Device):
        device.wait_for_connection(all_signals=False, timeout=timeout)
    else:
        device.wait_for_connection(timeout=timeout)


def children(device: Any) -> Iterator[tuple[str, Any]]:
    """Give the parts of a device by attribute name (numbers of a DeviceVector as text)."""
    if isinstance(device, AsyncDevice):
        for key, child in device.children():
            yield str(key), child
        return
    for key in getattr(device, "component_names", ()):
        try:
            yield key, getattr(device, key)
        except Exception:  # noqa: BLE001  # a lazy component that cannot be made is no part
            continue


def part(device: Any, path: list[str]) -> Any:
    """Follow attribute names and numbers from a device to a part of it; raises LookupError that says what is there."""
    for name in path:
        found = dict(children(device))
        if name not in found:
            raise LookupError(
                f"{getattr(device, 'name', device)!r} has no part {name!r}; it has {', '.join(found) or 'none'}"
            )
        device = found[name]
    return device


async def get_value(device: Any, pool: Executor) -> Any:
    """Give the value of a signal, or where a positioner is."""
    if isinstance(device, SignalR):
        return await device.get_value()
    if isinstance(device, AsyncDevice):
        if hasattr(device, "locate"):
            return (await device.locate())["readback"]  # pyright: ignore[reportAttributeAccessIssue]
        return _value_in(device, await device.read())  # pyright: ignore[reportAttributeAccessIssue]
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, lambda: sync_value(device))


def sync_value(device: Any) -> Any:
    """Give the value of a signal, or where a positioner is; may block."""
    if hasattr(device, "position"):
        value = device.position
        return list(value) if isinstance(value, tuple) else value
    if isinstance(device, ophyd.Signal):
        return device.get()
    return _value_in(device, device.read())


def _value_in(device: Any, reading: dict[str, Any]) -> Any:
    """Give the value that stands for a device: of the key with its name, else the first; None if it reads nothing."""
    entry = reading.get(device.name) or next(iter(reading.values()), None)
    return None if entry is None else entry["value"]


async def set_signal(signal: Any, value: Any, timeout: float, pool: Executor) -> None:
    """Set a signal and wait until it is there; `2` is `2.0` for one that has such numbers.

    ophyd keeps what was set until the control system says more, and would describe the signal by it.
    """
    if isinstance(signal, AsyncDevice):
        await signal.set(value)  # pyright: ignore[reportAttributeAccessIssue]  # or the error says that it has none
        return

    def set_and_wait() -> None:
        is_whole = type(value) is int and isinstance(signal, ophyd.Signal)
        signal.set(float(value) if is_whole and isinstance(signal.get(), float) else value).wait(timeout)

    await asyncio.get_running_loop().run_in_executor(pool, set_and_wait)


async def stop(device: Any, pool: Executor) -> None:
    """Stop a device; what is under way on it fails."""
    if isinstance(device, AsyncDevice):
        result = device.stop(success=False)  # pyright: ignore[reportAttributeAccessIssue]  # the caller knows
    else:
        result = await asyncio.get_running_loop().run_in_executor(pool, lambda: device.stop(success=False))
    if inspect.isawaitable(result):
        await result


def mute(device: Any) -> list[str]:
    """Give the addresses (PVs) of a device's signals that are known to have no control system now.

    ophyd knows for each signal; of ophyd-async, aioca knows its channels. Others must be read to find out.
    """
    if isinstance(device, AsyncDevice):
        return _mute_channels(device)
    if getattr(device, "connected", True):
        return []
    signals = (each.item for each in device.walk_signals()) if isinstance(device, ophyd.Device) else (device,)
    found = [str(getattr(each, "pvname", each.name)) for each in signals if not getattr(each, "connected", True)]
    return found or [str(device.name)]


def _mute_channels(device: AsyncDevice) -> list[str]:
    aioca = sys.modules.get("aioca")
    sources = {source.removeprefix("ca://") for source in _sources(device) if source.startswith("ca://")}
    if aioca is None or not sources:
        return []
    return sorted({info.name for info in aioca.get_channel_infos() if not info.connected} & sources)


def _sources(device: AsyncDevice) -> Iterator[str]:
    if isinstance(device, SignalR | SignalW):
        yield device.source
    for _, child in device.children():
        yield from _sources(child)


async def reading_now(device: Any, pool: Executor, *, fresh: bool) -> Any:
    """Give `read()`; if `fresh`, what ophyd-async answers from a monitor's cache is asked of the control system."""
    if not isinstance(device, AsyncDevice):
        return await asyncio.get_running_loop().run_in_executor(pool, device.read)
    if isinstance(device, SignalR) and fresh:
        return await device.read(cached=False)
    result = device.read()  # pyright: ignore[reportAttributeAccessIssue]  # the caller knows that it is readable
    reading: dict[str, Any] = await result if inspect.isawaitable(result) else result
    if fresh:
        cached = [signal for signal in _signals(device) if signal.name in reading and _cache(signal) is not None]
        for again in await asyncio.gather(*(signal.read(cached=False) for signal in cached)):
            reading |= again
    return reading


def _signals(device: AsyncDevice) -> Iterator[SignalR[Any]]:
    for _, child in device.children():
        if isinstance(child, SignalR):
            yield child
        yield from _signals(child)


def _cache(device: AsyncDevice) -> Any:
    """Give what a monitored signal of ophyd-async keeps its latest reading in; None: it is not monitored."""
    return getattr(device, "_cache", None)


def dispose(device: Any) -> None:
    """Let go of connections and subscriptions."""
    if isinstance(device, OphydObject):
        device.destroy()
        return
    if isinstance(device, AsyncDevice):
        for _, child in device.children():
            dispose(child)
        cache = _cache(device)
        if cache is not None:  # ophyd-async has no destroy(): a closed cache frees the signal
            cache.close()
