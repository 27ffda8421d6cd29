"""Where a run's file goes: names that are safe, files that appear whole and are never overwritten."""

import contextlib
import glob
import json
import logging
import shutil
from pathlib import Path

import h5py

from bec_bluesky.documents import Document, LineFile
from bec_bluesky.errors import SettingsError
from writers._disk import check_space, publish
from writers._nexus_template import FileTemplate, file_word

__all__ = ["FileIndex", "Place", "published_from"]

_log = logging.getLogger(__name__)
_INDEX = ".runs.jsonl"


class Place:
    """The files of one run below a directory: the part that grows, and the name that it gets at the end."""

    def __init__(self, root: Path, template: FileTemplate, start: Document, *, min_free: int) -> None:
        self._min_free = min_free
        path = root / template.path(start)
        self._folder = path.parent
        self._stem = path.stem
        self._suffix = path.suffix
        self._run_uid = str(start["uid"])
        self._uid = file_word(start["uid"], default="run")
        self.part = self._folder / f".{self._stem}.{self._uid}.part"
        self.before = self.part.with_suffix(".before")
        """What an earlier attempt left, until the file is complete."""
        self.follow = self._folder / f"{self._stem}.{self._uid}.follow.h5"
        """Where a growing run can be read."""
        self.follow_folder = self._folder / f".{self._stem}.{self._uid}.follow"
        self.is_resumed = False
        """Whether an earlier attempt at the same run was cut short."""

    def prepare(self, root: Path) -> None:
        """Make the folder, and set aside what an earlier attempt at the same run left, until the file is complete."""
        if not self._folder.resolve().is_relative_to(root.resolve()):
            raise SettingsError(f"Run files go below {root}, but {self._folder} leads out of it: remove that link")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._set_aside()
            self.check_space(0)
            with self.part.open("xb"):
                pass
        except OSError as error:
            raise SettingsError(
                f"Run files cannot be written in {self._folder} ({error.strerror or error}): "
                "make it writable or choose another directory"
            ) from error

    def remove_follow(self) -> None:
        """Take away what let people read the growing run, also what a killed process left. Never raises."""
        with contextlib.suppress(OSError):
            self.follow.unlink(missing_ok=True)
        shutil.rmtree(self.follow_folder, ignore_errors=True)

    def _set_aside(self) -> None:
        """Keep the longest of what earlier attempts left: its documents might be nowhere else."""
        self.is_resumed = self.before.exists()
        with contextlib.suppress(FileNotFoundError):
            size = self.part.stat().st_size
            self.is_resumed = True
            if self.before.exists() and self.before.stat().st_size > size:
                self.part.unlink()
            else:
                self.part.replace(self.before)

    def check_space(self, needed: int) -> None:
        """Raise SettingsError unless, after so many bytes more, the disk still has what must stay free."""
        check_space(self._folder, needed, self._min_free)

    @property
    def folder(self) -> Path:
        """The folder of the file, from which relative links start."""
        return self._folder

    @property
    def name(self) -> str:
        """The name that the file gets if no other takes it meanwhile."""
        return next((path.name for path in self._candidates() if not path.exists()), f"{self._stem}{self._suffix}")

    def find(self) -> Path | None:
        """Give the run's own file, if it was published already."""
        for path in self._candidates()[:3]:
            if path.is_file() and _uid_in(path) == self._run_uid:
                return path
        return None

    def clear(self, path: Path) -> None:
        """Remove what a kill left beside the complete file: its hidden name, and what was set aside."""
        self.before.unlink(missing_ok=True)
        if self.part.exists() and self.part.samefile(path):
            self.part.unlink()

    def publish(self) -> Path:
        """Give the finished part its name, which no file has had; the content is on the disk before the name is."""
        for path in self._candidates():
            try:
                publish(self.part, path)
            except FileExistsError:
                continue
            self.before.unlink(missing_ok=True)
            return path
        raise FileExistsError(f"every name for {self.part} is taken in {self._folder}")

    def _candidates(self) -> list[Path]:
        return [self._folder / f"{name}{self._suffix}" for name in _names(self._stem, self._uid)]


def published_from(part: Path, run_uid: str) -> tuple[Path, bool] | None:
    """Give the file that a part became, and whether its documents were lost; a complete one rather than a lost one."""
    uid = file_word(run_uid, default="run")
    stem = part.stem.removeprefix(".").removesuffix(f".{uid}")
    names, lost = _names(stem, uid), None
    for path in part.parent.glob(f"{glob.escape(stem)}*"):
        found, is_lost = _identity(path) if path.stem in names else ("", False)
        if found == run_uid and not is_lost:
            return path, False
        lost = path if found == run_uid else lost
    return None if lost is None else (lost, True)


def _names(stem: str, uid: str) -> list[str]:
    """Give the names that a run's file may have, without suffix, the first ones first."""
    short = f"{stem}_{uid[:8].strip('-_')}"
    return [stem, short, f"{stem}_{uid}", *(f"{short}_{number}" for number in range(2, 100))]


def _uid_in(path: Path) -> str:
    """Read whose complete file it is; nothing if it is not ours."""
    uid, is_lost = _identity(path)
    return "" if is_lost else uid  # what was lost may come after all


def _identity(path: Path) -> tuple[str, bool]:
    """Read whose file it is, and whether documents of the run were lost; no uid if it is not ours."""
    try:
        with h5py.File(path, "r") as file:
            found = file.get("entry/entry_identifier")
            if not isinstance(found, h5py.Dataset) or "entry/documents/json" not in file:
                return "", False
            return str(found.asstr()[()]), "entry/run/documents_lost" in file
    except (OSError, TypeError):
        return "", False


class FileIndex:
    """Which runs have a complete file below a directory: one JSON line each, only ever appended."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lines = LineFile(root / _INDEX)
        self._paths: dict[str, Path] = {}

    def add(self, run_uid: str, path: Path) -> None:
        """Remember a file; one that could not be noted on the disk is known to this process only."""
        self._paths[run_uid] = path
        place = path.relative_to(self._root) if path.is_relative_to(self._root) else path  # moved elsewhere
        try:
            self._lines.append(json.dumps({"uid": run_uid, "path": str(place)}).encode())
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._lines.path, error, extra={"run": run_uid})

    def find(self, run_uid: str) -> Path | None:
        """Give the file of a run; None if there is none, or not any more."""
        for line in self._lines.new_lines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self._paths[str(entry["uid"])] = self._root / entry["path"]
        path = self._paths.get(run_uid)
        return path if path is not None and path.is_file() else None
