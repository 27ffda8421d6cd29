"""Make a device from its entry in the device file: arguments bound, coerced and filled in before anything is built."""

import builtins
import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from bec_bluesky import plugins
from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.errors import DeviceFailed, SettingsError, choices

__all__ = ["check", "construct"]

Built = Mapping[str, Any]
_PLAIN = (bool, int, float, str, Path)


def check(name: str, spec: DeviceSpec) -> None:
    """Bind the arguments to the signature without building anything; raises SettingsError naming device and remedy."""
    try:
        _bind(name, spec, _load(name, spec.class_), {}, dry=True)
    except SettingsError as error:
        raise SettingsError(f"{spec.origin}{error}") from error


def construct(name: str, spec: DeviceSpec, built: Built, words: Mapping[str, str]) -> Any:
    """Build the device (an awaitable of it where the factory is a coroutine function).

    `built` has the devices it refers to; `{word}` in texts is replaced from `words`. Raises SettingsError or what the
    class raises.
    """
    made = _load(name, spec.class_)
    args, kwargs = _bind(name, spec, made, built, words=words)
    return made(*args, **kwargs)


class _Later:
    """Stands for a device that is not built yet."""


_LATER = _Later()


def _load(name: str, target: str, what: str = "class") -> Any:
    try:
        return plugins.load_object(target)
    except ImportError as error:
        raise SettingsError(f"device {name}: {what} {error}") from error


def _bind(
    name: str, spec: DeviceSpec, made: Any, built: Built, *, words: Mapping[str, str] | None = None, dry: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    fill = _Filling(name, built, words or {}, dry=dry)
    args = [fill(value) for value in spec.args]
    kwargs = {key: fill(value) for key, value in spec.kwargs.items()}
    signature = _signature(f"device {name}: {spec.class_}", made)
    takes_name = "name" in signature.parameters or _takes_any(signature)
    if "name" not in kwargs and takes_name and not _binds_name(signature, args):
        kwargs["name"] = name
    return _coerced_all(f"device {name}: {spec.class_}", made, args, kwargs)


def _coerced_all(where: str, made: Any, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Bind to the signature and make each argument what its annotation says; raises SettingsError."""
    signature = _signature(where, made)
    for key in kwargs:
        if key not in signature.parameters and not _takes_any(signature):
            known = [each for each in signature.parameters if each != "name"]
            raise SettingsError(f"{where} takes no argument {key!r}: {choices(key, known)}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SettingsError(f"{where}{signature}: {error}") from None
    hints = _hints(made)
    for key, value in bound.arguments.items():
        kind = signature.parameters[key].kind
        if key in hints and kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            bound.arguments[key] = _coerced(f"{where}: {key} = {value!r}", value, hints[key])
    return list(bound.args), dict(bound.kwargs)


def _signature(where: str, made: Any) -> inspect.Signature:
    if not callable(made):
        raise SettingsError(f"{where} is a {type(made).__name__}: `class` names a class or a function")
    try:
        return inspect.signature(made)
    except ValueError:  # some of those written in C do not tell
        return inspect.signature(lambda *args, **kwargs: None)


def _takes_any(signature: inspect.Signature) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())


def _binds_name(signature: inspect.Signature, args: list[Any]) -> bool:
    """Tell whether the positional arguments give the name already."""
    try:
        return "name" in signature.bind_partial(*args).arguments
    except TypeError:
        return True  # there are too many: so says the error that comes with all of them


def _hints(made: Any) -> dict[str, Any]:
    target = made.__init__ if inspect.isclass(made) else made
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return {}  # annotations that cannot be resolved bind nobody


def _coerced(what: str, value: Any, hint: Any) -> Any:
    """Make plain values what the annotation says (`2` → `2.0`, text → Path or Enum); leave others alone."""
    if not isinstance(value, (*_PLAIN, list, dict, type(None))) or _holds_objects(value):
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError):
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{what}: {first['msg']}") from None
    except Exception:  # noqa: BLE001  # a stranger's validator: the class itself shall judge
        return value


def _holds_objects(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_objects(each) for each in value)
    if isinstance(value, dict):
        return any(_holds_objects(each) for each in value.values())
    return not isinstance(value, (*_PLAIN, type(None)))


class _Filling:
    """Replaces `$ref`, `$obj`, `$type` and `{words}` in arguments."""

    def __init__(self, name: str, built: Built, words: Mapping[str, str], *, dry: bool) -> None:
        self._name = name
        self._built = built
        self._words = words
        self._dry = dry

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str):
            for word, text in self._words.items():
                value = value.replace(f"{{{word}}}", text)
            return value
        if isinstance(value, list):
            return [self(each) for each in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"$ref"}:
            return self._device(str(value["$ref"]))
        if set(value) == {"$type"}:
            return self._type(str(value["$type"]))
        if "$obj" in value:
            return self._object(value)
        return {key: self(each) for key, each in value.items()}

    def _device(self, path: str) -> Any:
        first, *rest = path.split(".")
        if self._dry:
            return _LATER
        if first not in self._built:
            raise DeviceFailed(f"it needs {first!r}, which is disabled or failed")
        found = self._built[first]
        for part in rest:
            try:
                found = found[int(part)] if part.isdecimal() else getattr(found, part)
            except (AttributeError, LookupError, TypeError):
                near = choices(part, [each for each in dir(found) if not each.startswith("_")])
                raise DeviceFailed(f"$ref {path}: {first!r} has no part {part!r}: {near}") from None
        return found

    def _type(self, name: str) -> Any:
        found = getattr(builtins, name, None) if ":" not in name else _load(self._name, name, "$type")
        if not isinstance(found, type):
            raise SettingsError(
                f"device {self._name}: $type {name!r} is no type: give a builtin's name or 'module:Type'"
            )
        return found

    def _object(self, value: dict[str, Any]) -> Any:
        target = str(value["$obj"])
        made = _load(self._name, target, "$obj")
        args = [self(each) for each in value.get("$args", [])]
        kwargs = {key: self(each) for key, each in value.items() if not key.startswith("$")}
        args, kwargs = _coerced_all(f"device {self._name}: $obj {target}", made, args, kwargs)
        return _LATER if self._dry else made(*args, **kwargs)
