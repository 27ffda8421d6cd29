"""Plans, described as data."""

from typing import Any, Literal

from bec_bluesky.messages.common import Message

__all__ = ["Parameter", "PlanInfo"]


class Parameter(Message, frozen=True, kw_only=True, tag="parameter"):
    """One parameter of a plan, as data."""

    name: str
    kind: Literal["positional_only", "positional_or_keyword", "var_positional", "keyword_only", "var_keyword"]
    annotation: str = ""
    """As written, for people."""
    accepts: dict[str, Any] | None = None
    """What a value must be, as data: see `scan_server`'s plan description; none: anything."""
    has_default: bool = False
    default: str = ""
    """repr of the default."""
    default_value: Any = None
    """The default as data; None also if it has no form as data: then `default` says what it is."""
    text: str = ""


class PlanInfo(Message, frozen=True, kw_only=True, tag="plan_info"):
    """A plan that may be asked for, described without importing it."""

    name: str
    module: str
    summary: str = ""
    text: str = ""
    parameters: list[Parameter] = []
    properties: dict[str, Any] = {}
    """What `parameter_annotation_decorator` of bluesky-queueserver says of the parameters, and other plain data."""
