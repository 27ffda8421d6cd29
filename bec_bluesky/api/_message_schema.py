"""Messages as JSON schemas, for the description of the HTTP API."""

from collections.abc import Collection
from typing import Any

import msgspec

__all__ = ["parameters_of", "schema_of"]

_TAG = "type"
"""Tells on the wire which message it is; over HTTP the path does."""


def schema_of(message: type[msgspec.Struct], without: Collection[str] = ()) -> dict[str, Any]:
    """Give the schema, with what it refers to written out, and some of its fields left out."""
    (schema,), components = msgspec.json.schema_components((message,))
    written = _written_out(schema, components, ())
    return {
        **written,
        "properties": {name: each for name, each in written["properties"].items() if name not in without},
        "required": [name for name in written.get("required", []) if name not in without],
    }


def parameters_of(
    message: type[msgspec.Struct], in_path: Collection[str], *, only_path: bool = False
) -> list[dict[str, Any]]:
    """Give the fields as parameters of the path and the query."""
    schema = schema_of(message)
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path or name in schema["required"],
            "schema": each,
        }
        for name, each in schema["properties"].items()
        if name in in_path or not only_path
    ]


def _written_out(schema: Any, components: dict[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_written_out(each, components, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if reference is not None:
        name = reference.rpartition("/")[2]
        if name in within:
            return {"type": "object", "title": name}
        return _written_out(components[name], components, (*within, name))
    known = {key: _written_out(each, components, within) for key, each in schema.items()}
    properties = known.get("properties")
    if isinstance(properties, dict) and "enum" in properties.get(_TAG, {}):
        known["properties"] = {key: each for key, each in properties.items() if key != _TAG}
        known["required"] = [key for key in known.get("required", []) if key != _TAG]
    return known
