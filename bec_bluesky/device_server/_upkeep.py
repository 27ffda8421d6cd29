"""Edits of the device file and reloads while the server runs: checked, then written, then applied to the devices."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bec_bluesky.device_server._changes import Changes, compare
from bec_bluesky.device_server._content import Content
from bec_bluesky.device_server._entry import Entry
from bec_bluesky.device_server._execute import Executor
from bec_bluesky.device_server._modules import modules_of
from bec_bluesky.device_server._needs import build_order, dependants, needed_by
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._store import Edit, Store
from bec_bluesky.device_server._text_edit import add_device, change_device, remove_device
from bec_bluesky.errors import RefusedError, StaleDevice, UnknownDeviceError
from bec_bluesky.fresh_modules import FreshModules
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import DeviceEdit

__all__ = ["Upkeep"]

_log = logger(__name__)
_TO_END = 2.0
"""Seconds for calls that are under way on a device that is to be disposed of."""


class Upkeep:
    """Serves the verbs by which people change which devices there are; one after the other.

    What is refused changes neither files nor devices. Devices that somebody holds are not touched, except for what is
    said of them (labels, limits …).
    """

    def __init__(
        self,
        server: str,
        store: Store,
        registry: Registry,
        executor: Executor,
        publish: Callable[[Entry], Awaitable[None]],
    ) -> None:
        self._server = server
        self._store = store
        self._registry = registry
        self._executor = executor
        self._publish = publish
        self._one_at_a_time = asyncio.Lock()
        self.verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "device_file": self.describe,
            "reload": self.reload,
            "add": self.add,
            "change": self.change,
            "remove": self.remove,
        }

    # ── verbs ──

    async def describe(self) -> dict[str, Any]:
        """Give which files there are and what they say of each device."""
        return self._store.describe()

    async def add(self, name: str, entry: dict[str, Any], file: str = "") -> DeviceEdit:
        """Add a device to a file, the main one if none is named, and build it."""
        if name in self._store.content.specs:
            origin = self._store.content.specs[name].origin.removesuffix(": ")
            raise RefusedError(f"there is a device {name!r} already, in {origin}: change that one", "exists")
        target = self._store.file_named(file)
        return await self._edit(lambda: self._store.prepare(target, lambda text: add_device(text, name, entry)))

    async def change(self, changes: Mapping[str, Mapping[str, Any]], unset: Mapping[str, Iterable[str]]) -> DeviceEdit:
        """Set keys of devices, {device: {dotted key: value}}, and take others away, {device: [key]}."""
        names = list(dict.fromkeys((*changes, *unset)))
        files = {self._store.file_of(name) for name in names}
        if len(files) != 1:
            raise RefusedError(
                f"{', '.join(names)} stand in {len(files)} files: edit those of one file at a time", "bad_argument"
            )

        def change(text: str) -> str:
            for name in names:
                text = change_device(text, name, changes.get(name, {}), unset.get(name, ()))
            return text

        return await self._edit(lambda: self._store.prepare(files.pop(), change))

    async def remove(self, name: str) -> DeviceEdit:
        """Remove a device from its file and let go of it."""
        file = self._store.file_of(name)
        database = self._store.content.databases.get(name)
        if database is not None:
            raise RefusedError(
                f"{name} comes from {database}: remove it there, or disable it here (`device disable {name}`)",
                "from_database",
            )

        needing = sorted(other for other, spec in self._store.content.specs.items() if name in needed_by(spec))
        if needing:
            raise RefusedError(f"{name} is needed by {', '.join(needing)}: change or remove that first", "needed")
        return await self._edit(lambda: self._store.prepare(file, lambda text: remove_device(text, name)))

    async def reload(self, names: list[str] | None = None, with_dependants: bool = False) -> DeviceEdit:
        """Read the files again and apply what changed; build the named devices anew, from classes imported anew.

        A class' module may make other devices as well: these are reloaded too if `with_dependants`, or it is refused.
        """
        async with self._one_at_a_time:
            content = await asyncio.to_thread(self._store.read)
            if not names:
                return await self._apply(content)
            old = self._registry.specs()
            for name in names:
                if name not in old:
                    raise UnknownDeviceError(name, old, where=f"device server {self._server}")
            wanted, modules = self._reload_set(set(names), with_dependants)
            changes = compare(old, content.share(self._server), wanted & content.share(self._server).keys())
            self._refuse_if_held(changes)
            fresh = FreshModules(sorted(modules))
            await asyncio.to_thread(fresh.load)
            try:
                return await self._apply(content, rebuild=wanted)
            except BaseException:
                fresh.restore()
                raise

    # ── what they do ──

    async def _edit(self, prepare: Callable[[], Edit]) -> DeviceEdit:
        async with self._one_at_a_time:
            edit = await asyncio.to_thread(prepare)
            return await self._apply(edit.content, edit)

    async def _apply(self, content: Content, edit: Edit | None = None, rebuild: Iterable[str] = ()) -> DeviceEdit:
        """Make the devices what the files say; up to the write nothing is changed if anything is refused."""
        specs = content.share(self._server)
        changes = compare(self._registry.specs(), specs, [name for name in rebuild if name in specs])
        await asyncio.to_thread(self._registry.check_specs, {n: specs[n] for n in changes.added | changes.rebuilt})
        with self._registry.rebuilding(changes.rebuilt | changes.removed):
            self._refuse_if_held(changes)
            if edit is not None:  # in this very moment: nobody may claim a device between the question and the deed
                self._store.write(edit)
            self._store.content = content
            await self._carry_out(changes, specs)
        failed = {
            name: entry.reason
            for name in sorted(changes.added | changes.rebuilt)
            if (entry := self._registry.entries[name]).state == "failed"
        }
        done = DeviceEdit(
            added=sorted(changes.added),
            removed=sorted(changes.removed),
            rebuilt=sorted(changes.rebuilt),
            changed=sorted(changes.touched),
            failed=failed,
        )
        _log.info("the devices are what %s says: %s", _names(content.texts), done)
        return done

    async def _carry_out(self, changes: Changes, specs: Mapping[str, Any]) -> None:
        rebuilt = [name for name in build_order(specs) if name in changes.rebuilt]
        subscriptions = {name: self._executor.monitors.take(name) for name in (*changes.removed, *rebuilt)}
        for name in (*changes.removed, *reversed(rebuilt)):
            why = "was removed" if name in changes.removed else "was built anew"
            error = StaleDevice(f"device {name} {why} meanwhile; whether this was carried out is unknown")
            await self._executor.abandon(self._registry.entries[name], error, _TO_END)
        for name in changes.removed:
            entry = await self._registry.remove(name)
            await self._publish(entry)
        for name, spec in specs.items():
            if name in changes.touched:
                await self._publish(self._registry.touch(name, spec))
            elif name not in changes.rebuilt | changes.added:
                self._registry.touch(name, spec)  # it may stand at another line now
        new = {name: specs[name] for name in build_order(specs) if name in changes.rebuilt | changes.added}
        await self._registry.rebuild(new)
        for name in new:
            await self._publish(self._registry.entries[name])
        for name, kept in subscriptions.items():
            await self._executor.resubscribe(name, kept)

    def _refuse_if_held(self, changes: Changes) -> None:
        for name in sorted(changes.removed | changes.rebuilt):
            self._executor.claims.refuse_if_held(name)

    def _reload_set(self, names: set[str], with_dependants: bool) -> tuple[set[str], set[str]]:
        """Give the devices to build anew and the modules to import anew, so that no live device keeps an old class.

        Devices that need one of these are built anew in any case, so those of the same modules belong to the set.
        """
        specs = self._registry.specs()
        made_from = {name: modules_of(spec, self._registry.entries[name].device) for name, spec in specs.items()}
        while True:
            modules = set[str]().union(*(made_from[name] for name in names))
            sharing = {name for name in specs.keys() - names if not modules.isdisjoint(made_from[name])}
            more = sharing if with_dependants else sharing & dependants(names, specs)
            if not more:
                break
            names = names | more
        if sharing:
            shared = sorted(modules & set[str]().union(*(made_from[name] for name in sharing)))
            raise RefusedError(
                f"{', '.join(shared)} also makes {', '.join(sorted(sharing))}, which would keep the old class: "
                f"reload them together (name them too, or `--with-dependants`)",
                "shares_module",
            )
        return names, modules


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
