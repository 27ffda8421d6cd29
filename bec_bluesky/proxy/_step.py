"""The message `remote_step`: what follows the moves of a point, and the moves themselves, in one instruction.

    Msg("remote_step", None, *devices, group=<of the sets before it>, name=<stream>)

does what `wait` for the group, and then `bluesky.plan_stubs.trigger_and_read` would: the same device methods in the
same order, the same documents, the same errors. The `set` messages come before it as ever, so that preprocessors see
them; as long as they are not sent, they travel in the same instruction. A plan may use it if all the devices name the
same server in `steps_on`; its response is all their readings.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._failure import error_from, is_failure
from bec_bluesky.proxy._reply import Reply
from bec_bluesky.proxy._status import RemoteStatus

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["register_step"]

Triggers = list[tuple[RemoteDevice, RemoteStatus]]


def register_step(RE: Any, link: "DeviceLink") -> None:
    """Teach a RunEngine the message `remote_step`."""
    RE.register_command("remote_step", _Step(RE, link).run)
    link.does_steps = True


class _Step:
    """Does the message for one RunEngine."""

    def __init__(self, RE: Any, link: "DeviceLink") -> None:
        self._RE = RE
        self._link = link

    async def run(self, msg: Any) -> dict[str, Any] | None:
        """Move, trigger and read devices of one server, and make an event of it; give {data key: reading}."""
        devices: tuple[RemoteDevice, ...] = msg.args
        group = msg.kwargs["group"]
        self._RE._objs_seen.update(devices)  # they are told of a pause, as if each had had messages of its own
        moves = self._RE._status_objs.get(group, ())
        if not self._link.operations.are_all_held(self._link.server(devices[0].steps_on), moves):
            await self._do("wait", msg, group=group)  # something is under way already, or moves elsewhere
            if self._has_failed:
                return None
            moves = ()
        instruction = _Instruction(self._link, devices, has_moves=bool(moves))
        try:
            await self._do("wait", msg, group=group)
            if self._has_failed:
                return None
            await self._wait_for_triggers(msg, instruction.triggers)
            if self._has_failed:
                return None
            readings = await instruction.readings
        finally:
            instruction.end()
        return await self._make_event(msg, devices, readings)

    @property
    def _has_failed(self) -> bool:
        """Whether a status failed: the RunEngine throws its error into the plan when this message is done."""
        return self._RE._exception is not None

    async def _wait_for_triggers(self, msg: Any, triggers: Triggers) -> None:
        pending = [(device, status) for device, status in triggers if not status.success]
        if not pending:
            return
        group = object()
        for device, status in pending:
            self._RE._add_status_to_group(obj=device, status_object=status, group=group, action="trigger")
        await self._do("wait", msg, group=group)

    async def _make_event(
        self, msg: Any, devices: Iterable[RemoteDevice], readings: Mapping[str, Any]
    ) -> dict[str, Any]:
        event: dict[str, Any] = {}
        await self._do("create", msg, name=msg.kwargs["name"])
        try:
            for device in devices:
                reading = readings[device.path]
                if is_failure(reading):
                    raise error_from(reading)
                with device._answering_read(reading):
                    event |= await self._do("read", msg, device)
        except Exception:
            await self._do("drop", msg)
            raise
        await self._do("save", msg)
        return event

    async def _do(self, command: str, msg: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Do what another message of the same run would."""
        return await self._RE._command_registry[command](msg._replace(command=command, obj=obj, args=(), kwargs=kwargs))


class _Instruction:
    """Triggers and reads devices after what is held is done."""

    def __init__(self, link: "DeviceLink", devices: Iterable[RemoteDevice], *, has_moves: bool) -> None:
        self._link = link
        self._server = next(iter(devices)).info.server
        self.readings: asyncio.Future[dict[str, Any]] = link.loop.create_future()
        if has_moves:
            self._tell("then")
        triggered: list[Any] = [device for device in devices if "trigger" in device.info.methods]
        self.triggers: Triggers = [(device, device.trigger()) for device in triggered]
        if triggered:
            self._tell("then")
        paths = [device.path for device in devices]
        self._number = link.submit_to_server(self._server, "read_all", paths, Reply(self.readings))
        link.operations.flush()

    def _tell(self, verb: str, *args: Any) -> None:
        self._link.submit_to_server(self._server, verb, args, None)

    def end(self) -> None:
        """Let nothing more of it start: before a `stop`, whose success would let the next phase begin."""
        if not self.readings.done():
            self._tell("give_up", self._number)
            self._link.operations.flush()
        self.readings.add_done_callback(_seen)


def _seen(future: "asyncio.Future[Any]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
