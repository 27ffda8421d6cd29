"""Who am I, what may I, and API keys with a part of that."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response, status

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.queueserver.web._bodies import answer, check_keys, payload_of
from bec_bluesky.queueserver.web._door import CSRF_COOKIE, KEY_COOKIE, Door
from bec_bluesky.queueserver.web._principals import SINGLE_USER, ApiKey, Principal

__all__ = ["auth_router"]


def auth_router(door: Door) -> APIRouter:
    """Make the routes below `/auth`.

    There is one principal, whoever has the key of the system; without providers there are neither tokens nor sessions.
    """
    router = APIRouter(prefix="/auth", tags=["authentication"])
    keys = door.keys

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
        if not keys.revoke(principal, first_eight):
            raise HTTPException(status.HTTP_404_NOT_FOUND, "The currently-authenticated user has no such API key.")
        return answer({"success": True, "msg": ""})

    @router.get("/principal", response_model=None)
    async def principals(request: Request) -> Response:
        """List everybody."""
        door.admit(request, "admin:read:principals")
        return answer([_principal(door, SINGLE_USER)])

    @router.get("/principal/{uid}", response_model=None)
    async def principal(uid: str, request: Request) -> Response:
        """Tell of one."""
        door.admit(request, "admin:read:principals")
        return answer(_principal(door, _known(uid)))

    @router.post("/principal/{uid}/apikey", response_model=None)
    async def new_key_for(uid: str, request: Request) -> Response:
        """Make a key for somebody."""
        door.admit(request, "admin:apikeys")
        return answer(_new_key(door, _known(uid), await payload_of(request, is_required=True)))

    @router.post("/provider/{name}/token", response_model=None)
    async def token(name: str) -> Response:
        """Log in; there is nobody who could be asked for it."""
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"No authentication provider {name!r}: there are none here, use an API key"
        )

    @router.post("/session/refresh", response_model=None)
    async def refresh(request: Request) -> Response:
        """Go on with a session; there are none."""
        check_keys(await payload_of(request, is_required=True), required=("refresh_token",))
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Session has expired. Please re-authenticate.")

    @router.delete("/session/revoke/{session}", response_model=None)
    async def revoke_session(session: str, request: Request) -> Response:
        """End a session; there are none."""
        door.admit(request)
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"No session {session}")

    @router.post("/logout", response_model=None)
    async def logout(request: Request) -> Response:
        """Have the browser forget the key."""
        door.admit(request)
        said = answer({})
        said.delete_cookie(KEY_COOKIE)
        said.delete_cookie(CSRF_COOKIE)
        return said

    return router


def _known(uid: str) -> Principal:
    if uid.replace("-", "") != SINGLE_USER.uuid.replace("-", ""):
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"Principal {uid} does not exist or insufficient permissions.")
    return SINGLE_USER


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
        key, secret = door.keys.make(owner, scopes, lifetime, note)
    except BadArgumentError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(error)) from error
    return _key(door, key) | {"secret": secret}


def _wrong(name: str, wanted: str, given: Any) -> HTTPException:
    return HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"{name} must be {wanted}, it is {str(given)[:100]}")


def _principal(door: Door, principal: Principal) -> dict[str, Any]:
    used = [at for key in door.keys.of(principal) if (at := door.keys.used(key)) is not None]
    return {
        "uuid": principal.uuid,
        "type": "user",
        "identities": [{"id": principal.name, "provider": principal.provider, "latest_login": None}],
        "api_keys": [_key(door, key) for key in door.keys.of(principal)],
        "sessions": [],
        "latest_activity": _iso(max(used, default=None)),
        "roles": list(principal.roles),
        "scopes": sorted(principal.scopes),
        "api_key_scopes": None if principal.key is None else list(principal.key.scopes),
    }


def _key(door: Door, key: ApiKey) -> dict[str, Any]:
    return {
        "first_eight": key.first_eight,
        "expiration_time": _iso(key.expires),
        "note": key.note,
        "scopes": list(key.scopes),
        "latest_activity": _iso(door.keys.used(key)),
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None, microsecond=0).isoformat()
