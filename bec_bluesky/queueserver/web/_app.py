"""The HTTP application below `/api`."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response, status
from fastapi.middleware.cors import CORSMiddleware

from bec_bluesky import __version__
from bec_bluesky.errors import SettingsError
from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver._methods import Methods
from bec_bluesky.queueserver.web._auth_routes import auth_router
from bec_bluesky.queueserver.web._bodies import answer, check_keys, payload_of
from bec_bluesky.queueserver.web._calls import call_router
from bec_bluesky.queueserver.web._console_routes import console_router
from bec_bluesky.queueserver.web._door import CSRF_COOKIE, KEY_COOKIE, Door
from bec_bluesky.queueserver.web._uploads import upload_router

__all__ = ["create_app"]

_LONGEST_SLEEP = 60.0
"""Seconds that a client may have an answer delayed, to try its own patience."""


def create_app(
    methods: Methods, feed: Feed, door: Door, *, more: Sequence[APIRouter] = (), origins: Sequence[str] = ()
) -> FastAPI:
    """Make the application; pages of `origins` may call it."""
    app = FastAPI(
        title="bec-bluesky: the interface of bluesky-httpserver",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url="/docs",
        redoc_url=None,
    )
    # the spreadsheet and the console come first: `/queue/item/{uid}` is the last that could match
    routers = (upload_router(methods, door), console_router(feed, door), auth_router(door), _test_router(door), *more)
    for router in (*routers, call_router(methods, door)):
        app.include_router(router, prefix="/api")
    app.middleware("http")(_with_cookies)
    app.add_exception_handler(SettingsError, _people_are_unreadable)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_credentials="*" not in origins,
            allow_methods=["*"],
            allow_headers=["*"],
        )
    return app


async def _people_are_unreadable(request: Request, error: Exception) -> Response:
    """Say what is wrong with the file of people, where a change of it was asked for."""
    return answer({"detail": str(error)}, status.HTTP_503_SERVICE_UNAVAILABLE)


async def _with_cookies(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Have a browser keep the key that its address showed, so that links of the page work."""
    response = await call_next(request)
    shown = request.query_params.get("api_key")
    is_let_in = response.status_code < status.HTTP_400_BAD_REQUEST
    if shown and shown.isalnum() and is_let_in and request.cookies.get(KEY_COOKIE) != shown:
        response.set_cookie(KEY_COOKIE, shown, httponly=True, samesite="lax")
        if CSRF_COOKIE not in request.cookies:
            response.set_cookie(CSRF_COOKIE, secrets.token_urlsafe(32), samesite="lax")
    return response


def _test_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["tests of clients"])

    @router.get("/test/server/sleep", response_model=None)
    async def sleep(request: Request) -> Response:
        """Answer after `time` seconds (60 at most)."""
        door.admit(request, "read:testing")
        payload = await payload_of(request, is_required=True)
        check_keys(payload, required=("time",))
        try:
            seconds = float(payload["time"])
        except (TypeError, ValueError, OverflowError):
            seconds = -1.0
        if not 0.0 <= seconds <= _LONGEST_SLEEP:
            raise HTTPException(
                status.HTTP_400_BAD_REQUEST,
                f"time must be 0 to {_LONGEST_SLEEP:g} s, it is {str(payload['time'])[:50]}",
            )
        await asyncio.sleep(seconds)
        return answer({"success": True, "msg": ""})

    return router
