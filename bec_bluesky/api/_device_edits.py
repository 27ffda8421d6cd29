"""Which devices there are, over HTTP: the device file, its edits and reloads."""

from collections.abc import Coroutine, Iterable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Request, status
from pydantic import BaseModel, ConfigDict, Field

from bec_bluesky.api._access import asking
from bec_bluesky.api._json_values import json_value
from bec_bluesky.api._problems import PROBLEMS, Problem, ProblemError, problem_of
from bec_bluesky.bus import Bus
from bec_bluesky.client import DeviceNotes
from bec_bluesky.errors import BecBlueskyError, RefusedError, UnknownDeviceError
from bec_bluesky.proxy import DeviceEdits, EditReport

__all__ = ["device_file_router"]

_CONFLICTS = frozenset({"exists", "file_changed", "from_database", "needed", "shares_module"})
"""Codes of refusals that are about what is there, not about what was asked."""
Result = TypeVar("Result")


class FileEntry(BaseModel):
    """Where a device stands in the device file, and what stands there."""

    file: str
    """Relative to the device file."""
    place: str
    """`file:line`."""
    server: str
    database: str
    """The happi database that it comes from; empty: none."""
    entry: dict[str, Any]
    """As in the file, without defaults."""
    all: dict[str, Any]
    """Defaults included."""


class DeviceFile(BaseModel):
    """The device file and the files that it names."""

    path: str
    files: list[str]
    devices: dict[str, FileEntry]


class Change(BaseModel):
    """Keys of a device to set and to take away."""

    model_config = ConfigDict(extra="forbid")

    set: dict[str, Any] = Field(default_factory=dict, description="{dotted key: value}: limits.low, labels, kwargs.x")
    unset: list[str] = Field(default_factory=list, description="keys whose defaults are to hold again")


class Reload(BaseModel):
    """What to reload."""

    model_config = ConfigDict(extra="forbid")

    devices: list[str] = Field(
        default_factory=list, description="to build anew, with their edited classes; none: apply edits of the files"
    )
    with_dependants: bool = Field(default=False, description="also devices that are made from the same modules")


class Edited(BaseModel):
    """What an edit did; names of devices."""

    added: list[str]
    removed: list[str]
    rebuilt: list[str]
    changed: list[str]
    failed: dict[str, str]
    """Those that could not be built or connected, and why."""
    servers: dict[str, str]
    """Device servers that did not take it over, and why."""


def device_file_router(bus: Bus, notes: DeviceNotes) -> APIRouter:
    """Make the routes below `/api/v1/device_file`."""
    router = APIRouter(prefix="/api/v1/device_file", tags=["device file"], responses=PROBLEMS)
    edits = DeviceEdits(bus.address, bus.beamline)

    async def edited(
        who: Request, verb: str, names: Iterable[str], work: Coroutine[Any, Any, EditReport], **what: Any
    ) -> Edited:
        with notes.sending(", ".join(names), verb, kwargs=what, **asking(who)):
            return Edited.model_validate(await _told(work), from_attributes=True)

    @router.get("")
    async def show_file() -> DeviceFile:
        """Tell which files there are and what they say of each device."""
        return DeviceFile.model_validate(json_value(await _told(edits.describe())))

    @router.get("/devices/{name}")
    async def show_entry(name: str) -> FileEntry:
        """Tell where a device stands and what stands there."""
        devices = (await _told(edits.describe()))["devices"]
        if name not in devices:
            raise problem_of(UnknownDeviceError(name, devices, where="the device file"))
        return FileEntry.model_validate(json_value(devices[name]))

    @router.post("/devices/{name}", status_code=status.HTTP_201_CREATED)
    async def add_device(
        who: Request,
        name: str,
        entry: Annotated[dict[str, Any], Body(description="as in the device file")],
        file: str = "",
    ) -> Edited:
        """Add a device, to an included file if one is named."""
        return await edited(who, "add", [name], edits.add(name, entry, file), entry=entry)

    @router.put("/devices/{name}")
    async def put_device(
        who: Request, name: str, entry: Annotated[dict[str, Any], Body(description="as in the device file")]
    ) -> Edited:
        """Say anew all that the file says of a device, or add it."""
        there = (await _told(edits.describe()))["devices"].get(name)
        if there is None:
            return await edited(who, "add", [name], edits.add(name, entry), entry=entry)
        gone = [key for key in there["entry"] if key not in entry]
        return await edited(who, "change", [name], edits.change({name: entry}, {name: gone}), set=entry, unset=gone)

    @router.patch("/devices/{name}")
    async def change_device(who: Request, name: str, change: Change) -> Edited:
        """Set keys of a device, and take others away."""
        work = edits.change({name: change.set}, {name: change.unset})
        return await edited(who, "change", [name], work, set=change.set, unset=change.unset)

    @router.delete("/devices/{name}")
    async def remove_device(who: Request, name: str) -> Edited:
        """Let go of a device and take it out of the file."""
        return await edited(who, "remove", [name], edits.remove(name))

    @router.post("/reload")
    async def reload(who: Request, what: Reload) -> Edited:
        """Apply edits of the files by hand, or build devices anew with their edited classes."""
        work = edits.reload(what.devices, with_dependants=what.with_dependants)
        return await edited(who, "reload", what.devices, work)

    return router


async def _told(work: Coroutine[Any, Any, Result]) -> Result:
    """Do it; what is refused becomes a problem."""
    try:
        return await work
    except BecBlueskyError as error:
        if isinstance(error, RefusedError) and error.code in _CONFLICTS:
            problem = Problem(detail=str(error), code=error.code)
            raise ProblemError(status.HTTP_409_CONFLICT, problem) from error
        raise problem_of(error) from error
