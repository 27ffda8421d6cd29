"""A device in a person's session: every call is one round trip to the server that owns the device."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bec_bluesky.client._arguments import plain
from bec_bluesky.client._device_status import DeviceStatus
from bec_bluesky.client._device_text import doc_of, line_of, shown_entry
from bec_bluesky.client._device_value import has_one_value, value_in
from bec_bluesky.client._viewing import Viewing
from bec_bluesky.errors import BadArgumentError, BecBlueskyError, DeviceTimeout, RefusedError, choices
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.proxy import DeviceLink, limits_of, value_of

if TYPE_CHECKING:
    from bec_bluesky.client._device_door import DeviceDoor

__all__ = ["Device"]

Reading = dict[str, dict[str, Any]]
_TIMEOUT = 10.0
"""Seconds that a call may take which moves nothing; a lost server is noticed within one."""
_LOOK_TIMEOUT = 0.5
"""Seconds that showing a device may take."""
_STOP_TIMEOUT = 2.0
_STATUS_VERBS = frozenset({"set", "trigger", "stage", "unstage", "prepare", "kickoff", "complete"})
_INTERNAL_VERBS = frozenset({"subscribe", "clear_sub"})
"""Verbs of the wire; for people there is `subscribe` below."""
_NEEDS = {
    **dict.fromkeys(("set", "move", "mvr", "limits"), "set"),
    **dict.fromkeys(("read", "get", "wait_for", "subscribe"), "read"),
    **{verb: verb for verb in ("trigger", "stop", "describe", "read_configuration")},
}
"""What a device must be able to do so that a name is offered by TAB."""


class _Doc:
    """The docstring of the class, and for each device one of its own, with units and limits."""

    def __get__(self, device: "Device | None", owner: type) -> str:
        if device is None:
            return "A device of the beamline, or a part of one, wherever its server runs."
        units = ""
        with contextlib.suppress(Exception):  # a device that cannot be asked has a text all the same
            units = device.units
        return doc_of(device.info, units, [name for name in dir(device) if name[0] != "_"])


class Device:
    __doc__ = _Doc()  # pyright: ignore[reportAssignmentType]  # a descriptor: `samx?` tells of samx

    def __init__(self, door: "DeviceDoor", path: str) -> None:
        self._door = door
        self.path = path
        """Where it is found: `samx`, `samx.velocity`, `slits[0].gap` as `slits.0.gap`."""
        self._units: tuple[int, str] | None = None

    # ── what it is ──

    @property
    def link(self) -> DeviceLink:
        """The session's link to the device servers."""
        return self._door.link

    @property
    def info(self) -> DeviceInfo:
        """What its server says of it; raises UnknownDeviceError if it is gone."""
        return self.link.directory.info(self.path)

    @property
    def name(self) -> str:
        """Its name in documents."""
        return self.info.name

    @property
    def state(self) -> str:
        """connected, failed, disconnected, disabled, or `no server`."""
        return self._door.state(self.info)

    @property
    def reason(self) -> str:
        """Why it is not connected; empty if it is."""
        return self._door.reason(self.info)

    @property
    def labels(self) -> list[str]:
        return list(self._top.info.labels)

    @property
    def device_class(self) -> str:
        """Its class on the device server, with its module."""
        return self.info.device_class

    @property
    def readout(self) -> str:
        """When runs read it: monitored, baseline, async, on_request or continuous."""
        return self._top.info.readout

    @property
    def server(self) -> str:
        """The device server that owns it."""
        return self.info.server

    @property
    def parent(self) -> "Device | None":
        """The device of which this is a part."""
        return None if self.info.parent is None else self._door.device(self.info.parent)

    @property
    def _top(self) -> "Device":
        return self._door.device(self.path.partition(".")[0])

    @property
    def holder(self) -> str | None:
        """Who holds it (a running plan, a person), so that others cannot move it; None if it is free."""
        return self._door.holder(self.info)

    @property
    def limits(self) -> tuple[float, float] | None:
        """(low, high) in its units: those of the device file, else its own; None if there are none."""
        return limits_of(self.info)

    @property
    def units(self) -> str:
        """Its engineering units, as it describes itself; empty if it has none."""
        known = self._units_if_known()
        if known is None:
            described = self.describe() if "describe" in self.info.methods else {}
            entry = described.get(self.name) or next(iter(described.values()), {})
            known = str(entry.get("units") or "")
            self._units = (self.info.generation, known)
        return known

    def _units_if_known(self) -> str | None:
        info = self.info
        egu = info.properties.get("egu")
        if egu:
            return str(egu)
        return self._units[1] if self._units is not None and self._units[0] == info.generation else None

    # ── reading ──

    @property
    def position(self) -> Any:
        """Where it is now, in its units; one round trip."""
        return self.get()

    def read(self, *, timeout: float = _TIMEOUT) -> Reading:
        """Read it now: {key: {value, timestamp, …}}. Neither this nor `get` or `subscribe` disturbs a running scan."""
        return self.ask("read", timeout=timeout)

    def get(self, *, timeout: float = _TIMEOUT) -> Any:
        """Give its value: of a signal, where a motor is; of what reads several values, {key: value}."""
        if has_one_value(self.info):
            return self.ask("get", timeout=timeout)
        return value_in(self.info, self.read(timeout=timeout))

    def describe(self, *, timeout: float = _TIMEOUT) -> dict[str, Any]:
        """Describe what `read` gives: {key: {source, dtype, shape, units, …}}."""
        return self.ask("describe", timeout=timeout)

    def read_configuration(self, *, timeout: float = _TIMEOUT) -> Reading:
        """Read what is set up once for a run: {key: {value, timestamp}}."""
        return self.ask("read_configuration", timeout=timeout)

    def subscribe(self, callback: Callable[[Reading], None]) -> Viewing:
        """Call `callback(reading)` now and at each change; `.close()` of what this gives ends it.

        The server pushes at most ten readings a second, and the newest only if the callback is slower. Callbacks run
        one after the other in a thread of their own; they may call devices.
        """
        return self._door.subscribe(self.path, callback)

    def wait_for(
        self, value: Any, *, timeout: float | None = None, tolerance: float = 0.0, key: str | None = None
    ) -> Any:
        """Wait until it reads `value` (± `tolerance`), or until `value(reading)` is true; give the value.

        `key` says which of its values is meant, if it reads several. Raises DeviceTimeout after `timeout` seconds.
        """
        reached = threading.Event()
        found: list[Any] = []

        def look(reading: Reading) -> None:
            entry = reading[key] if key else value_of(reading, self.name)
            if value(reading) if callable(value) else _is_at(entry["value"], value, tolerance):
                found.append(entry["value"])
                reached.set()

        with self.subscribe(look):
            if not reached.wait(timeout):
                raise DeviceTimeout(f"{self.path} did not read {value!r} within {timeout:g} s; it reads {self.get()!r}")
        return found[0]

    # ── moving ──

    def set(self, value: Any, **kwargs: Any) -> DeviceStatus:
        """Start to move, or set; gives a status at once, whose `wait()` waits and raises what went wrong."""
        return self.start("set", value, **kwargs)

    def put(self, value: Any, *, timeout: float = _TIMEOUT) -> None:
        """Write a signal and wait until its control system took it."""
        info = self.info
        if info.children or not ({"put", "set"} & set(info.methods)):
            raise BadArgumentError(f"{self.path} is no signal that can be written: `set`, or `put` to one of its parts")
        self.ask("put", value, timeout=timeout)

    def move(self, value: Any, *, timeout: float | None = None) -> Any:
        """Move and wait until it is there, with a bar on a terminal; give where it is. Ctrl-C stops the device.

        Raises what the device raises, DeviceHeld if somebody holds it, and DeviceTimeout after `timeout` seconds: then
        it moves on, until `stop()`.
        """
        status = self.set(value)
        try:
            status.wait_and_show(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        return self.get()

    def mvr(self, by: float, *, timeout: float | None = None) -> Any:
        """Move by so much from its setpoint, as `move` does."""
        return self.move(self.ask("locate")["setpoint"] + by, timeout=timeout)

    def trigger(self) -> DeviceStatus:
        """Start a measurement; gives a status at once."""
        return self.start("trigger")

    def stop(self) -> None:
        """Stop it, whoever moves it; never refused."""
        self.ask("stop", timeout=_STOP_TIMEOUT)

    # ── any verb ──

    def ask(self, verb: str, *args: Any, timeout: float = _TIMEOUT, **kwargs: Any) -> Any:
        """Call a method that it has on its server and wait for the result; devices among the arguments go by name."""
        with self._door.notes.sending(self.path, verb, args, kwargs):
            return self.link.ask(self.path, verb, *map(plain, args), timeout=timeout, **kwargs)

    def start(self, verb: str, *args: Any, **kwargs: Any) -> DeviceStatus:
        """Call a method that takes its time; gives a status at once.

        Raises BadArgumentError if the device has no such method.
        """
        info = self.info
        if info.state != "failed" and info.methods and verb not in info.methods:
            able = sorted(_STATUS_VERBS & set(info.methods)) or ["nothing but be read"]
            raise BadArgumentError(f"{self.path} cannot {verb}: it can {', '.join(able)}")
        given = tuple(plain(each) for each in args)
        status = DeviceStatus(self, verb, given)
        with self._door.notes.sending(self.path, verb, args, kwargs):
            self.link.submit(self.path, verb, given, kwargs, status)
        self._door.notes.follow(status)
        return status

    # ── parts ──

    @property
    def parts(self) -> dict[str, "Device"]:
        """Its parts (components, signals) by their names."""
        return {name: self._door.device(f"{self.path}.{name}") for name in self.info.children}

    def __getitem__(self, key: int | str) -> "Device":
        name, _, rest = str(key).partition(".")
        if name not in self.info.children:
            raise KeyError(f"{self.path} has no part {key!r}: {choices(name, self.info.children)}")
        part = self._door.device(f"{self.path}.{name}")
        return part[rest] if rest else part

    def __iter__(self) -> Iterator[str]:
        return iter(self.info.children)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            info = self.info
        except RefusedError as error:
            raise AttributeError(str(error)) from None
        if name in info.children:
            return self._door.device(f"{self.path}.{name}")
        if name in info.methods:
            return functools.partial(self.start if name in _STATUS_VERBS else self.ask, name)
        offered = [each for each in dir(self) if not each.startswith("_")]
        raise AttributeError(f"{self.path} has no {name!r}: {choices(name, offered)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "path" and not name.startswith("_"):
            raise AttributeError(
                f"`{self.path}.{name} = …` sets nothing: `.{name}.put({value!r})` writes a signal, "
                f"`.move({value!r})` moves a motor"
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        usual = object.__dir__(self)
        try:
            info = self.info
        except BecBlueskyError:
            return sorted(usual)
        methods = set(info.methods)
        own = [name for name in usual if name not in _NEEDS or _NEEDS[name] in methods]
        if "set" not in methods or not has_one_value(info):
            own.remove("position")
        if info.children or not ({"put", "set"} & methods):
            own.remove("put")
        parts = [name for name in info.children if name.isidentifier()]
        return sorted({*own, *parts, *(methods - _INTERNAL_VERBS)})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.info.children)

    def __repr__(self) -> str:
        try:
            info = self.info
        except RefusedError as error:
            return f"<{self.path}: {error}>"
        value, units = self._shown(info)
        return line_of(info, value, units, self.state, self.reason, self.holder)

    def _shown(self, info: DeviceInfo) -> tuple[Any, str]:
        """Give the value to show and its units: asked for where that is quick, else what was published last."""
        _, value, units = shown_entry(info, self._door.readback(info))
        if self.state == "connected" and "read" in info.methods and has_one_value(info):
            with contextlib.suppress(Exception):  # a device that cannot be read is shown all the same
                value = self.get(timeout=_LOOK_TIMEOUT)
        return value, self._units_if_known() or units


def _is_at(value: Any, wanted: Any, tolerance: float) -> bool:
    if tolerance:
        return bool(abs(value - wanted) <= tolerance)
    return bool(value == wanted)
