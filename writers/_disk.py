"""Complete files under their names; what a disk has left, and what is left to do when it has nothing."""

import ctypes
import os
import shutil
import time
from pathlib import Path

from bec_bluesky.errors import SettingsError

__all__ = ["MIN_FREE", "Room", "check_space", "free_bytes", "keep_for_ever", "publish", "rename_new", "sync"]

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


def publish(part: Path, target: Path) -> None:
    """Give a finished file its name, which no file has yet; content and name are on the disk then.

    Raises FileExistsError if the name is taken.
    """
    sync(part)
    rename_new(part, target)
    sync(target.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename, but never over a file."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        source.replace(target)
        return
    source.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
