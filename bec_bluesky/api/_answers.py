"""Answers made of messages, and how OpenAPI tells of them."""

from typing import Any

import msgspec
from fastapi import Response, status

from bec_bluesky.api._json_values import json_value
from bec_bluesky.api._message_schema import schema_of
from bec_bluesky.api._problems import Problem, ProblemError
from bec_bluesky.errors import BadArgumentError

__all__ = ["answer", "told"]


def answer(content: Any) -> Response:
    """Give messages as JSON; what JSON cannot say is 422."""
    try:
        return Response(msgspec.json.encode(json_value(content)), media_type="application/json")
    except BadArgumentError as error:
        problem = Problem(detail=str(error), code=error.code)
        raise ProblemError(status.HTTP_422_UNPROCESSABLE_CONTENT, problem) from error


def told(kind: Any) -> dict[int | str, dict[str, Any]]:
    """Describe the answer of a route: a message, or a list of them."""
    is_list = not isinstance(kind, type)
    schema = schema_of(kind.__args__[0] if is_list else kind)
    content = {"application/json": {"schema": {"type": "array", "items": schema} if is_list else schema}}
    return {200: {"description": "done", "content": content}}
