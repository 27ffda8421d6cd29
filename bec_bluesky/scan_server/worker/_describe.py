"""A plan's description as data: from its signature, its annotations and its docstring."""

import enum
import inspect
import typing
from collections.abc import Callable
from typing import Any

import bluesky.protocols

from bec_bluesky.messages.queue import Parameter, PlanInfo
from bec_bluesky.scan_server.worker._annotations import accepts_of, as_written
from bec_bluesky.scan_server.worker._custom_annotations import CustomAnnotations
from bec_bluesky.scan_server.worker._default_data import as_data
from bec_bluesky.scan_server.worker._docstrings import parameter_texts, summary, whole
from bec_bluesky.scan_server.worker._groups import group_of

__all__ = ["describe", "enumerations"]

_CALLBACKS = frozenset({"per_step", "per_shot"})
_OR_NOTHING = {"kind": "nothing"}
_LONGEST_DEFAULT = 200


def describe(name: str, function: Callable[..., Any]) -> PlanInfo:
    """Describe a plan from its signature, its docstring, and what `parameter_annotation_decorator` says of it."""
    text = whole(function)
    texts = parameter_texts(text)
    hints = _hints(function)
    custom = CustomAnnotations(function)
    parameters = [
        custom.applied(_parameter(name, each, hints.get(each.name, each.annotation), texts.get(each.name, "")))
        for each in inspect.signature(function).parameters.values()
    ]
    return PlanInfo(
        name=name,
        module=inspect.unwrap(function).__module__,
        summary=custom.summary or summary(text),
        text=text or custom.summary,
        parameters=parameters,
        properties=custom.properties,
    )


def _parameter(plan: str, given: inspect.Parameter, annotation: Any, text: str) -> Parameter:
    accepts = accepts_of(annotation)
    if given.kind is inspect.Parameter.VAR_POSITIONAL:
        accepts = group_of(plan, text) or accepts
    elif given.name in _CALLBACKS:
        accepts = {"kind": "any_of", "of": [{"kind": "callable"}, _OR_NOTHING]}
    elif given.name == "md" and accepts is None:
        accepts = {"kind": "any_of", "of": [{"kind": "mapping"}, _OR_NOTHING]}
    if accepts is not None and given.default is None and accepts["kind"] not in ("any", "any_of", "nothing"):
        accepts = {"kind": "any_of", "of": [accepts, _OR_NOTHING]}  # `motor: Movable = None`
    has_default = given.default is not inspect.Parameter.empty
    return Parameter(
        name=given.name,
        kind=given.kind.name.lower(),  # pyright: ignore[reportArgumentType]  # the names are the literals
        annotation=as_written(annotation),
        accepts=accepts,
        has_default=has_default,
        default=_written(given.default) if has_default else "",
        default_value=as_data(given.default) if has_default else None,
        text=text or str((accepts or {}).get("text", "")),
    )


def _written(default: Any) -> str:
    """Write a default; of an enumeration its value, which is what can be given from outside."""
    return repr(default.value if isinstance(default, enum.Enum) else default)[:_LONGEST_DEFAULT]


def enumerations(function: Callable[..., Any]) -> dict[str, type[enum.Enum]]:
    """Give the parameters that are an enumeration, or one or nothing."""
    found: dict[str, type[enum.Enum]] = {}
    for name, annotation in _hints(function).items():
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        kinds = [each for each in (annotation, *typing.get_args(annotation)) if inspect.isclass(each)]
        enums = [each for each in kinds if issubclass(each, enum.Enum)]
        if enums and set(kinds) <= {enums[0], type(None)}:
            found[name] = enums[0]
    return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluate annotations; one that can't be is looked up among bluesky's protocols, else stays as it is written."""
    plain = inspect.unwrap(function)
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except Exception:  # noqa: BLE001  # names that only a type checker imports
        known = vars(typing) | vars(bluesky.protocols) | getattr(plain, "__globals__", {})
        return {name: _evaluated(each, known) for name, each in getattr(plain, "__annotations__", {}).items()}


def _evaluated(annotation: Any, known: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, known)
    except Exception:  # noqa: BLE001  # a name that nobody knows
        return annotation
