"""Lets people read the catalogue with their own keys: Tiled itself knows only the key of the system."""

import re
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import status
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bec_bluesky.people import PeopleBook

__all__ = ["TiledDoor", "TiledElsewhere"]

_READING = "read:history"
_WRITING = "admin:apikeys"
_READS_BY_POST = re.compile(r".*/api/v1/(table|container|awkward|array)/(full|partition|buffers|block)(/.*)?")


class TiledDoor:
    """Shows Tiled the system's key in the place of a person's; only an admin's lets data be changed."""

    def __init__(self, app: ASGIApp, key: str, book: PeopleBook) -> None:
        self._app = app
        self._key = key
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with the system's key if a person's that is good for it was shown."""
        if scope["type"] in ("http", "websocket"):
            shown = _shown(scope)
            principal = self._book.who(shown) if shown and shown != self._key else None
            if principal is not None:
                needed = _READING if _only_reads(scope) else _WRITING
                if needed not in principal.scopes:
                    refusal = JSONResponse(
                        {"detail": f"{principal.name} may not {scope.get('method', 'GET')} here: it needs {needed}"},
                        status_code=status.HTTP_403_FORBIDDEN,
                    )
                    await refusal(scope, receive, send)
                    return
                scope = _with_key(scope, self._key)
        await self._app(scope, receive, send)


class TiledElsewhere:
    """Sends clients to the Tiled server that has the runs; they show it a key of its own, never one of ours."""

    def __init__(self, uri: str) -> None:
        """Take the address, with `/api/v1`."""
        self._uri = uri.removesuffix("/api/v1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 307 and the same path there, without any key."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        query = urlencode(_without_key(scope))
        target = f"{self._uri}{quote(path)}" + (f"?{query}" if query else "")
        moved = JSONResponse(
            {"detail": f"the runs are at {self._uri}: ask there, with a key of that server"},
            status_code=status.HTTP_307_TEMPORARY_REDIRECT,
            headers={"Location": target},
        )
        await moved(scope, receive, send)


def _without_key(scope: Scope) -> list[tuple[str, str]]:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return [(name, value) for name, value in query if name != "api_key"]


def _shown(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, shown = value.decode("latin-1").partition(" ")
            if scheme.lower() in ("apikey", "bearer"):
                return shown.strip()
    return dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("api_key", "")


def _only_reads(scope: Scope) -> bool:
    verb = scope.get("method", "GET")
    return verb in ("GET", "HEAD", "OPTIONS") or (
        verb == "POST" and _READS_BY_POST.fullmatch(scope["path"]) is not None
    )


def _with_key(scope: Scope, key: str) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    return {
        **scope,
        "headers": [*headers, (b"authorization", f"Apikey {key}".encode())],
        "query_string": urlencode(_without_key(scope)).encode(),
    }
