"""Whether the metadata of an item fit the schema in `profile.toml`."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.queue import AddItem, PlanInfo

__all__ = ["MetadataRules"]

_NO_RUNS = "bluesky.plan_stubs"
"""Module of `mv`, `mvr` and `sleep`, which open no run."""


class MetadataRules:
    """A JSON schema of start documents, as far as people give them."""

    def __init__(self, schema: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """`given` goes into every start document anyway."""
        self._validator: Any = None
        self._given = dict(given)
        if schema:
            from jsonschema import validators  # a tenth of a second; most instruments have no schema

            self._validator = validators.validator_for(schema)(schema)

    def check(self, asked: AddItem, plan: PlanInfo) -> None:
        """Refuse metadata that do not fit (`bad_metadata`), in a sentence with what the schema says of the entry."""
        if self._validator is None or plan.module == _NO_RUNS:
            return
        errors = sorted(self._validator.iter_errors(self._start_document(asked)), key=lambda error: list(error.path))
        if errors:
            raise RefusedError(f"{asked.plan}: metadata: {'; '.join(map(_written, errors))}", "bad_metadata")

    def _start_document(self, asked: AddItem) -> dict[str, Any]:
        """Give what is known of it: what the plan itself says of the run goes last, as in the RunEngine."""
        own = {"title": asked.title, "sample": asked.sample}
        of_plan = asked.kwargs.get("md")
        return (
            self._given
            | {key: value for key, value in own.items() if value}
            | asked.metadata
            | (of_plan if isinstance(of_plan, dict) else {})
        )


def _written(error: Any) -> str:
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        known = error.schema.get("properties", {})
        return ", ".join(_missing(key, known.get(key, {})) for key in missing if repr(key) in error.message)
    place = ".".join(map(str, error.absolute_path))
    text = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    return (f"{place}: " if place else "") + error.message + (f" ({text})" if text else "")


def _missing(key: str, schema: Any) -> str:
    text = schema.get("description", "") if isinstance(schema, Mapping) else ""
    return f"{key!r} is missing" + (f" ({text})" if text else "")
