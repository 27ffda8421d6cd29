"""The service that speaks bluesky-queueserver's interface on 0MQ and HTTP."""

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, ClassVar

import zmq.asyncio

from bec_bluesky.bus import Caller
from bec_bluesky.channels import CONSOLE
from bec_bluesky.client import open_device_access
from bec_bluesky.documents import api_key
from bec_bluesky.errors import BecBlueskyError, SettingsError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import GetTasks, Tasks
from bec_bluesky.people import PeopleBook
from bec_bluesky.queueserver._announcements import Announcements
from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver._methods import Methods
from bec_bluesky.queueserver._mirror import Mirror
from bec_bluesky.queueserver._scan_server import ScanServerAccess
from bec_bluesky.queueserver._sockets import ControlSocket, InfoSocket
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings
from bec_bluesky.web_server import HOST, listen, make_server

if TYPE_CHECKING:
    import socket

    import uvicorn

__all__ = ["QueueServer"]

_log = logger(__name__)
_KEY_VARIABLE = "QSERVER_HTTP_SERVER_SINGLE_USER_API_KEY"
_ORIGINS_VARIABLE = "QSERVER_HTTP_SERVER_ALLOW_ORIGINS"
_PUBLIC_VARIABLE = "QSERVER_HTTP_SERVER_ALLOW_ANONYMOUS_ACCESS"
"""Variables of bluesky-httpserver that mean the same here."""
_PERIOD = 1.0
"""Seconds between two statuses at most."""


class QueueServer(Service):
    """Serves clients of bluesky-queueserver; a port that is taken costs that transport only."""

    name: ClassVar[str] = "queueserver"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.feed = Feed()
        self._context = zmq.asyncio.Context()
        self._sockets: list[ControlSocket | InfoSocket] = []
        self._exits = contextlib.AsyncExitStack()
        self._is_news = asyncio.Event()
        self._problems: list[str] = []
        self._web: uvicorn.Server | None = None
        self._web_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Copy what is there, then listen."""
        caller = await self._exits.enter_async_context(Caller(self.bus, user="queueserver", program="queueserver"))
        mirror = Mirror(self.bus, caller, self._is_news.set)
        access = ScanServerAccess(caller, mirror, self.feed)
        methods = Methods(access)
        await mirror.load()
        self.spawn(mirror.follow_status(), "status")
        self.spawn(mirror.follow_devices(), "devices")
        self.spawn(mirror.read_history(), "history")
        self.spawn(self._follow_console(), "console")
        self.spawn(self._publish(access, Announcements(self.feed)), "announce")
        self.spawn(self._stop_when_asked(access), "manager_stop")
        self._open_sockets(methods)
        await self._open_web(methods)
        self._complain(self._problems)

    async def finish(self) -> None:
        """Let go of the sockets, answer what is under way."""
        if self._web is not None and self._web_task is not None:
            self._web.should_exit = True
            with contextlib.suppress(Exception):  # it ended the service: the task group raises it
                await self._web_task
        for each in self._sockets:
            each.close()
        await self._exits.aclose()
        self._context.destroy(linger=200)

    def _open_sockets(self, methods: Methods) -> None:
        control, info = self.settings.qserver_control_address, self.settings.qserver_info_address
        for address, what in ((control, "control"), (info, "info")):
            if not address:
                continue
            try:
                if what == "control":
                    encoding = self.settings.qserver_encoding
                    made = ControlSocket(self._context, address, methods.answer, self.spawn, encoding)
                else:
                    made = InfoSocket(self._context, address, self.feed)
            except SettingsError as error:
                self._problems.append(f"{what} socket: {error}: set BEC_BLUESKY_QSERVER_{what.upper()}_ADDRESS")
                continue
            self._sockets.append(made)
            self.spawn(made.run(), f"{what} socket")
            self.facts = self.facts | {what: address}

    async def _open_web(self, methods: Methods) -> None:
        """Serve HTTP, unless it is turned off or its port is taken."""
        if self.settings.qserver_http_port < 0:
            return
        from bec_bluesky.queueserver.web import Door, create_app, device_socket_router

        book = PeopleBook(self.settings.people)
        try:
            system_keys = tuple(filter(None, (api_key(self.settings), os.environ.get(_KEY_VARIABLE))))
            book.load()
            listening = listen(self.settings.qserver_http_port, "BEC_BLUESKY_QSERVER_HTTP_PORT")
        except SettingsError as error:
            self._problems.append(f"HTTP: {error}")
            return
        door = Door(system_keys, book, lets_public_look=os.environ.get(_PUBLIC_VARIABLE, "0") not in ("", "0"))
        devices = await self._exits.enter_async_context(open_device_access(self.bus))
        self.spawn(devices.live.run(), "readings")
        more = (device_socket_router(devices, self.feed, door),)
        origins = os.environ.get(_ORIGINS_VARIABLE, "").split()
        self._web = make_server(create_app(methods, self.feed, door, more=more, origins=origins))
        self._web_task = self.spawn(self._serve(self._web, listening), "HTTP")
        self.facts = self.facts | {"http": f"http://{HOST}:{listening.getsockname()[1]}"}

    async def _serve(self, server: "uvicorn.Server", listening: "socket.socket") -> None:
        with listening:
            await server.serve(sockets=[listening])

    def _complain(self, problems: list[str]) -> None:
        if problems:
            self.note = "; ".join(problems)
            self.spawn(self.alarm(self.note), "alarm")

    async def _publish(self, access: ScanServerAccess, announcements: Announcements) -> None:
        """Tell the status after every change, once for what changes together, and each second."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD):
                    await self._is_news.wait()
            self._is_news.clear()
            await self._follow_foreground(access)
            status = access.status()
            if access.mirror.status is not None:
                announcements.take(access.mirror.status)
            self.feed.show(status)

    async def _follow_foreground(self, access: ScanServerAccess) -> None:
        """Notice that the task for which the queue waits has ended."""
        if not access.foreground:
            return
        with contextlib.suppress(BecBlueskyError):  # asked again with the next status
            found: Tasks = await access.ask(GetTasks(task_ids=[access.foreground], limit=1))
            if not found.tasks or found.tasks[0].state != "running":
                access.foreground = ""

    async def _follow_console(self) -> None:
        """Say what is printed; first what is kept of it."""
        async for _, line in self.bus.follow(CONSOLE):
            self.feed.say(line.text, at=line.time)

    async def _stop_when_asked(self, access: ScanServerAccess) -> None:
        await access.stop_asked.wait()
        self.stop()
