"""Devices over HTTP: what there is, what it reads, moving and stopping it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, WebSocket, status

from bec_bluesky.api._access import AT_INSTRUMENT, Asking, asking
from bec_bluesky.api._device_models import (
    Device,
    DeviceDetails,
    Done,
    Move,
    Reading,
    Set,
    Stopped,
    Trigger,
    Value,
)
from bec_bluesky.api._json_values import json_value
from bec_bluesky.api._live_devices import LiveSocket
from bec_bluesky.api._problems import PROBLEMS, Problem, ProblemError, problem_of
from bec_bluesky.bus import Bus, Caller
from bec_bluesky.client import DeviceAccess, DeviceNotes, has_one_value, is_chosen, panic_stop, shown_entry, value_in
from bec_bluesky.errors import BadArgumentError, DeviceTimeout
from bec_bluesky.messages.around_queue import GetRules, Rules
from bec_bluesky.messages.devices import DeviceInfo, Readback
from bec_bluesky.people import Principal, UserGroups, device_facts
from bec_bluesky.proxy import RemoteStatus, limits_of

__all__ = ["device_router"]

_LONGEST_CALL = 10.0
"""Seconds that a call may take which moves nothing."""


def device_router(bus: Bus, caller: Caller, access: DeviceAccess, notes: DeviceNotes) -> APIRouter:
    """Make the routes below `/api/v1/devices`."""
    router = APIRouter(prefix="/api/v1/devices", tags=["devices"], responses=PROBLEMS)
    devices = _Devices(bus, caller, access, notes)

    async def may_use(path: str, who: Asking) -> None:
        """Refuse what the rules of a person's group close."""
        if who is not AT_INSTRUMENT:
            await devices.check_rules(path, who)

    in_group = [Depends(may_use)]

    @router.get("")
    async def list_devices(
        label: Annotated[str | None, Query()] = None,
        state: Annotated[str | None, Query()] = None,
        readout: Annotated[str | None, Query()] = None,
        server: Annotated[str | None, Query()] = None,
    ) -> list[Device]:
        """List the devices that have all of what is asked, with their last published values."""
        return await devices.list(label=label, state=state, readout=readout, server=server)

    @router.post("/stop_all")
    async def stop_all(connection: Request) -> Stopped:
        """Panic stop: stop everything that moves, whoever moves it, and abort what runs."""
        return await devices.stop_all(asking(connection))

    @router.websocket("/live")
    async def live(socket: WebSocket, devices: Annotated[str, Query()]) -> None:
        """Push what devices (comma-separated paths) read: now, and whenever it changes."""
        paths = [path for each in devices.split(",") if (path := each.strip())]
        with problems_told():
            for path in paths:
                access.link.directory.info(path)
        await LiveSocket(socket, access).serve(paths)

    @router.get("/{path}")
    async def show_device(path: str) -> DeviceDetails:
        """Tell what a device, or a part of one, is, and what was published of it last."""
        return await devices.show(path)

    @router.get("/{path}/reading")
    async def read_device(path: str) -> Reading:
        """Read it now; a running scan is not disturbed."""
        return Reading(path=path, reading=json_value(await devices.ask(path, "read")))

    @router.get("/{path}/value")
    async def get_value(path: str) -> Value:
        """Give the value of a signal, or where a motor is, now."""
        return Value(path=path, value=json_value(await devices.value(path)))

    @router.post("/{path}/set", dependencies=in_group)
    async def set_device(who: Request, path: str, body: Set, response: Response) -> Done:
        """Set it, or start to move it (202: it was taken and is under way)."""
        done = await devices.start(who, path, "set", body.value, timeout=body.timeout if body.wait else None)
        return _told(path, done, response)

    @router.post("/{path}/move", dependencies=in_group)
    async def move_device(who: Request, path: str, body: Move) -> Value:
        """Move it, and answer with where it is when it is there."""
        return Value(path=path, value=json_value(await devices.move(who, path, body)))

    @router.post("/{path}/trigger", dependencies=in_group)
    async def trigger_device(who: Request, path: str, response: Response, body: Trigger | None = None) -> Done:
        """Have it measure once."""
        body = body or Trigger()
        done = await devices.start(who, path, "trigger", timeout=body.timeout if body.wait else None)
        return _told(path, done, response)

    @router.post("/{path}/stop")
    async def stop_device(who: Request, path: str) -> Done:
        """Stop it, whoever moves it."""
        with notes.sending(path, "stop", **asking(who)):
            await devices.ask(path, "stop")
        return Done(path=path, done=True)

    return router


def _told(path: str, done: bool, response: Response) -> Done:
    if not done:
        response.status_code = status.HTTP_202_ACCEPTED
    return Done(path=path, done=done)


@contextlib.contextmanager
def problems_told() -> Iterator[None]:
    """Make of every error in the block, a device's or ours, an HTTP answer."""
    try:
        yield
    except ProblemError:
        raise
    except Exception as error:  # whatever a device raises is the answer
        raise problem_of(error) from error


