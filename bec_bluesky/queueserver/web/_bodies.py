"""What a request says: its body, its query, and an answer as JSON."""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import HTTPException, Request, Response, status

from bec_bluesky.queueserver._encoding import EncodedList

__all__ = ["LARGEST_BODY", "answer", "as_json", "check_keys", "credentials_of", "payload_of"]

LARGEST_BODY = 64 * 1024 * 1024
"""Bytes; a batch of ten thousand plans has five million."""
_DROPPED = ("api_key", "csrf")
_INTEGERS = ("pos", "pos_dest", "nlines", "size")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_decode = msgspec.json.Decoder().decode


async def payload_of(request: Request, *, is_required: bool = False) -> dict[str, Any]:
    """Give the parameters: those of the query, and over them those of the body, which may be empty.

    Raises HTTPException 422 for what is no JSON object, or for nothing at all where something is required, and 413 for
    a body that is too large.
    """
    given = _query_of(request) if request.method == "GET" else {}
    body = await _read(request)
    if not body.strip():
        if is_required and not given:
            raise _malformed("missing", "Field required")
        return given
    try:
        decoded = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _malformed("json_invalid", f"JSON decode error: {error}") from None
    if not isinstance(decoded, dict):
        raise _malformed("dict_type", "Input should be a valid dictionary")
    return given | decoded


async def credentials_of(request: Request) -> tuple[str, str]:
    """Give the username and the password of a form; raises HTTPException 422 if it has not both."""
    body = await _read(request)
    try:
        form = dict(parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=20, errors="strict"))
        return form["username"], form["password"]
    except (ValueError, KeyError):  # never with what was sent: it may be a password
        raise _malformed("missing", "a form (application/x-www-form-urlencoded) with username and password") from None


def check_keys(payload: dict[str, Any], *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
    """Raise HTTPException 400 unless there are all required parameters, and none that nobody knows."""
    missing = [name for name in required if name not in payload]
    unknown = [name for name in payload if name not in (*required, *optional)]
    text = f"Some required keys are missing in the request: {missing}. " if missing else ""
    text += f"Request contains keys the are not supported: {unknown}." if unknown else ""
    if text:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, text.strip())


def as_json(content: Any) -> bytes:
    """Write as JSON: what has no form there as text, what is no number as null."""
    return msgspec.json.encode(content, enc_hook=_plain)


def answer(content: Any, status_code: int = status.HTTP_200_OK) -> Response:
    """Give the content as JSON."""
    try:
        data = as_json(content)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        detail = {"detail": f"the answer cannot be written as JSON: {type(error).__name__}"}
        return Response(msgspec.json.encode(detail), status.HTTP_400_BAD_REQUEST, media_type="application/json")
    return Response(data, status_code, media_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, EncodedList):
        return value.raw
    return value.tolist() if hasattr(value, "tolist") else str(value)


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise HTTPException(
                status.HTTP_413_CONTENT_TOO_LARGE, f"the body has more than {LARGEST_BODY:,} bytes: send it in parts"
            )
    return bytes(body)


def _query_of(request: Request) -> dict[str, Any]:
    """A name that is given several times is a list; some are numbers or flags."""
    given: dict[str, Any] = {}
    for name in request.query_params:
        if name in _DROPPED:
            continue
        values = [_query_value(name, each) for each in request.query_params.getlist(name)]
        given[name] = values if len(values) > 1 else values[0]
    return given


def _query_value(name: str, text: str) -> Any:
    if name in _INTEGERS and text.removeprefix("-").isdecimal() and len(text) < 19:
        return int(text)
    return _FLAGS.get(text.lower(), text) if name in ("reduced", "reload") else text


def _malformed(kind: str, text: str) -> HTTPException:
    return HTTPException(
        status.HTTP_422_UNPROCESSABLE_CONTENT,
        [{"type": kind, "loc": ["body"], "msg": text, "input": None}],  # pyright: ignore[reportArgumentType]  # as FastAPI says it
    )
