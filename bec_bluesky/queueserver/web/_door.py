"""Finds out who asks, and whether they may: keys and tokens in the header, the query, a cookie or a sub-protocol."""

import secrets
from dataclasses import dataclass

from fastapi import HTTPException, Request, WebSocket, status
from starlette.requests import HTTPConnection

from bec_bluesky.people import PUBLIC, SINGLE_USER, PeopleBook, Principal

__all__ = ["CSRF_COOKIE", "KEY_COOKIE", "Door"]

KEY_COOKIE = "bluesky_httpserver_api_key"
CSRF_COOKIE = "bluesky_httpserver_csrf"
_SUBPROTOCOL = "api_key"
"""Browsers cannot set headers of a WebSocket: `new WebSocket(url, ["api_key", key])`."""
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Door:
    """Lets in who has a key with the scopes that are needed."""

    system_keys: tuple[str, ...]
    """Each opens everything."""
    book: PeopleBook
    lets_public_look: bool = False

    def principal(self, connection: HTTPConnection) -> Principal:
        """Give who asks; raises HTTPException 401 for a key that opens nothing, 403 for a forged request."""
        shown, is_cookie = self.shown_key(connection)
        if shown is None:
            return PUBLIC if self.lets_public_look else _NOBODY
        if is_cookie:
            _refuse_forged(connection)
        # both sides as bytes: a key with letters beyond ASCII is a wrong one, not an error
        given = shown.encode("utf-8", "surrogatepass")
        if any(secrets.compare_digest(given, key.encode()) for key in self.system_keys):
            return SINGLE_USER
        principal = self.book.who(shown)
        if principal is None:
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Invalid API key", {"WWW-Authenticate": "Bearer"})
        return principal

    def admit(self, connection: HTTPConnection, *scopes: str) -> Principal:
        """Give who asks; raises HTTPException 401 unless they have all of the scopes."""
        principal = self.principal(connection)
        if not set(scopes) <= principal.scopes:
            raise HTTPException(
                status.HTTP_401_UNAUTHORIZED,
                f"Not enough permissions. Requires scopes {list(scopes)}. "
                f"Request had scopes {sorted(principal.scopes)}",
                {"WWW-Authenticate": f'Bearer scope="{" ".join(scopes)}"'},
            )
        return principal

    async def admit_socket(self, socket: WebSocket, *scopes: str) -> Principal | None:
        """Accept a socket; None if it was refused (HTTP 403)."""
        try:
            principal = self.admit(socket, *scopes)
        except HTTPException:
            await socket.close(code=4001, reason="Invalid token")
            return None
        offered: list[str] = socket.scope.get("subprotocols", [])
        await socket.accept(subprotocol=_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
        return principal

    def shown_key(self, connection: HTTPConnection) -> tuple[str | None, bool]:
        """Give the key that was shown, and whether a cookie showed it."""
        query = connection.query_params.get("api_key")
        if query is not None:
            return query, False
        authorization = connection.headers.get("Authorization")
        if authorization:
            scheme, _, key = authorization.partition(" ")
            if scheme.lower() not in ("apikey", "bearer"):
                raise HTTPException(
                    status.HTTP_400_BAD_REQUEST,
                    "Authorization header must include the authorization type followed by a space and then the "
                    "secret, as in 'Bearer SECRET' or 'Apikey SECRET'. ",
                )
            return key.strip(), False
        offered: list[str] = connection.scope.get("subprotocols", [])
        if len(offered) == 2 and offered[0] == _SUBPROTOCOL:
            return offered[1], False
        return connection.cookies.get(KEY_COOKIE), True


_NOBODY = Principal("", "", (), frozenset())


def _refuse_forged(connection: HTTPConnection) -> None:
    """A browser adds cookies to what any page asks: what changes something must show that it can read another one.

    A WebSocket sends no such proof, so there the page must come from this server.
    """
    if isinstance(connection, Request):
        if connection.method in _SAFE_METHODS:
            return
        cookie = connection.cookies.get(CSRF_COOKIE, "")
        shown = connection.headers.get("x-csrf") or connection.query_params.get("csrf") or ""
        if cookie and secrets.compare_digest(shown.encode("utf-8", "surrogatepass"), cookie.encode()):
            return
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            "with the key in a cookie, the x-csrf header or the csrf query parameter must repeat the cookie "
            f"{CSRF_COOKIE}: or send the key as `Authorization: ApiKey …`",
        )
    origin, host = connection.headers.get("origin", ""), connection.headers.get("host", "")
    if origin.partition("://")[2] != host:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "a page of another origin must show the key itself")
