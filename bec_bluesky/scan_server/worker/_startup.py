"""The start-up files of the profile: executed one after the other in one namespace, as IPython does."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bec_bluesky.errors import RefusedError
from bec_bluesky.fresh_modules import where_it_failed
from bec_bluesky.log import logger
from bec_bluesky.scan_server.worker._scripts import restore

__all__ = ["StartupFiles"]

_log = logger(__name__)


class StartupFiles:
    """Files `NN-*.py` of a directory, and the namespace that they share."""

    def __init__(self, directory: Path, namespace: dict[str, Any]) -> None:
        self._directory = directory
        self.namespace = namespace
        self._executed: dict[str, str] = {}
        """Texts by file name, as they were executed last."""
        namespace["__name__"] = "startup"

    @property
    def names(self) -> list[str]:
        """Names of the files there are."""
        return sorted(path.name for path in self._directory.glob("*.py"))

    @property
    def changed(self) -> list[str]:
        """Names of the files that are not as they were when they were executed."""
        return [name for name in self.names if self._executed.get(name) != self._text(name)]

    def find(self, name: str) -> str | None:
        """Give the file that is meant by `10-sim.py`, `10-sim` or `startup/10-sim.py`; None if there is none."""
        wanted = name.rpartition("/")[2].removesuffix(".py") + ".py"
        return wanted if wanted in self.names else None

    def execute_all(self) -> Iterator[str]:
        """Execute all; gives a problem, in one sentence, for each that fails."""
        for name in self.names:
            try:
                self.execute(name)
            except RefusedError as error:
                yield str(error)

    def execute(self, name: str) -> None:
        """Execute a file, anew if it was before; raises RefusedError that says why it can't be.

        The namespace is then as it was before: what a file defines half is not kept, what it did is not undone. What
        it defined before, and does not any more, is taken out.
        """
        path, namespace = self._directory / name, self.namespace
        before = dict(namespace)
        for each in [key for key, value in namespace.items() if _file_of(value) == str(path)]:
            del namespace[each]
        namespace["__file__"] = str(path)
        try:
            text = path.read_text(encoding="utf-8")
            exec(compile(text, str(path), "exec"), namespace)
        except Exception as error:  # here a process meets a plug-in
            _log.warning("%s failed", path, exc_info=True)
            if name in self._executed:  # the first time what it defined until then is better than nothing
                restore(namespace, before)
            raise RefusedError(f"{path} failed: {where_it_failed(error)}", "import") from error
        self._executed[name] = text

    def _text(self, name: str) -> str | None:
        try:
            return (self._directory / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None


def _file_of(value: Any) -> str | None:
    """Give the file in which a function stands; None for other things."""
    plain = inspect.unwrap(value) if inspect.isfunction(value) else None
    return plain.__code__.co_filename if inspect.isfunction(plain) else None
