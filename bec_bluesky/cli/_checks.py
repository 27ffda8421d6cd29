"""What must be right before anything is started."""

import errno
import os
import socket
from collections.abc import Iterator

from bec_bluesky import plugins
from bec_bluesky.errors import SettingsError
from bec_bluesky.plugins import Profile
from bec_bluesky.settings import Settings

__all__ = ["check"]

_LOOPBACK = "127.0.0.1"
_SERVER_PORTS = ("EPICS_CA_SERVER_PORT", "EPICS_CAS_SERVER_PORT")


def check(settings: Settings) -> Profile:
    """Check profile, directories and ports; raises SettingsError in one sentence.

    The device file is the device server's to check, which takes seconds to import.
    """
    profile = plugins.read_profile(settings)
    for directory in (settings.data_dir, settings.log_dir, settings.files_dir):
        _check_directory(directory)
    if settings.api_port:
        _check_port(settings.api_port, "the HTTP API", "give another one by BEC_BLUESKY_API_PORT (0: any free one)")
    for variable, port, whose in _companion_ports(profile):
        _check_port(port, whose, f"stop what has it, or change {variable} and the address list in {profile.path}")
    return profile


def _companion_ports(profile: Profile) -> Iterator[tuple[str, int, str]]:
    """Give the ports on which companions will serve Channel Access: (variable, port, whose)."""
    for name, command in profile.companions.items():
        words = [f"{variable}={value}" for variable, value in profile.environment.items()]
        for word in dict.fromkeys([*words, *command]):
            variable, _, value = word.partition("=")
            if variable in _SERVER_PORTS and value.isdigit():
                yield variable, int(value), f"the profile's companion {name!r}"


def _check_directory(directory: os.PathLike[str]) -> None:
    try:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103  # any path-like
    except OSError as error:
        raise SettingsError(
            f"the directory {os.fspath(directory)} cannot be made ({error.strerror}): give another data directory "
            "by --data or BEC_BLUESKY_DATA_DIR"
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SettingsError(
            f"the directory {os.fspath(directory)} cannot be written: give another data directory by --data or "
            "BEC_BLUESKY_DATA_DIR"
        )


def _check_port(port: int, whose: str, remedy: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError(f"port {port}, on which {whose} should answer, is in use: {remedy}") from None
            raise SettingsError(f"port {port} cannot be had for {whose} ({error.strerror}): {remedy}") from None
