"""Errors that cross processes: told as `Failure`, raised again as the class they were if that is known here."""

import builtins
import functools
import importlib
import sys
import traceback

from bec_bluesky import errors
from bec_bluesky.messages.common import Failure

__all__ = ["raised", "tell"]

_TRUSTED = ("bec_bluesky.errors", "bluesky.", "ophyd.", "ophyd_async.", "event_model")
"""Modules whose exception classes are made again by name; anything else becomes RemoteError."""
_GROUP: type[BaseException] = BaseExceptionGroup
"""Cannot be made without its members, which do not cross."""


def tell(
    error: BaseException, *, device: str | None = None, where: str | None = None, in_call: bool = False
) -> Failure:
    """Describe an exception for another process."""
    cls = type(error)
    return Failure(
        kind=cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}",
        text=str(error),
        device=device,
        where=where,
        traceback="".join(traceback.format_exception(error)),
        code=getattr(error, "code", None) if isinstance(error, errors.RefusedError) else None,
        in_call=in_call,
        errno=error.errno if isinstance(error, OSError) else None,
    )


def raised(failure: Failure, *, may_import: bool = True) -> BaseException:
    """Make the exception again; its text names the device and the place where it happened.

    Without `may_import`, a class of a module that nobody imported yet becomes RemoteError: no code could catch it by
    its name, and importing ophyd for an error would take seconds.
    """
    cls = _known_class(failure.kind, may_import=may_import)
    place = " on ".join(part for part in (failure.device, failure.where) if part)
    is_refusal = cls is not None and issubclass(cls, errors.RefusedError)  # a sentence for people, complete as it is
    text = f"{failure.text} [{place}]" if place and not is_refusal and place not in failure.text else failure.text
    error: BaseException
    if cls is None:
        error = errors.RemoteError(f"{failure.kind.rpartition('.')[2]}: {text}", kind=failure.kind)
    else:
        cls = _saying_its_argument(cls)
        # several of them have constructors of their own; what is also an OSError can be made by that alone
        error = OSError.__new__(cls) if issubclass(cls, OSError) else cls.__new__(cls)
        error.args = (text,)
        if isinstance(error, OSError):
            error.errno = failure.errno
        if isinstance(error, errors.RefusedError) and failure.code:
            error.code = failure.code
    if failure.traceback:
        error.add_note(f"on the other side:\n{failure.traceback}")
    return error


def _known_class(kind: str, *, may_import: bool) -> type[BaseException] | None:
    module_name, _, name = kind.rpartition(".")
    if not module_name:
        cls = getattr(builtins, name, None)
    elif module_name.startswith(_TRUSTED):
        module = sys.modules.get(module_name)
        if module is None and not may_import:
            return None
        if module is None:
            try:
                module = importlib.import_module(module_name)
            except ImportError:
                return None
        cls = getattr(module, name, None)
    else:
        return None
    if not isinstance(cls, type) or not issubclass(cls, Exception):
        return None
    return None if issubclass(cls, _GROUP) else cls


@functools.cache
def _saying_its_argument(cls: type[BaseException]) -> type[BaseException]:
    """Give the class, or one just like it if its text is made of more than the argument (KeyError, UnicodeError …)."""
    if cls.__str__ in (BaseException.__str__, OSError.__str__):
        return cls
    members = {"__str__": _argument, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), members)


def _argument(error: BaseException) -> str:
    return str(error.args[0])
