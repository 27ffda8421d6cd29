"""Edits of the device file by way of the device servers, which check, write and apply them."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bec_bluesky.bus import Address, Wire
from bec_bluesky.channels import ANSWERS, INSTRUCTIONS
from bec_bluesky.errors import (
    BecBlueskyError,
    BusError,
    DeviceServerLost,
    DeviceTimeout,
    RefusedError,
    UnknownDeviceError,
)
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.devices import Answer, Answers, DeviceEdit, Instruction, Op
from bec_bluesky.proxy._failure import error_from, no_receiver
from bec_bluesky.proxy._servers import listening

__all__ = ["DeviceEdits", "EditReport"]

_LONGEST_EDIT = 180.0
"""Seconds: devices that are built anew take their time to connect."""
_LOOK_PERIOD = 1.0
"""Seconds between looks at whether the server still listens."""
_FIRST = "main"
"""The server that is asked where it does not matter which."""
_answers = decoder(Answers)


@dataclass
class EditReport:
    """What an edit or a reload did, on all servers; names of devices."""

    added: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])
    rebuilt: list[str] = field(default_factory=list[str])
    changed: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Devices that are in the file, but could not be built or connected, and why."""
    servers: dict[str, str] = field(default_factory=dict[str, str])
    """Device servers that did not take it over, and why."""

    def take(self, done: DeviceEdit) -> None:
        """Take over what one server did; a device that moved from one to another was rebuilt."""
        self.added += done.added
        self.removed += done.removed
        self.rebuilt += done.rebuilt
        self.changed += done.changed
        self.failed |= done.failed
        moved = set(self.added) & set(self.removed)
        if moved:
            self.added = [name for name in self.added if name not in moved]
            self.removed = [name for name in self.removed if name not in moved]
            self.rebuilt += sorted(moved)

    def __str__(self) -> str:
        lines = [
            f"{word} {', '.join(names)}"
            for word, names in (
                ("added", self.added),
                ("removed", self.removed),
                ("built anew", self.rebuilt),
                ("changed", self.changed),
            )
            if names
        ]
        lines += [f"{name} failed: {reason}" for name, reason in self.failed.items()]
        lines += [f"device server {name!r}: {reason}" for name, reason in self.servers.items()]
        return "\n".join(lines) or "nothing changed"


class DeviceEdits:
    """Changes which devices there are; each call connects by itself and may take as long as devices take to connect.

    Every method raises DeviceServerLost if no device server runs, and what the server says: SettingsError for what the
    device file must not say, DeviceHeld, UnknownDeviceError or another RefusedError. Then nothing was changed.
    """

    def __init__(self, address: Address, beamline: str) -> None:
        self._address = address
        self._beamline = beamline

    async def describe(self) -> dict[str, Any]:
        """Give the files, and for each device its file, place, server, entry and all its values."""
        async with self._asking() as asking:
            return await asking.describe()

    async def add(self, name: str, entry: Mapping[str, Any], file: str = "") -> EditReport:
        """Add a device, to `file` (relative to the device file) or the device file itself."""
        async with self._asking() as asking:
            owner = str(entry.get("server", _FIRST))
            return await asking.edit(owner, "add", name, dict(entry), file)

    async def change(
        self, changes: Mapping[str, Mapping[str, Any]], unset: Mapping[str, Iterable[str]] | None = None
    ) -> EditReport:
        """Set keys, {device: {dotted key: value}}, and take others away, {device: [key]}; all or nothing."""
        gone = {name: list(keys) for name, keys in (unset or {}).items()}
        async with self._asking() as asking:
            owners = await asking.owners([*changes, *gone])
            if len(owners) > 1:
                what = "; ".join(f"{', '.join(names)} on {server}" for server, names in owners.items())
                raise RefusedError(f"these devices have different servers ({what}): edit them one after the other")
            return await asking.edit(
                next(iter(owners), _FIRST), "change", {name: dict(keys) for name, keys in changes.items()}, gone
            )

    async def remove(self, name: str) -> EditReport:
        """Remove a device."""
        async with self._asking() as asking:
            (owner,) = await asking.owners([name])
            return await asking.edit(owner, "remove", name)

    async def reload(self, names: Iterable[str] = (), *, with_dependants: bool = False) -> EditReport:
        """Apply what a person changed in the files; or build the named devices anew, with their edited classes.

        `with_dependants`: also the devices made from the same modules, which would keep the old classes.
        """
        wanted = list(names)
        report = EditReport()
        async with self._asking() as asking:
            if not wanted:
                await asking.reload(report, asking.servers)
            owners = await asking.owners(wanted) if wanted else {}
            for owner, mine in owners.items():
                report.take(await asking.ask(owner, "reload", mine, with_dependants))
            report.servers |= await asking.missing()
        return report

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator["_Asking"]:
        asking = _Asking(self._beamline)
        await asking.open(self._address)
        try:
            yield asking
        finally:
            asking.close()


