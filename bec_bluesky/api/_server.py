"""The service that answers HTTP on the loopback interface."""

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, ClassVar

from bec_bluesky.api._tiled_door import TiledElsewhere
from bec_bluesky.api._tiled_profile import write_offline_profile, write_profile
from bec_bluesky.bus import Caller
from bec_bluesky.client import keeping_notes, open_device_access
from bec_bluesky.documents import (
    CatalogAddress,
    api_key,
    build_catalog_app,
    external_catalog,
    publish_address,
    withdraw_address,
)
from bec_bluesky.log import logger
from bec_bluesky.people import CommandFile, PeopleBook
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings
from bec_bluesky.web_server import HOST, listen, make_server

if TYPE_CHECKING:
    import uvicorn

    from bec_bluesky.api._app import LateApp

__all__ = ["ApiServer"]

_log = logger(__name__)


class ApiServer(Service):
    """Serves status and devices over HTTP, and the catalogue of runs through Tiled.

    It answers `/healthz` within a second; Tiled, whose imports take two more, says 503 until it is there. The address
    is in the heartbeat's facts (`url`; `tiled` once it answers) and in `api.json` of the data directory. Where the
    settings name a Tiled server, none is loaded here, and `/tiled` sends clients there; whether it answers matters to
    nobody here.
    """

    name: ClassVar[str] = "api"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._server: uvicorn.Server | None = None
        self._key = ""
        self._external: CatalogAddress | None = None
        self._tiled_is_ready = asyncio.Event()
        self._tiled_is_done = asyncio.Event()
        self._tasks_to_await: list[asyncio.Task[None]] = []
        self._exits = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Listen, then load Tiled; raises SettingsError if the port is taken or the data directory cannot be used."""
        self._key = api_key(self.settings)
        self._external = external_catalog(self.settings)
        listening = listen(self.settings.api_port, "BEC_BLUESKY_API_PORT")
        url = f"http://{HOST}:{listening.getsockname()[1]}"
        from bec_bluesky.api._app import TILED_PATH, LateApp, create_app

        caller = await self._exits.enter_async_context(Caller(self.bus, program="HTTP API"))
        access = await self._exits.enter_async_context(open_device_access(self.bus))
        notes = await self._exits.enter_async_context(keeping_notes(caller))
        self.spawn(access.live.run(), "readings")
        late = LateApp("Tiled")
        book = PeopleBook(self.settings.people)
        book.load()
        commands = CommandFile(self.settings.data_dir, self.settings.beamline)
        app = create_app(self.bus, caller, access, notes=notes, commands=commands, book=book, key=self._key, tiled=late)
        self._server = make_server(app)
        serving = self.spawn(self._serve(self._server, listening), "HTTP")
        self.facts = {"url": url}
        self._tasks_to_await = [serving]
        if self._external is None:
            self._tasks_to_await.append(self.spawn(self._serve_catalog(late, TILED_PATH), "Tiled"))
            await self._tiled_is_ready.wait()
            tiled, key = f"{url}{TILED_PATH}/api/v1", self._key
        else:
            tiled, key = self._external.uri, self._external.api_key
            late.app = TiledElsewhere(tiled)
        publish_address(self.settings, url=url, tiled=tiled)
        write_profile(self.settings, tiled, key)
        self.facts = {"url": url, "tiled": tiled}
        _log.info("HTTP API at %s, Tiled at %s", url, tiled)

    async def finish(self) -> None:
        """Answer what is under way, close the catalogue, and leave a profile that reads its files."""
        withdraw_address(self.settings)
        if self._server is not None:
            self._server.should_exit = True
        self._tiled_is_done.set()
        for task in self._tasks_to_await:
            with contextlib.suppress(Exception):  # it ended the service: the task group raises it
                await task
        await self._exits.aclose()
        if self._tiled_is_ready.is_set():
            write_offline_profile(self.settings, self._key)

    async def _serve(self, server: "uvicorn.Server", listening: socket.socket) -> None:
        with listening:
            await server.serve(sockets=[listening])

    async def _serve_catalog(self, late: "LateApp", root_path: str) -> None:
        """Load Tiled in a thread and live through its lifespan: a mounted application's own is not called."""
        for name in ("alembic", "numexpr"):
            logging.getLogger(name).setLevel(logging.WARNING)
        app = await asyncio.to_thread(build_catalog_app, self.settings, self._key, root_path=root_path)
        _silence_tiled()
        async with app.router.lifespan_context(app):
            late.app = app
            self._tiled_is_ready.set()
            await self._tiled_is_done.wait()


def _silence_tiled() -> None:
    """Take away the handlers by which Tiled writes to the terminal; what it warns of still reaches ours."""
    for name in list(logging.root.manager.loggerDict):
        if name == "tiled" or name.startswith("tiled."):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).setLevel(logging.WARNING)
