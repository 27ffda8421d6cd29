"""The device server: the one owner of the hardware."""

import asyncio
import contextlib
import time
from typing import Any, ClassVar

import msgspec

from bec_bluesky import plugins
from bec_bluesky.bus import Wire
from bec_bluesky.channels import BEATS, DEVICE_CHANGES, DEVICES, INSTRUCTIONS, READBACKS
from bec_bluesky.device_server._answers import Outbox
from bec_bluesky.device_server._entry import Entry
from bec_bluesky.device_server._execute import Executor
from bec_bluesky.device_server._presence import Presence
from bec_bluesky.device_server._readbacks import Readbacks
from bec_bluesky.device_server._registry import RETRY_PERIOD, Registry
from bec_bluesky.device_server._seen import Seen
from bec_bluesky.device_server._servers import MAIN, check_server, service_name
from bec_bluesky.device_server._store import Store
from bec_bluesky.device_server._upkeep import Upkeep
from bec_bluesky.device_server._verbs import IN_ORDER
from bec_bluesky.errors import BusError, RefusedError, choices
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.devices import Answer, Beat, DeviceInfo, Instruction, Op
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings

__all__ = ["DeviceServer"]

_log = logger(__name__)
_BEAT_PERIOD = 0.1
"""Seconds."""
_LIMITS_PERIOD = 2.0
"""Seconds between two looks at the limits of devices."""
_PATIENCE = 2.0
"""Seconds to wait for devices before the others are served."""
_STOPS = frozenset({"stop", "stop_all"})
_instruction_decoder = decoder(Instruction)


