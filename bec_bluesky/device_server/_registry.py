"""The devices of this server: built each on its own, listed also when they failed, tried again."""

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._construct import check, construct
from bec_bluesky.device_server._describe import absent, describe, limits_now, respecified
from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.device_server._entry import CONNECTING, Entry, Found
from bec_bluesky.device_server._needs import build_order, needed_by, references
from bec_bluesky.errors import DeviceFailed, SettingsError, UnknownDeviceError
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import DeviceInfo

__all__ = ["Registry"]

_log = logger(__name__)
RETRY_PERIOD = 5.0
"""Seconds between two tries to connect a device that failed."""
_BUILD_MORE = 5.0
"""Seconds on top of a device's `timeout`, for its constructor and what `set:` sets."""
_MOVING_VERBS = ("set", "kickoff")
"""Whoever has one of these moves what it refers to; a detector that refers to a motor only looks at it."""
LAZY = "connects when it is first used"
HANGS = "{class_} does not return: its driver hangs; restart the device server once that is mended"


class Registry:
    """Builds devices and finds them by dotted path."""

    def __init__(self, server: str, specs: Mapping[str, DeviceSpec], words: Mapping[str, str]) -> None:
        self._server = server
        self._words = words
        self.entries = {name: Entry(name, spec) for name, spec in specs.items() if spec.server == server}
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="build")
        self._found: dict[str, Found] = {}
        self._generations: dict[str, int] = {}
        """{device that was removed: its last generation}"""
        self.rebuilt: dict[str, asyncio.Future[None]] = {}
        """Devices that are built anew just now; done when they are there."""
        self.on_change: Callable[[Entry], None] = lambda entry: None
        """Told when a device became another one while the server runs."""

    def check(self) -> None:
        """Check every entry before any is built: a mistaken one is noted as failed.

        It imports the classes, which takes its time.
        """
        for entry in self.entries.values():
            self._failed(entry, CONNECTING)
            self._check(entry)

    def _check(self, entry: Entry) -> None:
        try:
            check(entry.name, entry.spec)
        except SettingsError as error:
            entry.is_mistaken = True
            _log.error("%s", error, extra={"device": entry.name})
            self._failed(entry, str(error))

    async def build_all(self) -> None:
        """Build and connect every device; raises DeviceFailed if a required one failed."""
        await self._build(self.entries.values(), lambda entry: self.on_change(entry))
        for entry in self.entries.values():
            if entry.spec.connect == "required" and entry.spec.enabled and entry.state != "connected":
                raise DeviceFailed(f"device {entry.name} is required and failed: {entry.reason}")

    async def build_failed(self) -> None:
        """Try again what failed."""
        failed = {
            entry.name: entry.reason
            for entry in self.entries.values()
            if entry.state == "failed" and not entry.is_mistaken and not entry.one_at_a_time.locked()
        }
        await self._build([self.entries[name] for name in failed], lambda entry: None)
        for name, reason in failed.items():
            entry = self.entries.get(name)
            if entry is None:
                continue  # it was removed meanwhile
            if entry.state == "connected" or entry.reason != reason:
                _log.info("device %s is %s %s", name, entry.state, entry.reason, extra={"device": name})
                self.on_change(entry)

    def waits_for_required(self) -> bool:
        """Tell whether a device without which nothing can start is still being built."""
        return any(entry.spec.connect == "required" and entry.reason == CONNECTING for entry in self.entries.values())

    async def _build(self, entries: Iterable[Entry], tell: Callable[[Entry], None]) -> None:
        """Build at the same time what does not wait for another one."""
        wanted = {entry.name: entry for entry in entries}
        tasks: dict[str, asyncio.Task[None]] = {}

        async def build_when_ready(entry: Entry) -> None:
            await asyncio.gather(*(tasks[name] for name in needed_by(entry.spec) if name in tasks))
            await self.build(entry)
            tell(entry)

        order = build_order({name: entry.spec for name, entry in self.entries.items()})
        async with asyncio.TaskGroup() as group:
            for name in (name for name in order if name in wanted):
                tasks[name] = group.create_task(build_when_ready(wanted[name]), name=f"build {name}")

    async def build(self, entry: Entry) -> None:
        """Build one device that is not there; what goes wrong is its state and its reason."""
        async with entry.one_at_a_time:
            if entry.device is None and self.entries.get(entry.name) is entry:
                await self._build_now(entry)

    async def _build_now(self, entry: Entry) -> None:
        if not entry.spec.enabled:
            entry.state, entry.reason = "disabled", "`enabled: false` in the device file"
            entry.infos = [absent(entry.name, entry.spec, self._server, "disabled", entry.reason, entry.generation)]
            return
        if entry.is_mistaken:
            return
        entry.generation += 1
        try:
            async with asyncio.timeout(entry.spec.timeout + _BUILD_MORE):
                entry.device = await self._made(entry)
                entry.is_waiting = entry.spec.connect == "lazy"
                if not entry.is_waiting:
                    await self._connect(entry)
                entry.infos = await self._described(entry)
        except Exception as error:  # noqa: BLE001  # a stranger's class may raise anything; the others serve
            self._give_up(entry, error)
            return
        entry.state, entry.reason = "connected", LAZY if entry.is_waiting else ""

    # ── edits ──

    def specs(self) -> dict[str, DeviceSpec]:
        """Give what the devices are made from."""
        return {name: entry.spec for name, entry in self.entries.items()}

    def check_specs(self, specs: Mapping[str, DeviceSpec]) -> None:
        """Check entries before any is taken over; raises SettingsError with every mistake. It imports the classes."""
        problems: list[str] = []
        for name, spec in specs.items():
            try:
                check(name, spec)
            except SettingsError as error:
                problems.append(str(error))
        if problems:
            raise SettingsError("\n".join(problems))

    @contextlib.contextmanager
    def rebuilding(self, names: Iterable[str]) -> Iterator[None]:
        """Let what is asked of these devices wait until the end of the block."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rebuilt = dict.fromkeys(names, done)
        try:
            yield
        finally:
            self.rebuilt = {}
            done.set_result(None)

    def touch(self, name: str, spec: DeviceSpec) -> Entry:
        """Take over what is said of a device, which stays as it is."""
        entry = self.entries[name]
        entry.spec = spec
        entry.infos = respecified(entry.infos, spec)
        return entry

    async def rebuild(self, specs: Mapping[str, DeviceSpec]) -> None:
        """Make devices anew, or for the first time, in their order; what goes wrong with one is its state."""
        entries: list[Entry] = []
        for name, spec in specs.items():
            entry = self.entries.get(name)
            if entry is None:
                entry = self.entries[name] = Entry(name, spec, generation=self._generations.get(name, 0))
            entries.append(entry)
        for entry in reversed(entries):
            async with entry.one_at_a_time:
                await self._let_go(entry)
                entry.spec, entry.is_mistaken, entry.is_waiting = specs[entry.name], False, False
                self._failed(entry, CONNECTING)
        await self._build(entries, lambda entry: None)

    async def remove(self, name: str) -> Entry:
        """Let go of a device for good; what it is now says that it is removed."""
        entry = self.entries[name]
        async with entry.one_at_a_time:
            await self._let_go(entry)
            del self.entries[name]
            self._generations[name] = entry.generation
        entry.infos = []
        return entry

    async def _let_go(self, entry: Entry) -> None:
        """Dispose of a device, those of ophyd in a thread: they may block."""
        device = self._taken(entry)
        if device is not None and _layers.layer_of(device) != "ophyd-async":
            await asyncio.get_running_loop().run_in_executor(self._pool, _dispose, entry.name, device)
        elif device is not None:
            _dispose(entry.name, device)

    async def connect_now(self, entry: Entry) -> None:
        """Connect a lazy device at its first use; raises DeviceFailed, and it is listed as failed."""
        try:
            async with asyncio.timeout(entry.spec.timeout + _BUILD_MORE):
                await self._connect(entry)
                entry.is_waiting = False
                entry.infos = await self._described(entry)
        except Exception as error:
            entry.is_waiting = False
            self._give_up(entry, error)
            self.on_change(entry)
            raise DeviceFailed(f"device {entry.name} failed: {entry.reason}") from error
        entry.reason = ""
        self.on_change(entry)

    async def _connect(self, entry: Entry) -> None:
        await _layers.connect(entry.device, entry.spec.timeout, self._pool)
        await self._apply(entry)

    def _give_up(self, entry: Entry, error: Exception) -> None:
        is_hanging = entry.constructing is not None and not entry.constructing.done()
        reason = HANGS.format(class_=entry.spec.class_) if is_hanging else _one_sentence(error, entry.spec.timeout)
        if reason != entry.reason:  # it is tried again every few seconds
            _log.warning("device %s failed: %s", entry.name, reason, extra={"device": entry.name})
            _log.debug("device %s failed", entry.name, exc_info=error)
        _dispose(entry.name, self._taken(entry))
        self._failed(entry, reason)

    async def _made(self, entry: Entry) -> Any:
        """Make the object: those of ophyd-async need the loop's thread, others get one that may block."""
        built = {name: other.device for name, other in self.entries.items() if other.device is not None}

        def make() -> Any:
            return construct(entry.name, entry.spec, built, self._words)

        if _is_async_class(entry.spec.class_):
            made = make()
        else:
            if entry.constructing is not None and not entry.constructing.done():
                raise DeviceFailed(HANGS.format(class_=entry.spec.class_))
            entry.constructing = self._pool.submit(make)
            try:
                made = await asyncio.wrap_future(entry.constructing)
            except RuntimeError as error:
                if "event loop" not in str(error):
                    raise
                made = make()  # a factory that makes devices of ophyd-async
        made = await made if inspect.isawaitable(made) and not hasattr(made, "add_callback") else made
        if not hasattr(made, "name"):
            raise DeviceFailed(
                f"{entry.spec.class_} gave a {type(made).__name__}, which is no device: it has no `name`"
            )
        return made

    async def _apply(self, entry: Entry) -> None:
        """Apply `set:` of the device file: a signal is set, any other attribute assigned."""
        for path, value in entry.spec.set.items():
            *parents, last = path.split(".")
            owner = _layers.part(entry.device, parents)
            if last in dict(_layers.children(owner)):
                await _layers.set_signal(_layers.part(owner, [last]), value, entry.spec.timeout, self._pool)
            elif hasattr(owner, last):
                setattr(owner, last, value)
            else:
                raise DeviceFailed(f"`set: {path}`: {owner.name} has no signal and no attribute {last!r}")

    async def _described(self, entry: Entry) -> list[DeviceInfo]:
        def say() -> list[DeviceInfo]:
            reason = LAZY if entry.is_waiting else ""
            return describe(entry.name, entry.spec, self._server, entry.device, entry.generation, reason)

        if _layers.layer_of(entry.device) == "ophyd-async":
            return say()
        return await asyncio.get_running_loop().run_in_executor(self._pool, say)

    def _failed(self, entry: Entry, reason: str) -> None:
        entry.state, entry.reason = "failed", reason
        entry.infos = [absent(entry.name, entry.spec, self._server, "failed", reason, entry.generation)]

    def _taken(self, entry: Entry) -> Any:
        """Give the object of a device, which nobody finds any more."""
        device, entry.device = entry.device, None
        self._found.clear()
        return device

    # ── finding ──

    def find(self, path: str) -> Found:
        """Give a device or a part of one; raises UnknownDeviceError, DeviceFailed or LookupError."""
        found = self._found.get(path)
        if found is not None:
            return found
        first, *rest = path.split(".")
        entry = self.entries.get(first)
        if entry is None:
            raise UnknownDeviceError(first, self.entries)
        if entry.device is None or entry.state in ("failed", "disabled"):
            raise DeviceFailed(f"device {first} is {entry.state}: {entry.reason}")
        device = _layers.part(entry.device, rest) if rest else entry.device
        found = self._found[path] = Found(path, entry, device, _layers.layer_of(device), self.moved_with(first))
        return found

    def moved_with(self, path: str) -> tuple[str, ...]:
        """Give the device to which a path belongs, and what it moves; raises UnknownDeviceError.

        That is what its arguments refer to, if it can be set or kicked off itself; and so on.
        """
        names = [path.partition(".")[0]]
        if names[0] not in self.entries:
            raise UnknownDeviceError(names[0], self.entries)
        for name in names:
            entry = self.entries[name]
            if any(hasattr(type(entry.device), verb) for verb in _MOVING_VERBS):
                needed = (reference.partition(".")[0] for reference in references(entry.spec))
                names += [each for each in dict.fromkeys(needed) if each in self.entries and each not in names]
        return tuple(names)

    def connected(self) -> Iterator[Entry]:
        """Give the entries whose devices are there, though their control system may be away just now."""
        return (entry for entry in self.entries.values() if entry.device is not None and not entry.is_waiting)

    def mark(self, entry: Entry, state: Literal["connected", "disconnected"], reason: str) -> None:
        """Note that a device's control system went away or came back."""
        entry.state, entry.reason = state, reason
        entry.infos = [msgspec.structs.replace(info, state=state, reason=reason) for info in entry.infos]
        self.on_change(entry)

    async def look_at_limits(self) -> None:
        """Tell of limits that people changed in the control system: proxies and the queue refuse by what was told."""
        loop = asyncio.get_running_loop()
        for entry in list(self.connected()):
            if entry.spec.blocking or entry.state != "connected" or entry.device is None:
                continue
            generation = entry.generation
            changed = await loop.run_in_executor(self._pool, limits_now, entry.infos, entry.device)
            if changed and entry.generation == generation:
                entry.infos = [
                    msgspec.structs.replace(info, properties=info.properties | {"limits": changed[info.path]})
                    if info.path in changed
                    else info
                    for info in entry.infos
                ]
                self.on_change(entry)

    def close(self) -> None:
        """Let go of all devices."""
        for entry in self.entries.values():
            _dispose(entry.name, self._taken(entry))
        self._pool.shutdown(wait=False, cancel_futures=True)


def _dispose(name: str, device: Any) -> None:
    if device is not None:
        try:
            _layers.dispose(device)
        except Exception:  # noqa: BLE001  # nobody uses it any more
            _log.debug("device %s could not be disposed of", name, exc_info=True)


def _is_async_class(target: str) -> bool:
    """Tell whether a target is a class of ophyd-async, whose constructor wants the loop's thread."""
    module, _, name = target.partition(":")
    found = getattr(sys.modules.get(module), name, None)
    return inspect.iscoroutinefunction(found) or (
        inspect.isclass(found) and any(base.__module__.startswith("ophyd_async.") for base in found.__mro__)
    )


def _one_sentence(error: BaseException, timeout: float) -> str:
    """Say an error in one line; ophyd-async's NotConnectedError lists its parts over several."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        return f"it did not connect within {timeout:g} s"
    if isinstance(error, DeviceFailed | SettingsError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
