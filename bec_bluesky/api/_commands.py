"""The command log over HTTP."""

import asyncio
import itertools
from typing import Annotated

from fastapi import APIRouter, Query, Response

from bec_bluesky.api._answers import answer, told
from bec_bluesky.messages.around_queue import Command
from bec_bluesky.people import CommandFile, Wanted

__all__ = ["command_router"]


def command_router(file: CommandFile) -> APIRouter:
    """Make the route below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", tags=["command log"])

    @router.get("/commands", response_model=None, responses=told(list[Command]))
    async def commands(
        user: str = "",
        verb: Annotated[str, Query(description="or a part of it")] = "",
        text: Annotated[str, Query(description="stands somewhere in the record, whatever its case")] = "",
        since: Annotated[float, Query(description="seconds since 1970")] = 0.0,
        until: Annotated[float | None, Query(description="seconds since 1970")] = None,
        only_refused: Annotated[bool, Query(description="only what was refused or failed")] = False,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> Response:
        """List who asked for what, and what became of it, newest first."""
        last = float("inf") if until is None else until
        wanted = Wanted(user=user, verb=verb, text=text, since=since, until=last, only_refused=only_refused)
        found = await asyncio.to_thread(lambda: list(itertools.islice(file.newest(wanted), limit)))
        return answer(found)

    return router
