"""What `up` starts: the services, the companions of the profile, and in which order."""

import os
import sys
from dataclasses import dataclass

from bec_bluesky import plugins
from bec_bluesky.device_server import read, server_names, service_name
from bec_bluesky.errors import SettingsError, choices
from bec_bluesky.plugins import Profile
from bec_bluesky.settings import Settings

__all__ = ["Part", "environment", "parts", "servers_here"]

_BACKGROUND = 10
"""Niceness of what no point waits for."""


@dataclass(frozen=True)
class Part:
    """One process of the system."""

    name: str
    command: tuple[str, ...]
    is_essential: bool
    """Whether a first point needs it: such parts start first."""
    stop_rank: int
    """The lower ones are stopped first; equal ones together."""
    has_heartbeat: bool = True
    niceness: int = 0
    """By how much it goes after others that want the processor, once it is ready for the first time."""
    grace: float = 30.0
    """Seconds to stop in."""


def parts(settings: Settings, profile: Profile) -> list[Part]:
    """Give the parts in the order in which they are started."""
    python = (sys.executable, "-m")
    words = {"python": sys.executable, "data_dir": str(settings.data_dir), "files_dir": str(settings.files_dir)}
    found = [
        Part(name, tuple(_filled(each, words) for each in command), True, 3, has_heartbeat=False, grace=5.0)
        for name, command in profile.companions.items()
    ]
    for server in servers_here(settings, profile):
        command = (*python, "bec_bluesky.device_server", "--server", server)
        found.append(Part(service_name(server), command, True, 1))
    found.append(Part("scan_server", (*python, "bec_bluesky.scan_server"), True, 0))
    for word in dict.fromkeys(hosted.process for hosted in profile.hosted):
        # points come from callbacks: whoever hosts one is awaited before the first run
        is_live = any(hosted.process == word and hosted.use.startswith("callbacks.") for hosted in profile.hosted)
        command = (*python, "bec_bluesky.documents", "--process", word)
        found.append(Part(f"documents-{word}", command, is_live, 1, niceness=0 if is_live else _BACKGROUND))
    found.append(Part("api", (*python, "bec_bluesky.api"), False, 2, niceness=_BACKGROUND))
    found.append(Part("queueserver", (*python, "bec_bluesky.queueserver"), False, 2, niceness=_BACKGROUND))
    found.append(Part("scihub", (*python, "bec_bluesky.scihub"), False, 2, niceness=_BACKGROUND))
    return sorted(found, key=lambda part: not part.is_essential)


def servers_here(settings: Settings, profile: Profile) -> list[str]:
    """Give the device servers that run on this machine; raises SettingsError for a wrong device file or profile."""
    known = server_names(read(plugins.collection(settings) / "devices.yaml"))
    if profile.device_servers is None:
        return known
    for name in profile.device_servers:
        if name not in known:
            raise SettingsError(
                f"{profile.path}: [device_servers] here: no device has `server: {name}`: {choices(name, known)}"
            )
    return list(profile.device_servers)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


def environment(settings: Settings, profile: Profile) -> dict[str, str]:
    """Give the environment of every process of the system: the person's, the profile's, the settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BEC_BLUESKY_")}
    return inherited | profile.environment | settings.environment() | {"PYTHONUNBUFFERED": "1"}
