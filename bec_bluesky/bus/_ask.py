"""Asking the scan server: a request on its stream, the answer on ours."""

import asyncio
import contextlib
import getpass
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Self

from bec_bluesky.bus._bus import Bus
from bec_bluesky.channels import REPLIES, REQUESTS
from bec_bluesky.errors import NoReplyError
from bec_bluesky.messages.failures import raised
from bec_bluesky.messages.queue import Reply, Request, RequestBody

__all__ = ["Caller"]


class Caller:
    """Asks the scan server; one for each client process."""

    def __init__(self, bus: Bus, *, user: str | None = None, program: str | None = None) -> None:
        """Ask as `user`, by default who runs this process, and as `program`, by default what was started here."""
        self._bus = bus
        self._host = socket.gethostname()
        self._program = program or _program()
        self._client = uuid.uuid4().hex
        self._user = user or getpass.getuser()
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._hear(), name="replies")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def ask(
        self,
        body: RequestBody,
        *,
        timeout: float = 10.0,
        user: str | None = None,
        user_group: str = "",
        lock_key: str = "",
        queue: str = "",
        host: str | None = None,
        program: str | None = None,
        answer_within: float | None = None,
    ) -> Any:
        """Ask and give the body of the answer; `user` and the rest go into the request as they are.

        `queue` names the queue that is meant, if it is not the main one. `host` and `program` say where and with what
        the person sits who asks, if that is not here. `answer_within` seconds is how long the scan
        server may take over it, if that is less than `timeout`.

        Raises what the scan server says (RefusedError and its kin), NoReplyError after `timeout` seconds, and BusError
        if Redis does not take the request.
        """
        request = self._request(
            body,
            timeout if answer_within is None else answer_within,
            user,
            user_group,
            host,
            program,
            lock_key=lock_key,
            queue=queue,
        )
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.request_id] = future
        try:
            await self._bus.append(REQUESTS, request)
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError:
            raise NoReplyError(
                f"the scan server did not answer within {timeout:g} s: is it running? (`bec-bluesky status`)"
            ) from None
        finally:
            self._waiting.pop(request.request_id, None)
        if reply.failure is not None:
            raise raised(reply.failure)
        return reply.body

    async def tell(
        self,
        body: RequestBody,
        *,
        good_for: float,
        user: str | None = None,
        user_group: str = "",
        host: str | None = None,
        program: str | None = None,
    ) -> None:
        """Ask, and wait for no answer; the scan server takes it up within `good_for` seconds, or not at all.

        Raises BusError if Redis does not take the request.
        """
        await self._bus.append(REQUESTS, self._request(body, good_for, user, user_group, host, program))

    def _request(
        self,
        body: RequestBody,
        good_for: float,
        user: str | None,
        user_group: str,
        host: str | None,
        program: str | None,
        **more: str,
    ) -> Request:
        return Request(
            request_id=uuid.uuid4().hex,
            reply_to=self._client,
            deadline=time.time() + good_for,
            user=self._user if user is None else user,
            user_group=user_group,
            host=self._host if host is None else host,
            program=self._program if program is None else program,
            body=body,
            **more,
        )

    async def _hear(self) -> None:
        async for _, reply in self._bus.follow(REPLIES, client=self._client):
            future = self._waiting.get(reply.request_id)
            if future is not None and not future.done():
                future.set_result(reply)


def _program() -> str:
    """Name what was started as this process; of `python -m package`, the package."""
    path = Path(sys.argv[0])
    return (path.parent.name if path.name == "__main__.py" else path.name) or "python"
