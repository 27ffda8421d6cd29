"""Who am I, what may I, and API keys with a part of that."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response, status

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.people import ACCESS_TIME, PROVIDER, REFRESH_TIME, SINGLE_USER, ApiKey, Principal, Session
from bec_bluesky.queueserver.web._bodies import answer, check_keys, credentials_of, payload_of
from bec_bluesky.queueserver.web._door import CSRF_COOKIE, KEY_COOKIE, Door

__all__ = ["auth_router"]

_AFTER_A_MISTAKE = 0.5
"""Seconds until anybody can try again: so guessing takes for ever."""


def auth_router(door: Door) -> APIRouter:
    """Make the routes below `/auth`.

    Those who ask are whoever has the key of the system, and the users in the book of people.
    """
    one_at_a_time = asyncio.Semaphore(1)
    router = APIRouter(prefix="/auth", tags=["authentication"])
    book = door.book

    @router.get("/whoami", response_model=None)
    async def whoami(request: Request) -> Response:
        """Tell who asks."""
        return answer(_principal(door, door.admit(request)))

    @router.get("/scopes", response_model=None)
    async def scopes(request: Request) -> Response:
        """Tell what who asks may do."""
        principal = door.admit(request)
        return answer({"roles": list(principal.roles), "scopes": sorted(principal.scopes)})

    @router.post("/apikey", response_model=None)
    async def new_key(request: Request) -> Response:
        """Make a key with some or all of one's own scopes; its secret is told here and never again."""
        principal = door.admit(request, "user:apikeys")
        return answer(_new_key(door, principal, await payload_of(request, is_required=True)))

    @router.get("/apikey", response_model=None)
    async def key_info(request: Request) -> Response:
        """Tell what is known of the key that is shown."""
        shown, _ = door.shown_key(request)
        if shown is None:
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "No API key was provided with this request.")
        found = door.principal(request).key
        if found is None:
            raise HTTPException(
                status.HTTP_401_UNAUTHORIZED, "Invalid API key: it is the key of the system, of which nothing is kept"
            )
        return answer(_key(door, found))

    @router.delete("/apikey", response_model=None)
    async def revoke_key(request: Request) -> Response:
        """Take away one of one's own keys."""
        principal = door.admit(request, "user:apikeys")
        first_eight = request.query_params.get("first_eight")
        if first_eight is None:
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, "the query parameter first_eight is missing")
        if not book.revoke_key(principal.name, first_eight):
            raise HTTPException(status.HTTP_404_NOT_FOUND, "The currently-authenticated user has no such API key.")
        return answer({"success": True, "msg": ""})

    @router.get("/principal", response_model=None)
    async def principals(request: Request) -> Response:
        """List everybody."""
        door.admit(request, "admin:read:principals")
        everybody = [SINGLE_USER.name, *(user.name for user in book.users)]
        return answer([_principal(door, found) for name in everybody if (found := book.named(name)) is not None])

    @router.get("/principal/{uid}", response_model=None)
    async def principal(uid: str, request: Request) -> Response:
        """Tell of one."""
        door.admit(request, "admin:read:principals")
        return answer(_principal(door, _known(door, uid)))

    @router.post("/principal/{uid}/apikey", response_model=None)
    async def new_key_for(uid: str, request: Request) -> Response:
        """Make a key for somebody."""
        door.admit(request, "admin:apikeys")
        return answer(_new_key(door, _known(door, uid), await payload_of(request, is_required=True)))

    @router.post("/provider/{name}/token", response_model=None)
    async def token(name: str, request: Request) -> Response:
        """Log in with a form of `username` and `password`; answered with tokens."""
        if name != PROVIDER:
            raise HTTPException(
                status.HTTP_404_NOT_FOUND, f"No authentication provider {name[:100]!r}: there is {PROVIDER!r}"
            )
        username, password = await credentials_of(request)
        async with one_at_a_time:
            session = await asyncio.to_thread(book.log_in, username, password)
            if session is None:
                await asyncio.sleep(_AFTER_A_MISTAKE)
        if session is None:
            raise HTTPException(
                status.HTTP_401_UNAUTHORIZED, "Incorrect username or password", {"WWW-Authenticate": "Bearer"}
            )
        return answer(_tokens(door, session))

    @router.post("/session/refresh", response_model=None)
    async def refresh(request: Request) -> Response:
        """Give new tokens for a refresh token."""
        payload = await payload_of(request, is_required=True)
        check_keys(payload, required=("refresh_token",))
        session = book.session_to_refresh(str(payload["refresh_token"]))
        if session is None:
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Session has expired. Please re-authenticate.")
        return answer(_tokens(door, session))

    @router.delete("/session/revoke/{session}", response_model=None)
    async def revoke_session(session: str, request: Request) -> Response:
        """End one of one's own sessions."""
        principal = door.admit(request)
        if not book.end_session(principal.name, session.replace("-", "")):
            raise HTTPException(
                status.HTTP_404_NOT_FOUND,
                f"Sessions {session[:100]} does not exist or requester has insufficient permissions",
            )
        return answer({"success": True, "msg": ""})

    @router.post("/logout", response_model=None)
    async def logout(request: Request) -> Response:
        """Have the browser forget the key."""
        door.admit(request)
        said = answer({})
        said.delete_cookie(KEY_COOKIE)
        said.delete_cookie(CSRF_COOKIE)
        return said

    return router


