"""What a disk has left, and what is left to do when it has nothing."""

import ctypes
import shutil
from pathlib import Path

from bec_bluesky.errors import SettingsError

__all__ = ["MIN_FREE", "check_space", "free_bytes", "keep_for_ever"]

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
            f"{min_free / 2**20:.0f} MB are to stay free: make room, or choose another directory"
        )


def keep_for_ever(owner: object) -> None:
    """Never free what holds an HDF5 file that could not be written.

    HDF5 would flush again, fail again, and end in a segmentation fault. Its other files go on. Seen with HDF5 2.0: also
    at the interpreter's end, so that no list of ours would do.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