class _Asking:
    """A connection on which servers are asked one thing after the other."""

    def __init__(self, beamline: str) -> None:
        self._beamline = beamline
        self._client = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._wire: Wire | None = None
        self.servers: list[str] = []
        """Those that run."""

    async def open(self, address: Address) -> None:
        self._wire = await Wire.connect(address, self._hear, self._lose)
        await self._wire.subscribe(ANSWERS.key(self._beamline, client=self._client))
        self.servers = await listening(self._wire, self._beamline)
        if not self.servers:
            raise DeviceServerLost("no device server is running: start the system (`bec-bluesky up`)")

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    def _hear(self, _: bytes, data: bytes) -> None:
        for answer in _answers.decode(data).items:
            waiting = self._waiting.pop(answer.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def _lose(self, error: BusError) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(DeviceServerLost(f"the answer cannot be heard: {error}"))

    async def ask(self, server: str, verb: str, *args: Any) -> Any:
        """Ask a server; raises what it says, or DeviceServerLost."""
        assert self._wire is not None
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        instruction = encode(Instruction(self._client, "", [Op(number, "", verb, list(args))]))
        if not await self._wire.call("PUBLISH", INSTRUCTIONS.key(self._beamline, server=server), instruction):
            raise no_receiver(server)
        try:
            async with asyncio.timeout(_LONGEST_EDIT):
                while not answered.done():
                    await asyncio.wait([answered], timeout=_LOOK_PERIOD)
                    if not answered.done() and server not in await listening(self._wire, self._beamline):
                        raise DeviceServerLost(f"device server {server!r} ended; whether it did {verb} is unknown")
        except TimeoutError:
            raise DeviceTimeout(f"device server {server!r} did not answer within {_LONGEST_EDIT:g} s") from None
        answer = answered.result()
        if answer.code == "failed":
            raise error_from(answer.payload)
        return msgspec.convert(answer.payload, DeviceEdit) if verb != "device_file" else answer.payload

    async def describe(self) -> dict[str, Any]:
        return await self.ask(self._one_of(_FIRST), "device_file")

    def _one_of(self, wanted: str) -> str:
        return wanted if wanted in self.servers else self.servers[0]

    async def owners(self, names: list[str]) -> dict[str, list[str]]:
        """Give the servers of devices; raises UnknownDeviceError."""
        devices = (await self.describe())["devices"]
        owners: dict[str, list[str]] = {}
        for name in names:
            if name not in devices:
                raise UnknownDeviceError(name, devices, where="the device file")
            owners.setdefault(devices[name]["server"], []).append(name)
        return owners

    async def edit(self, owner: str, verb: str, *args: Any) -> EditReport:
        """Have the owner edit the file, or another server if it does not run, and the others read it again."""
        report = EditReport()
        editor = self._one_of(owner)
        report.take(await self.ask(editor, verb, *args))
        await self.reload(report, [server for server in self.servers if server != editor])
        report.servers |= await self.missing()
        return report

    async def reload(self, report: EditReport, servers: Iterable[str]) -> None:
        """Have servers read the files again; if all refuse, raise what the last one says."""
        error: BecBlueskyError | None = None
        asked = list(servers)
        for server in asked:
            try:
                report.take(await self.ask(server, "reload"))
            except BecBlueskyError as refusal:
                report.servers[server], error = str(refusal), refusal
        if error is not None and asked == self.servers and len(report.servers) == len(asked):
            raise error

    async def missing(self) -> dict[str, str]:
        """Name the servers that own devices and do not run."""
        owners = {each["server"] for each in (await self.describe())["devices"].values() if each["all"]["enabled"]}
        return dict.fromkeys(
            sorted(owners - set(self.servers)), "it does not run, so its devices are not there: start it"
        )