class DeviceServer(Service):
    """Builds the devices of `devices.yaml`, executes instructions on them and publishes their readings."""

    name: ClassVar[str] = "device_server"

    def __init__(self, settings: Settings, *, server: str = MAIN) -> None:
        super().__init__(settings, name=service_name(server))
        self.server = server
        self._registry: Registry | None = None
        self._executor: Executor | None = None
        self._readbacks: Readbacks | None = None
        self._outbox: Outbox | None = None
        self._upkeep: Upkeep | None = None
        self._published: dict[str, list[DeviceInfo]] = {}
        """What was said of each device."""
        self._seen = Seen()
        self._is_lost = asyncio.Event()
        self._is_ending = False

    async def start(self) -> None:
        """Check the device file, build every device, then serve; raises SettingsError for a wrong file."""
        plugins.mount(self.settings)
        store = Store(plugins.collection(self.settings) / "devices.yaml")
        store.content = store.read()
        specs = store.content.specs
        check_server(self.server, specs)
        words = {"data_dir": str(self.settings.data_dir), "files_dir": str(self.settings.files_dir)}
        self.settings.files_dir.mkdir(parents=True, exist_ok=True)
        self._registry = Registry(self.server, specs, words)
        await asyncio.to_thread(self._registry.check)
        building = self.spawn(self._registry.build_all(), "build")
        await asyncio.wait([building], timeout=_PATIENCE)
        while self._registry.waits_for_required():
            await asyncio.wait([building], timeout=_BEAT_PERIOD)
        self._outbox = Outbox(asyncio.get_running_loop(), self.settings.beamline, self.server, self.incarnation)
        self._executor = Executor(self._registry, self._outbox, self.server)
        self._readbacks = Readbacks(
            self.server,
            self._registry,
            self._executor.reader,
            self._executor.statuses,
            self._executor.connections,
            self.bus,
        )
        self._executor.connections.on_lost = self._readbacks.lose
        self._executor.statuses.on_change = self._readbacks.note
        self._executor.view = self._readbacks.view
        self._upkeep = Upkeep(self.server, store, self._registry, self._executor, self._publish_edited)
        await self._open_wire()  # before anybody is told that there are devices
        self._registry.on_change = self._note_change
        await self._publish_all()
        self.spawn(self._keep_wire(), "wire")
        self.spawn(self._send_beats(), "beats")
        self.spawn(self._readbacks.run(), "readbacks")
        self.spawn(self._executor.claims.run(self.bus), "claims")
        self.spawn(self._try_again(building), "try again")
        self.spawn(self._follow_limits(), "limits")
        self.spawn(self._executor.calls.watch(), "calls")
        self.spawn(self._executor.connections.watch(), "connections")
        outbox = self._outbox
        presence = Presence(self.settings.beamline, lambda: outbox.wire, self._executor.clients, self._lose_client)
        self.spawn(presence.run(), "presence of clients")
        self._say_how_many()

    async def finish(self) -> None:
        """Stop executing, let go of the devices; they stay where they are."""
        self._is_ending = True
        if self._readbacks is not None:
            self._readbacks.end()
        if self._outbox is not None and self._outbox.wire is not None:
            self._outbox.wire.close()
            self._outbox.wire = None
        if self._executor is not None:
            await self._executor.close()
        if self._registry is not None:
            self._registry.close()

    # ── what is there ──

    async def _publish_all(self) -> None:
        assert self._registry is not None and self._executor is not None
        self._executor.claims.publish_all()
        await self.bus.delete(DEVICES, server=self.server)
        await self.bus.delete(READBACKS, server=self.server)
        self._published.clear()
        for entry in self._registry.entries.values():
            await self._publish_entry(entry)

    async def _publish_entry(self, entry: Entry) -> None:
        """Say what a device is, in the table and in the log; also which parts of it are no more."""
        infos = entry.infos
        paths = {info.path for info in infos}
        gone = [info for info in self._published.get(entry.name, ()) if info.path not in paths]
        self._published[entry.name] = infos
        await self.bus.put_fields(DEVICES, {info.path: info for info in infos}, server=self.server)
        for table in (DEVICES, READBACKS) if gone else ():
            await self.bus.delete_fields(table, *(info.path for info in gone), server=self.server)
        for info in gone:
            removed = {"state": "removed", "reason": "it is no longer there", "generation": entry.generation}
            await self.bus.append(DEVICE_CHANGES, msgspec.structs.replace(info, **removed))
        for info in infos:
            await self.bus.append(DEVICE_CHANGES, info)

    async def _publish_edited(self, entry: Entry) -> None:
        """Say what became of a device by an edit of the device file."""
        self._say_how_many()
        with contextlib.suppress(BusError):  # all is published again when Redis is back
            await self._publish_entry(entry)

    def _note_change(self, entry: Entry) -> None:
        """Tell that a device became another one."""
        self._say_how_many()
        self.spawn(self._publish_change(entry), f"news of {entry.name}")

    async def _publish_change(self, entry: Entry) -> None:
        with contextlib.suppress(BusError):  # all is published again when Redis is back
            await self._publish_entry(entry)

    def _say_how_many(self) -> None:
        assert self._registry is not None
        states = [entry.state for entry in self._registry.entries.values()]
        self.facts = {"devices": len(states), "connected": states.count("connected")}
        missing = {
            state: [entry.name for entry in self._registry.entries.values() if entry.state == state]
            for state in ("failed", "disconnected")
        }
        self.note = "; ".join(f"{state}: {', '.join(names)}" for state, names in missing.items() if names)

    async def _try_again(self, building: asyncio.Task[None]) -> None:
        """Connect what failed, until it is there."""
        assert self._registry is not None
        await building
        while not self._is_ending:  # connecting may swallow a cancellation, as reading may
            await asyncio.sleep(RETRY_PERIOD)
            await self._registry.build_failed()

    async def _lose_client(self, client: str) -> None:
        assert self._executor is not None
        failures = await self._executor.lose_client(client)
        for path, why in failures.items():
            await self.alarm(f"{path} was moved by a client that is gone, and could not be stopped: {why}")

    async def _follow_limits(self) -> None:
        """Keep up with limits that people change in the control system."""
        assert self._registry is not None
        while not self._is_ending:
            await asyncio.sleep(_LIMITS_PERIOD)
            await self._registry.look_at_limits()

    # ── instructions ──

    async def _open_wire(self) -> None:
        assert self._outbox is not None
        wire = await Wire.connect(self.bus.address, on_push=self._hear, on_lost=self._lose_wire)
        await wire.subscribe(INSTRUCTIONS.key(self.settings.beamline, server=self.server))
        self._outbox.wire = wire

    def _lose_wire(self, error: BusError) -> None:
        assert self._outbox is not None
        self._outbox.wire = None
        _log.warning("%s: no instructions until it is back", error)
        self._is_lost.set()

    async def _keep_wire(self) -> None:
        """Connect again whenever the connection was lost; what was said meanwhile is not repeated."""
        while True:
            await self._is_lost.wait()
            self._is_lost.clear()
            while True:
                try:
                    await self._open_wire()
                    await self._publish_all()  # it may be another Redis, or one that lost its data
                    break
                except BusError:
                    self._is_lost.clear()
                    await asyncio.sleep(0.2)
            _log.info("instructions are heard again")

    async def _send_beats(self) -> None:
        assert self._outbox is not None
        key = BEATS.key(self.settings.beamline, server=self.server)
        while True:
            wire = self._outbox.wire
            if wire is not None and wire.is_open:
                beat = wire.send("PUBLISH", key, encode(Beat(self.server, self.incarnation, time.time())))
                beat.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.sleep(_BEAT_PERIOD)

    def _hear(self, _: bytes, data: bytes) -> None:
        assert self._executor is not None and self._outbox is not None
        try:
            instruction = _instruction_decoder.decode(data)
        except Exception as error:  # noqa: BLE001  # whoever said that must not stop the others
            _log.warning("an instruction cannot be read: %s", error)
            return
        refusal = self._refusal(instruction)
        if refusal is not None:
            for op in instruction.ops:
                self._outbox.fail(instruction.client, op.id, refusal, op.device)
            return
        new = [op for op in instruction.ops if self._seen.is_new(instruction.client, op.id)]
        ours = [op for op in new if not op.device and op.verb not in IN_ORDER]
        for op in ours:
            self.spawn(self._serve(instruction.client, op), op.verb)
        if len(ours) < len(new):
            others = [op for op in new if op.device or op.verb in IN_ORDER]
            is_whole = len(others) == len(instruction.ops)
            self._executor.execute(instruction if is_whole else msgspec.structs.replace(instruction, ops=others))

    def _refusal(self, instruction: Instruction) -> RefusedError | None:
        if all(op.verb in _STOPS for op in instruction.ops):
            return None  # stopping is never refused
        if instruction.epoch and instruction.epoch != self.incarnation:
            return RefusedError(
                "it was meant for an earlier start of this device server and is not carried out", "epoch"
            )
        late = time.time() - instruction.deadline
        if instruction.deadline and late > 0:
            return RefusedError(f"it came {late:.1f} s after its deadline and is not carried out", "deadline")
        return None

    async def _serve(self, client: str, op: Op) -> None:
        """Do what is asked of the server itself."""
        assert self._executor is not None and self._registry is not None and self._outbox is not None
        verbs = {} if self._upkeep is None else self._upkeep.verbs
        try:
            result: Any
            if op.verb == "ping":
                result = time.time()
            elif op.verb == "list":
                result = [info for entry in self._registry.entries.values() for info in entry.infos]
            elif op.verb == "stop_all":
                result = await self._executor.stopping.stop_all()
            elif op.verb in verbs:
                result = await verbs[op.verb](*op.args, **op.kwargs)
            else:
                known = ("claim", "client_lost", "list", "ping", "release", "renew", "stop_all", *verbs)
                raise RefusedError(
                    f"the device server has no verb {op.verb!r}: {choices(op.verb, known)}", "unknown_verb"
                )
        except Exception as error:  # noqa: BLE001  # the answer to the client
            self._outbox.fail(client, op.id, error, "")
        else:
            self._outbox.say(client, Answer(op.id, "result", result))
