"""For tests, ours and those of plug-in authors: a private Redis, settings in a temporary directory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bec_bluesky import embedded
from bec_bluesky.settings import Settings, load

__all__ = ["private_system", "settings_in"]


def settings_in(directory: Path, **given: object) -> Settings:
    """Make settings whose data live in `directory`, and whose API takes any free port."""
    return load(**({"data_dir": directory, "api_port": 0, "beamline": "test"} | given))


@contextlib.contextmanager
def private_system(directory: Path, **given: object) -> Iterator[Settings]:
    """Run a private Redis in `directory` while the block lasts; give the settings of its system."""
    settings = settings_in(directory, **given)
    server = embedded.find_or_start(settings, with_parent=True)
    try:
        yield settings.with_(redis_url=server.url)
    finally:
        embedded.stop(settings)
