"""The HTTP application: who is alive, what the scan server does, devices, and Tiled below `/tiled`."""

from typing import Any

import msgspec
from fastapi import Depends, FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bec_bluesky import __version__
from bec_bluesky.api._access import Access
from bec_bluesky.api._commands import command_router
from bec_bluesky.api._device_edits import device_file_router
from bec_bluesky.api._devices import device_router
from bec_bluesky.api._problems import ProblemError, say_invalid, say_problem
from bec_bluesky.api._products import product_router
from bec_bluesky.api._requests import request_router
from bec_bluesky.api._tiled_door import TiledDoor
from bec_bluesky.bus import Bus, Caller
from bec_bluesky.channels import DEVICE_HOLDERS, NAMED_STATUS, SCAN_STATUS, SERVICES
from bec_bluesky.client import DeviceAccess, DeviceNotes
from bec_bluesky.errors import BusError
from bec_bluesky.messages.queue import MAIN_QUEUE
from bec_bluesky.people import CommandFile, PeopleBook

__all__ = ["TILED_PATH", "LateApp", "create_app"]

TILED_PATH = "/tiled"


class LateApp:
    """Stands where an application will be; until then everything gets 503, so that clients ask again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on to the application."""
        if self.app is not None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = JSONResponse(
                {"detail": f"{self._name} is starting: ask again in a second"},
                status_code=status.HTTP_503_SERVICE_UNAVAILABLE,
                headers={"Retry-After": "1"},
            )
            await refusal(scope, receive, send)


def create_app(
    bus: Bus,
    caller: Caller,
    access: DeviceAccess,
    *,
    notes: DeviceNotes,
    commands: CommandFile,
    book: PeopleBook,
    key: str,
    tiled: LateApp,
) -> FastAPI:
    """Make the application; `key` opens everything, the keys of people in the book what their roles allow."""
    app = FastAPI(title="bec-bluesky", version=__version__, openapi_url="/api/v1/openapi.json", redoc_url=None)
    app.mount(TILED_PATH, TiledDoor(tiled, key, book))
    with_key = [Depends(Access(key, book))]
    app.include_router(device_router(bus, caller, access, notes), dependencies=with_key)
    app.include_router(device_file_router(bus, notes), dependencies=with_key)
    app.include_router(product_router(bus), dependencies=with_key)
    app.include_router(request_router(caller), dependencies=with_key)
    app.include_router(command_router(commands), dependencies=with_key)
    app.add_exception_handler(ProblemError, say_problem)
    app.add_exception_handler(RequestValidationError, say_invalid)

    @app.exception_handler(BusError)
    async def say_redis_is_away(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=status.HTTP_503_SERVICE_UNAVAILABLE)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell whether everything here answers, Tiled included."""
        return {"status": "starting" if tiled.app is None else "ready"}

    @app.get("/api/v1/status", dependencies=with_key)
    async def system_status() -> dict[str, Any]:
        """Give the heartbeats of all living services by name, the status of each queue, and who holds which device."""
        services = await bus.find(SERVICES, "service")
        main = await bus.get(SCAN_STATUS)
        queues: dict[str, Any] = {}
        if main is not None:
            others = await bus.find(NAMED_STATUS, "queue")
            queues = {MAIN_QUEUE: main} | {name: each for name, each in others.items() if name in main.queues}
        holders = await bus.find_tables(DEVICE_HOLDERS, "server")
        return {
            "beamline": bus.beamline,
            "version": __version__,
            "services": {name: msgspec.to_builtins(beat) for name, beat in sorted(services.items())},
            "scan_server": msgspec.to_builtins(main),
            "queues": msgspec.to_builtins(queues),
            "holders": msgspec.to_builtins({name: each for table in holders.values() for name, each in table.items()}),
        }

    return app
