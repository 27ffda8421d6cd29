"""From a Python annotation to what a parameter accepts (`bec_bluesky.scan_server._accepts`)."""

import collections.abc
import enum
import inspect
import numbers
import types
import typing
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import bluesky.protocols

__all__ = ["Means", "accepts_of", "as_written", "with_facts"]

_PLAIN: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    complex: "any",
    str: "text",
    dict: "mapping",
    type(None): "nothing",
    None: "nothing",
    collections.abc.Callable: "callable",
    collections.abc.Mapping: "mapping",
    numbers.Number: "number",
    numbers.Real: "number",
    numbers.Integral: "integer",
}
_ANY: dict[str, Any] = {"kind": "any"}
_LISTS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, list, tuple, set, frozenset)
_BOUNDS = {"ge": "min", "le": "max", "gt": "above", "lt": "below"}
"""Of `annotated_types` and pydantic's `Field`."""
_OF_NUMBERS = ("units", "min", "max", "above", "below", "step")
_OF_DEVICES = ("labels",)
_IMPLIED = {"NamedMovable": ["Movable"]}
_DEVICES = {"Device", "OphydObject", "Signal", "EpicsMotor", "StandardDetector", "StandardReadable"}
"""Names of base classes of devices: in the worker they are remote ones, so the class can't be asked for."""


def as_written(annotation: Any) -> str:
    """Write an annotation for people, short names only."""
    if annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, str):
        return annotation
    text = inspect.formatannotation(annotation)
    for prefix in ("collections.abc.", "bluesky.protocols.", "bluesky.utils.", "typing.", "numpy.typing."):
        text = text.replace(prefix, "")
    return text.replace("~", "")


def accepts_of(annotation: Any) -> dict[str, Any] | None:
    """Give the type as data; None where there is no annotation, `any` where it means nothing to us."""
    if annotation is inspect.Parameter.empty:
        return None
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotated(annotation)
    try:
        if annotation in _PLAIN:
            return {"kind": _PLAIN[annotation]}
    except TypeError:  # not hashable
        return dict(_ANY)
    if origin in (Union, types.UnionType):
        return _union(annotation)
    if origin is Literal:
        return {"kind": "choice", "values": list(get_args(annotation))}
    if origin is collections.abc.Callable or _is_callback(annotation):
        return {"kind": "callable"}
    if origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return {"kind": "mapping"}
    if origin in _LISTS or annotation in _LISTS:
        return _list(annotation)
    if origin is not None:
        return accepts_of(origin)
    return _named(annotation)


class Means:
    """Says in an `Annotated` what the whole type is as data."""

    def __init__(self, accepts: dict[str, Any]) -> None:
        self.accepts = accepts


def _annotated(annotation: Any) -> dict[str, Any] | None:
    """`Annotated[float, Unit("mm"), Ge(0), "a sentence", {"units": …}]`."""
    kind, *extras = get_args(annotation)
    found = dict(accepts_of(kind) or _ANY)
    for extra in extras:
        found = dict(extra.accepts) if isinstance(extra, Means) else with_facts(found, _facts(extra))
    return found


def _facts(extra: Any) -> dict[str, Any]:
    """Give what one entry of an `Annotated` says: a text, a dict, or an object of annotated_types or pydantic."""
    if isinstance(extra, str):
        return {"text": extra}
    if isinstance(extra, dict):
        return {key: value for key, value in extra.items() if key in (*_OF_NUMBERS, *_OF_DEVICES, "text")}
    facts: dict[str, Any] = {}
    for each in (extra, *getattr(extra, "metadata", ())):  # pydantic's Field keeps its bounds in a list
        bounds = {key: getattr(each, bound, None) for bound, key in _BOUNDS.items()}
        facts |= {key: value for key, value in bounds.items() if value is not None}
    text, unit = getattr(extra, "description", None), getattr(extra, "unit", None)
    return (
        facts | ({"text": text} if isinstance(text, str) else {}) | ({"units": str(unit)} if unit is not None else {})
    )


def with_facts(accepts: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Put facts where they belong: a text to the whole, bounds and units to its numbers, labels to its devices."""
    told = accepts | ({"text": facts["text"]} if "text" in facts else {})
    for kinds, keys in ((("number", "integer"), _OF_NUMBERS), (("device",), _OF_DEVICES)):
        these = {key: value for key, value in facts.items() if key in keys}
        if these:
            told = _within(told, kinds, these) if _has(told, kinds) else told | these
    return told


def _has(accepts: dict[str, Any], kinds: tuple[str, ...]) -> bool:
    return accepts["kind"] in kinds or any(_has(each, kinds) for each in _parts(accepts))


def _within(accepts: dict[str, Any], kinds: tuple[str, ...], facts: dict[str, Any]) -> dict[str, Any]:
    if accepts["kind"] in kinds:
        return accepts | facts
    parts = [_within(each, kinds, facts) for each in _parts(accepts)]
    return accepts | {"of": parts[0] if accepts["kind"] == "list" else parts} if parts else accepts


def _parts(accepts: dict[str, Any]) -> list[dict[str, Any]]:
    match accepts["kind"]:
        case "list":
            return [accepts["of"]]
        case "any_of":
            return list(accepts["of"])
        case _:
            return []


def _union(annotation: Any) -> dict[str, Any]:
    kinds = [accepts_of(each) or _ANY for each in get_args(annotation)]
    if all(kind["kind"] in ("callable", "nothing") for kind in kinds):
        kinds = [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]
    flat: list[dict[str, Any]] = []
    for kind in kinds:
        flat += kind["of"] if kind["kind"] == "any_of" else [kind]
    return flat[0] if len(flat) == 1 else {"kind": "any_of", "of": flat}


def _list(annotation: Any) -> dict[str, Any]:
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        kinds = [accepts_of(each) or _ANY for each in arguments]
        of = kinds[0] if len(kinds) == 1 else {"kind": "any_of", "of": kinds} if kinds else _ANY
        return {"kind": "list", "of": of}
    return {"kind": "list", "of": (accepts_of(arguments[0]) or _ANY) if arguments else dict(_ANY)}


def _is_callback(annotation: Any) -> bool:
    """Protocols with a `__call__` (bluesky's PerStep and PerShot) are functions."""
    return (
        inspect.isclass(annotation)
        and getattr(annotation, "_is_protocol", False)
        and "__call__" in vars(annotation)
        and annotation.__module__.startswith("bluesky")
    )


def _named(annotation: Any) -> dict[str, Any]:
    if isinstance(annotation, TypeVar):
        return dict(_ANY) if annotation.__bound__ is None else (accepts_of(annotation.__bound__) or dict(_ANY))
    if isinstance(annotation, typing.NewType):
        return accepts_of(annotation.__supertype__) or dict(_ANY)
    if not inspect.isclass(annotation):
        return dict(_ANY)
    if issubclass(annotation, enum.Enum):
        return {"kind": "choice", "values": [member.value for member in annotation]}
    if annotation.__module__ == bluesky.protocols.__name__:
        return {"kind": "device", "protocols": _IMPLIED.get(annotation.__name__, [annotation.__name__])}
    if _DEVICES & {base.__name__ for base in annotation.__mro__}:
        return {"kind": "device", "protocols": []}
    for base, kind in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "text"), (dict, "mapping")):
        if issubclass(annotation, base):
            return {"kind": kind}
    return dict(_ANY)
