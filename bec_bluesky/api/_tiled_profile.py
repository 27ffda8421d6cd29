"""Tiled profiles, so that `databroker.catalog["bec-bluesky-…"]` and `tiled.client.from_profile(…)` find the runs."""

import json
import os
from pathlib import Path
from typing import Any

from bec_bluesky.documents import catalog_configuration
from bec_bluesky.log import logger
from bec_bluesky.private_file import write_private
from bec_bluesky.settings import Settings

__all__ = ["profile_name", "write_offline_profile", "write_profile"]

_log = logger(__name__)


def profile_name(settings: Settings) -> str:
    """Give the name of the beamline's profile."""
    return f"bec-bluesky-{settings.beamline}"


def write_profile(settings: Settings, uri: str, api_key: str) -> Path | None:
    """Let the profile point to the running server; None if the user's configuration cannot be written."""
    # Tiled drops an Authorization header that a profile gives; the key is taken out of the address at once
    return _write(settings, {"uri": f"{uri}?api_key={api_key}" if api_key else uri})


def write_offline_profile(settings: Settings, api_key: str) -> Path | None:
    """Let the profile open the catalogue's files, read-only and without a server.

    A profile that another system of this beamline's name has written since is left alone.
    """
    path = _path(settings)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    if text and api_key not in text:
        return None
    return _write(settings, {"direct": catalog_configuration(settings, api_key, read_only=True)})


def _path(settings: Settings) -> Path:
    """Give the file in the directory where Tiled looks last, which wins."""
    given = os.environ.get("TILED_PROFILES")
    if given:
        directory = Path(given)
    else:
        import platformdirs

        directory = Path(platformdirs.user_config_dir("tiled"), "profiles")
    return directory / f"{profile_name(settings)}.yml"


def _write(settings: Settings, content: dict[str, Any]) -> Path | None:
    path = _path(settings)
    text = json.dumps({profile_name(settings): content}, indent=1)  # JSON is YAML
    try:
        write_private(path, f"# written by bec-bluesky for {settings.data_dir}; do not edit\n{text}\n")
    except OSError as error:
        _log.warning("no Tiled profile: %s cannot be written (%s)", path, error.strerror)
        return None
    return path
