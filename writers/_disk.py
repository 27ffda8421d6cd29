"""What a disk has left, and what is left to do when it has nothing."""

import ctypes
import shutil
import time
from pathlib import Path

from bec_bluesky.errors import SettingsError

__all__ = ["MIN_FREE", "Room", "check_space", "free_bytes", "keep_for_ever"]

_LOOK_EVERY = 10.0
MIN_FREE = 64 * 2**20
"""Bytes that stay free on a disk unless the profile says otherwise."""


def free_bytes(folder: Path) -> int:
    """Give what the disk of a folder has left, also of one that is yet to be made."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def check_space(folder: Path, needed: int, min_free: int) -> None:
    """Raise SettingsError unless, after so many bytes more, the disk still has what must stay free."""
    free = free_bytes(folder)
    if free < needed + min_free:
        raise SettingsError(
            f"Run files cannot be written in {folder}: the disk has {free / 2**20:.0f} MB left, and "
            f"{(needed + min_free) / 2**20:.0f} MB are to stay free: make room, or choose another directory"
        )


class Room:
    """Watches what a disk has left, and says once that it is short, until there is room again."""

    def __init__(self, folder: Path, least: int) -> None:
        self._folder = folder
        self._least = least
        self._next_look = 0.0
        self._is_short = False

    def shortage(self) -> str | None:
        """Say that less than the least is left, the first time that it is seen; looked for every ten seconds."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + _LOOK_EVERY
        free = free_bytes(self._folder)
        if self._is_short:
            self._is_short = free < 1.1 * self._least
            return None
        self._is_short = free < self._least
        if not self._is_short:
            return None
        return (
            f"the disk of {self._folder} has only {free / 2**30:.1f} GB left, less than {self._least / 2**30:.1f} GB: "
            "make room, or the next runs cannot be written"
        )


def keep_for_ever(owner: object) -> None:
    """Never free what holds an HDF5 file that could not be written.

    HDF5 would flush again, fail again, and end in a segmentation fault. Its other files go on. Seen with HDF5 2.0: also
    at the interpreter's end, so that no list of ours would do.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