def _known(door: Door, uid: str) -> Principal:
    for name in (SINGLE_USER.name, *(user.name for user in door.book.users)):
        found = door.book.named(name)
        if found is not None and found.uuid.replace("-", "") == uid.replace("-", ""):
            return found
    raise HTTPException(status.HTTP_404_NOT_FOUND, f"Principal {uid} does not exist or insufficient permissions.")


def _tokens(door: Door, session: Session) -> dict[str, Any]:
    access, refresh = door.book.tokens(session)
    return {
        "access_token": access,
        "expires_in": ACCESS_TIME,
        "refresh_token": refresh,
        "refresh_token_expires_in": REFRESH_TIME,
        "token_type": "bearer",
    }


def _new_key(door: Door, owner: Principal, payload: dict[str, Any]) -> dict[str, Any]:
    check_keys(payload, required=("expires_in",), optional=("scopes", "note"))
    lifetime, scopes, note = payload["expires_in"], payload.get("scopes"), payload.get("note")
    if not (lifetime is None or (isinstance(lifetime, int) and not isinstance(lifetime, bool))):
        raise _wrong("expires_in", "seconds as a whole number, or null", lifetime)
    if not (scopes is None or (isinstance(scopes, list) and all(isinstance(each, str) for each in scopes))):
        raise _wrong("scopes", "a list of words", scopes)
    if not (note is None or isinstance(note, str)):
        raise _wrong("note", "text", note)
    try:
        key, secret = door.book.make_key(owner, scopes, lifetime, note)
    except BadArgumentError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(error)) from error
    return _key(door, key) | {"secret": secret}


def _wrong(name: str, wanted: str, given: Any) -> HTTPException:
    return HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"{name} must be {wanted}, it is {str(given)[:100]}")


def _principal(door: Door, principal: Principal) -> dict[str, Any]:
    used = [at for key in door.book.keys_of(principal.name) if (at := door.book.used(key)) is not None]
    return {
        "uuid": principal.uuid,
        "type": "user",
        "identities": [{"id": principal.name, "provider": principal.provider, "latest_login": None}],
        "api_keys": [_key(door, key) for key in door.book.keys_of(principal.name)],
        "sessions": [_session(each) for each in door.book.sessions_of(principal.name)],
        "latest_activity": _iso(max(used, default=None)),
        "roles": list(principal.roles),
        "scopes": sorted(principal.scopes),
        "api_key_scopes": None if principal.key is None else list(principal.key.scopes),
    }


def _session(session: Session) -> dict[str, Any]:
    return {"uuid": session.id, "expiration_time": _iso(session.expires), "revoked": False}


def _key(door: Door, key: ApiKey) -> dict[str, Any]:
    return {
        "first_eight": key.first_eight,
        "expiration_time": _iso(key.expires),
        "note": key.note,
        "scopes": list(key.scopes),
        "latest_activity": _iso(door.book.used(key)),
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None, microsecond=0).isoformat()
