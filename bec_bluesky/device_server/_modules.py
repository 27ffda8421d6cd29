"""The modules from which devices are made, and importing them anew.

Only what people edit is imported anew: the instrument's profile and packages that are installed editable; never the
standard library, what is in site-packages, or this package.
"""

import contextlib
import importlib
import importlib.util
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.errors import RefusedError

__all__ = ["FreshModules", "modules_of"]

_MOST_DEPTH = 8
_INSTALLED = tuple(
    {str(Path(sysconfig.get_paths()[kind]).resolve()) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def modules_of(spec: DeviceSpec, device: Any) -> set[str]:
    """Give the editable modules of a device's class and its bases, of its parts' and of its arguments'."""
    classes = set(_classes(device)) if device is not None else set[type]()
    names = {target.partition(":")[0] for target in (spec.class_, *_targets([spec.args, spec.kwargs]))}
    names |= {base.__module__ for cls in classes for base in cls.__mro__}
    found = getattr(sys.modules.get(spec.class_.partition(":")[0]), spec.class_.partition(":")[2], None)
    if isinstance(found, type):  # a device that could not be built has no parts to ask
        names |= {base.__module__ for base in found.__mro__}
    return {name for name in names if _is_editable(name)}


def _classes(device: Any, depth: int = 0) -> Iterator[type]:
    yield type(device)
    if depth < _MOST_DEPTH:
        for _, child in _layers.children(device):
            yield from _classes(child, depth + 1)


def _targets(value: Any) -> Iterator[str]:
    """Give what `$obj` and `$type` name."""
    if isinstance(value, Mapping):
        for word in ("$obj", "$type"):
            if isinstance(value.get(word), str):
                yield value[word]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _targets(each)


def _is_editable(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name.partition(".")[0] in ("bec_bluesky", "__main__"):
        return False
    path = str(Path(file).resolve())
    return path.endswith(".py") and not path.startswith(_INSTALLED)


class FreshModules:
    """Modules imported anew, beside the old ones: what was made from those works on until it is disposed of."""

    def __init__(self, names: Iterable[str]) -> None:
        self._old: dict[str, ModuleType] = {name: sys.modules[name] for name in names}

    def load(self) -> None:
        """Import them; raises RefusedError that says why it cannot be, and then the old ones stand again."""
        _forget_compiled(self._old.values())
        for name in self._old:
            del sys.modules[name]
        for name in self._old:
            try:
                importlib.import_module(name)
            except BaseException as error:
                self.restore()
                if not isinstance(error, Exception):
                    raise
                raise RefusedError(
                    f"{name} cannot be imported: {_where(error)}; nothing was changed", "import"
                ) from error

    def restore(self) -> None:
        """Put the old ones back."""
        for name, module in self._old.items():
            sys.modules[name] = module
            parent, _, own = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], own, module)


def _forget_compiled(modules: Iterable[ModuleType]) -> None:
    """Remove compiled files: to Python one is current if the source has its length and was saved in the same second."""
    importlib.invalidate_caches()
    linecache.checkcache()
    for module in modules:
        with contextlib.suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(module.__file__))).unlink(missing_ok=True)


def _where(error: Exception) -> str:
    """Say an error with the last file and line that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return text
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"
