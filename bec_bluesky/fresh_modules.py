"""Importing modules anew as they are on disk now, beside the old ones: what was made from those works on."""

import contextlib
import importlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bec_bluesky.errors import RefusedError

__all__ = ["FreshModules", "where_it_failed"]


class FreshModules:
    """A set of modules, imported before or not, that is imported anew together."""

    def __init__(self, names: Iterable[str]) -> None:
        self._old: dict[str, ModuleType | None] = {name: sys.modules.get(name) for name in names}
        self.culprit = ""
        """The module that could not be imported."""

    def load(self) -> None:
        """Import them; raises RefusedError that says why it cannot be, and then the old ones stand again."""
        _forget_compiled(module for module in self._old.values() if module is not None)
        for name in self._old:
            sys.modules.pop(name, None)
        for name in self._old:
            try:
                importlib.import_module(name)
            except BaseException as error:
                self.culprit = name
                self.restore()
                if not isinstance(error, Exception):
                    raise
                raise RefusedError(
                    f"{name} cannot be imported: {where_it_failed(error)}; nothing was changed", "import"
                ) from error

    def restore(self) -> None:
        """Put the old ones back."""
        for name, module in self._old.items():
            if module is None:
                sys.modules.pop(name, None)
                continue
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


def where_it_failed(error: BaseException) -> str:
    """Say an error with the last file and line that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):
        return f"{text.partition(' (')[0]} ({error.filename}, line {error.lineno})"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text
