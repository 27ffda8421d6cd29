"""Arguments that crossed the wire become again what the method wants."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

__all__ = ["rebuilt"]


def rebuilt(method: Callable[..., Any], args: list[Any]) -> list[Any]:
    """Make a pydantic model of the first argument where the method's annotation names one (`TriggerInfo` …)."""
    if not args or not isinstance(args[0], Mapping):
        return args
    adapter = _adapter(getattr(method, "__func__", method))
    if adapter is None:
        return args
    try:
        return [adapter.validate_python(args[0]), *args[1:]]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{method.__qualname__}: {place} = {first['input']!r}: {first['msg']}") from None


@functools.lru_cache(maxsize=1024)
def _adapter(function: Callable[..., Any]) -> "TypeAdapter[Any] | None":
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    if not parameters:
        return None
    try:
        hint = typing.get_type_hints(function).get(parameters[0])
    except (NameError, TypeError):
        return None
    if hint is None or not _names_a_model(hint):
        return None
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:  # anything a signal may hold: the signal itself makes its table of a mapping
        return None


def _names_a_model(hint: Any) -> bool:
    if inspect.isclass(hint):
        return issubclass(hint, BaseModel)
    if isinstance(hint, typing.TypeVar):
        return _names_a_model(hint.__bound__)
    return any(_names_a_model(each) for each in typing.get_args(hint))
