"""Where file-writing detectors put their files."""

import itertools
from datetime import datetime
from pathlib import Path

from ophyd_async.core import PathInfo, PathProvider

__all__ = ["DatedPaths"]


class DatedPaths(PathProvider):
    """`<directory>/2026-03-31/<detector>_142501_001`: a directory a day, a new name at each call."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)

    def __call__(self, datakey_name: str | None = None) -> PathInfo:
        """Give a path nobody has; its directory is made, since not every detector makes it."""
        now = datetime.now()
        directory = self._directory.absolute() / f"{now:%Y-%m-%d}"
        directory.mkdir(parents=True, exist_ok=True)
        name = datakey_name or "detector"
        return PathInfo(directory_path=directory, filename=f"{name}_{now:%H%M%S}_{next(self._numbers):03d}")
