"""Who asks, and which scopes a path needs."""

import re
import secrets
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query, status
from starlette.requests import HTTPConnection

from bec_bluesky.people import ALL_SCOPES, STOPPING, PeopleBook, Principal

__all__ = ["AT_INSTRUMENT", "Access", "Asking", "asking", "must_have"]

AT_INSTRUMENT = Principal("", "", ("admin",), ALL_SCOPES)
"""Whoever has the key of the system: asks as the process does, without a group's bounds."""

_SCOPES: tuple[tuple[str, str, frozenset[str]], ...] = tuple(
    (verbs, path, scopes if isinstance(scopes, frozenset) else frozenset({scopes}))
    for verbs, path, scopes in (
        ("POST", r"/devices/stop_all|/devices/[^/]+/stop|/queue/stop|/run/(pause|pause_now|stop|abort|halt)", STOPPING),
        ("DELETE", r"/tasks/[^/]+", STOPPING),
        ("GET", r"/queue(/.*)?", "read:queue"),
        ("GET", r"/history", "read:history"),
        ("GET", r"/(plans|devices|device_file)(/.*)?", "read:resources"),
        ("GET", r"/(runs|tasks|commands|alarms|live)(/.*)?", "read:monitor"),
        ("GET", r"/lock", "read:lock"),
        ("GET", r"/console(/.*)?", "read:console"),
        ("GET", r"/rules", "read:config"),
        ("GET", r".*", "read:status"),
        ("*", r"/queue/items/execute|/tasks/function|/devices/.*", "write:execute"),
        ("*", r"/queue/(items(/.*)?|clear)", "write:queue:edit"),
        ("*", r"/queue/(start|mode)", "write:queue:control"),
        ("*", r"/run/.*", "write:plan:control"),
        ("*", r"/(environment|plans)/.*", "write:manager:control"),
        ("*", r"/tasks/script", "write:scripts"),
        ("*", r"/lock", "write:lock"),
        ("*", r"/rules", "write:permissions"),
        ("*", r".*", "write:config"),
    )
)
"""(verb, path below /api/v1, any one of these scopes opens it); the first that fits holds."""


class Access:
    """Lets a request through whose key opens its path: a header `Authorization: Apikey …`, or `?api_key=…`."""

    def __init__(self, key: str, book: PeopleBook) -> None:
        """`key` opens everything; the keys in the book open what their owners may do."""
        self._key = key.encode()
        self._book = book

    def __call__(self, connection: HTTPConnection, api_key: Annotated[str | None, Query()] = None) -> None:
        """Let it through, or raise HTTPException 401 (who?) or 403 (may not)."""
        principal = self.principal(connection, api_key)
        verb = connection.scope.get("method", "GET")
        path = connection.url.path.removeprefix("/api/v1")
        scopes = next(each for verbs, pattern, each in _SCOPES if _fits(verbs, verb) and re.fullmatch(pattern, path))
        if not scopes & principal.scopes:
            wanted = "any scope to write" if scopes is STOPPING else next(iter(scopes))
            raise HTTPException(status.HTTP_403_FORBIDDEN, _missing(principal, f"{verb} {path}", wanted))
        connection.state.principal = principal

    def principal(self, connection: HTTPConnection, api_key: str | None = None) -> Principal:
        """Give who asks; raises HTTPException 401 for no key, and for one that opens nothing."""
        scheme, _, shown = connection.headers.get("Authorization", "").partition(" ")
        given = shown if scheme.lower() in ("apikey", "bearer") else api_key
        if given is not None:
            if secrets.compare_digest(given.encode("utf-8", "surrogatepass"), self._key):
                return AT_INSTRUMENT
            found = self._book.who(given)
            if found is not None:
                return found
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            "the API key is missing or wrong: send it as `Authorization: Apikey …`; that of the system is in api.key "
            "of the data directory, `bec-bluesky people key new` makes one for a person",
        )


def _fits(verbs: str, verb: str) -> bool:
    return verbs in ("*", verb) or (verbs == "GET" and verb == "HEAD")


def _asking(connection: HTTPConnection) -> Principal:
    return connection.state.principal


Asking = Annotated[Principal, Depends(_asking)]
"""Parameter of a route: who asks."""


def must_have(connection: HTTPConnection, scope: str) -> None:
    """Refuse who may ask, but not for all of it; raises HTTPException 403."""
    principal: Principal = connection.state.principal
    if scope not in principal.scopes:
        raise HTTPException(status.HTTP_403_FORBIDDEN, _missing(principal, "do that", scope))


def _missing(principal: Principal, what: str, wanted: str) -> str:
    has = ", ".join(sorted(principal.scopes)) or "nothing"
    return f"{principal.name} may not {what}: it needs {wanted}, and the key has {has}"


def asking(connection: HTTPConnection) -> dict[str, Any]:
    """Say who asks, and from where, as `Caller.ask` takes it."""
    principal: Principal = connection.state.principal
    host = "" if connection.client is None else connection.client.host
    if principal is AT_INSTRUMENT:
        return {"host": host}
    return {"user": principal.name, "user_group": principal.group, "host": host}
