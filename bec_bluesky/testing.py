"""For tests, ours and those of plug-in authors: a private Redis, settings in a temporary directory, a Tiled server."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from bec_bluesky import embedded
from bec_bluesky.settings import Settings, load

__all__ = ["private_system", "running_api", "settings_in"]


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


@contextlib.contextmanager
def running_api(settings: Settings, *, timeout: float = 60.0) -> Iterator[str]:
    """Run the HTTP API with its Tiled server as a process while the block lasts; give its URL.

    Its Redis must be running. Tiled's profile goes to `data_dir/tiled-profiles`, not to the user's own. Raises
    TimeoutError or ChildProcessError if the server does not come up.
    """
    profiles = {"TILED_PROFILES": str(settings.data_dir / "tiled-profiles")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bec_bluesky.api"], env=os.environ | settings.environment() | profiles
    )
    try:
        deadline = time.monotonic() + timeout
        while (url := _published_url(settings, process.pid)) is None:
            if process.poll() is not None:
                raise ChildProcessError(f"the API ended with code {process.returncode}: see {settings.log_dir}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the API did not come up within {timeout:g} s: see {settings.log_dir}")
            time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _published_url(settings: Settings, pid: int) -> str | None:
    try:
        published = json.loads((settings.data_dir / "api.json").read_text())
        if published["pid"] != pid:
            return None
        with urlopen(f"{published['url']}/healthz", timeout=1.0):
            return str(published["url"])
    except (OSError, ValueError, KeyError):
        return None