class _Devices:
    """What the routes do."""

    def __init__(self, bus: Bus, caller: Caller, access: DeviceAccess, notes: DeviceNotes) -> None:
        self._bus = bus
        self._caller = caller
        self._link = access.link
        self._notes = notes
        self._facts = access.facts

    async def list(self, **asked: str | None) -> list[Device]:
        readbacks = await self._facts.readbacks()
        holders = await self._facts.holders()
        infos = [self._link.directory.info(path) for path in sorted(self._link.directory.names())]
        return [
            Device(**self._common(info, readbacks.get(info.path), holders.get(info.path)))
            for info in infos
            if is_chosen(info, self._facts.state(info), **asked)
        ]

    async def show(self, path: str) -> DeviceDetails:
        with problems_told():
            info = self._link.directory.info(path)
            readback = await self._facts.readback(info)
            holder = await self._facts.holder(info)
        return DeviceDetails(
            **self._common(info, readback, holder),
            parent=info.parent,
            parts=[f"{path}.{name}" for name in info.children],
            methods=info.methods,
            protocols=info.protocols,
            hints=json_value(info.hints),
            reading={} if readback is None else json_value(readback.reading),
            connected=readback is not None and readback.connected and self._link.is_heard(info.server),
        )

    def _common(self, info: DeviceInfo, readback: Readback | None, holder: str | None) -> dict[str, Any]:
        _, value, units = shown_entry(info, readback)
        return {
            "path": info.path,
            "name": info.name,
            "server": info.server,
            "state": self._facts.state(info),
            "reason": self._facts.reason(info),
            "device_class": info.device_class,
            "layer": info.layer,
            "labels": info.labels,
            "readout": info.readout,
            "limits": limits_of(info),
            "read_only": info.read_only,
            "holder": holder,
            "value": json_value(value),
            "units": units,
        }

    async def check_rules(self, path: str, who: Principal) -> None:
        """Raise ProblemError 403 unless the rules open a device to the group of who asks."""
        with problems_told():
            info = self._link.directory.info(path)
            rules: Rules = await self._caller.ask(GetRules())
        groups = UserGroups({"user_groups": rules.user_groups})
        if who.group not in groups or not groups.is_device_allowed(who.group, info.path, device_facts(info)):
            text = f"Device {path!r} is not allowed for users from {who.group!r} group."
            raise ProblemError(status.HTTP_403_FORBIDDEN, Problem(detail=text, code="not_permitted"))

    async def stop_all(self, who: dict[str, Any]) -> Stopped:
        with problems_told():
            report = await panic_stop(self._bus, self._caller, **who)
        return Stopped(
            complete=report.is_complete,
            servers=list(report.servers),
            not_stopped=report.not_stopped,
            silent=report.silent,
            duration=report.duration,
        )

    async def ask(self, path: str, verb: str, *args: Any) -> Any:
        """Ask for a verb; one round trip."""
        with problems_told():
            return await self._bounded(path, verb, self._request(path, verb, *args), _LONGEST_CALL)

    def _request(self, path: str, verb: str, *args: Any) -> Awaitable[Any]:
        self._check(path, verb)
        return self._link.request(path, verb, *args)

    def _check(self, path: str, verb: str) -> None:
        info = self._link.directory.info(path)
        if verb not in {*info.methods, "get", "locate"} and info.state == "connected":
            raise BadArgumentError(f"{path} cannot {verb}: it has {', '.join(info.methods) or 'no methods'}")

    async def _bounded(self, path: str, verb: str, answer: Awaitable[Any], timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            if isinstance(error, DeviceTimeout):
                raise
            raise DeviceTimeout(f"{path}.{verb} is not done after {timeout:g} s; it goes on") from error

    async def value(self, path: str) -> Any:
        """Give the value of a device, as the Python client does."""
        with problems_told():
            info = self._link.directory.info(path)
            if has_one_value(info):
                return await self.ask(path, "get")
            return value_in(info, await self.ask(path, "read"))

    async def start(self, who: Request, path: str, verb: str, *args: Any, timeout: float | None) -> bool:
        """Start what takes its time, wait for its end if there is a `timeout`; give whether it is done."""
        with problems_told():
            self._check(path, verb)
            status_ = RemoteStatus(self._link, self._link.device(path), verb, args)
            with self._notes.sending(path, verb, args, **asking(who)):
                self._link.submit(path, verb, args, {}, status_)
            self._notes.follow(status_, **asking(who))
            if timeout is not None:
                await self._bounded(path, verb, status_, timeout)
                return True
            # what the server refuses is answered before an operation that comes later
            with contextlib.suppress(Exception):
                await self._link.request(path, "view", 0.0)
            error = status_.exception()
            if error is not None:
                raise error
            return status_.done

    async def move(self, who: Request, path: str, move: Move) -> Any:
        value = move.value
        if move.relative:
            with problems_told():
                self._check(path, "set")
            at = await self.ask(path, "locate")
            with problems_told():
                value = at["setpoint"] + value
        await self.start(who, path, "set", value, timeout=move.timeout)
        return await self.value(path)
