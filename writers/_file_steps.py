"""What happens to a complete file: copies, a move, commands; in order, in a thread of its own."""

import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import msgspec

from bec_bluesky.documents import Document
from bec_bluesky.errors import SettingsError
from writers._disk import rename_new, sync
from writers._nexus_checksum import checksum
from writers._nexus_template import FileTemplate, file_word
from writers._nexus_text import decode, encode

__all__ = ["FileOnItsWay", "FileSteps", "Step", "steps_of"]

_log = logging.getLogger(__name__)
_FOLDER = ".after"
_LOST = "_lost"
_LONGEST_PAUSE = 60.0
_CLOSING = 5.0
"""Seconds that a copy under way may take when the writer is closed; what is left is done after the next start."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to do with a complete file: exactly one of `copy_to`, `move_to` and `command` is given."""

    copy_to: str = ""
    """A folder, as `/archive/{proposal}/{year}`, with the fields of file names."""
    move_to: str = ""
    command: list[str] = []
    """A program and its arguments, without a shell; `{path}` in them is the file as it is then."""
    attempts: int = 5
    pause: float = 1.0
    """Seconds before the second attempt; doubled for each that follows, up to a minute."""
    timeout: float = 600.0
    """Seconds that a command may take."""

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        if sum(map(bool, (self.copy_to, self.move_to, self.command))) != 1:
            raise ValueError("a step has exactly one of copy_to, move_to and command")
        if self.attempts < 1 or self.pause < 0 or self.timeout <= 0:
            raise ValueError(f"attempts={self.attempts}, pause={self.pause}, timeout={self.timeout} make no sense")
        if to := self.copy_to or self.move_to:
            _Folder(to)

    def __str__(self) -> str:
        if self.command:
            return f"the command {self.command[0]}"
        return f"the copy to {self.copy_to}" if self.copy_to else f"the move to {self.move_to}"

    def folder(self, start: Document) -> Path:
        """Give the folder for a run's file."""
        return _Folder(self.copy_to or self.move_to).of(start)


def steps_of(tables: Any) -> list[Step]:
    """Read steps from a profile; raises SettingsError."""
    try:
        return msgspec.convert(tables, list[Step])
    except msgspec.ValidationError as error:
        raise SettingsError(f"`after` is a list of copy_to, move_to or command, each in a table: {error}") from error


def _by_content(steps: list[Step]) -> dict[str, Step]:
    """Give steps by what they do; one that comes again has its number, too."""
    found: dict[str, Step] = {}
    for step in steps:
        content = encode(step.command or [step.copy_to, step.move_to])
        number = 1 + sum(step.command == each.command and str(step) == str(each) for each in found.values())
        found[content if number == 1 else f"{content} {number}"] = step
    return found


class _Folder:
    """An absolute folder whose last parts are a template over the start document."""

    def __init__(self, text: str) -> None:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise ValueError(f"{text!r} is no absolute path")
        fixed = [part for part in path.parts if "{" not in part]
        count = next((number for number, part in enumerate(path.parts) if "{" in part), len(fixed))
        self._root = Path(*path.parts[:count])
        self._template = FileTemplate("/".join((*path.parts[count:], "x.nxs")))

    def of(self, start: Document) -> Path:
        return self._root / self._template.path(start).parent


@dataclass
class FileOnItsWay:
    """A file on its way."""

    run_uid: str
    path: Path
    start: dict[str, Any]
    owner: str = ""
    note: str = ""
    """The name of its note: a run whose documents were lost and came after all has two files."""
    done: list[str] = field(default_factory=list[str])
    """What was done, by what the steps say: the profile may have others after the next start."""
    is_lost: bool = False
    """Whether it is the file of a run whose documents were lost, which may come after all."""
    checksum: str = ""
    """Of the file, while it is known."""

    @property
    def name(self) -> str:
        """The name at other places, where that of a lost run must not take the name of the complete one."""
        is_plain = not self.is_lost or self.path.stem.endswith(_LOST)
        return self.path.name if is_plain else f"{self.path.stem}{_LOST}{self.path.suffix}"


class FileSteps:
    """Does the steps for one file after the other; what is not done when the process dies is done by the next.

    `moved(file, to)` is called once a file has its new place, before it leaves the old one; `tell(uid, text, is_error)`
    when something is to be known. Both are called in the thread.
    """

    def __init__(
        self,
        root: Path,
        steps: list[Step],
        *,
        moved: Callable[["FileOnItsWay", Path], None],
        tell: Callable[[str, str, bool], None],
    ) -> None:
        self._folder = root / _FOLDER
        self._steps = _by_content(steps)
        self._moved = moved
        self._tell = tell
        self._jobs: list[FileOnItsWay] = []
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()

    def resume(self, owner: str) -> None:
        """Take up what an earlier process of this owner did not finish."""
        for note in sorted(self._folder.glob("*.json")) if owner and self._steps else ():
            try:
                found = json.loads(note.read_text())
                if found["owner"] == owner:  # its checksum may be another by now
                    found |= {"path": Path(found["path"]), "note": note.name, "checksum": ""}
                    if isinstance(found["done"], int):  # an older note counts the steps
                        found["done"] = list(self._steps)[: found["done"]]
                    self.begin(FileOnItsWay(**found))
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.warning("%s cannot be read: %s", note, error)

    def plan(
        self, run_uid: str, path: Path, start: Document, owner: str, *, checksum: str = "", is_lost: bool = False
    ) -> "FileOnItsWay | None":
        """Note that the steps are due for a complete file; they wait for `begin`, or for the next start.

        Without an owner nobody takes up what is left when the process dies.
        """
        if not self._steps:
            return None
        note = f"{file_word(run_uid, default='run')}.{crc32(os.fsencode(path)):08x}.json"
        job = FileOnItsWay(run_uid, path, decode(encode(start)), owner, note, is_lost=is_lost, checksum=checksum)
        self._note(job)
        return job

    def begin(self, job: "FileOnItsWay | None") -> None:
        """Do what was planned, unless it is under way."""
        with self._lock:
            is_known = job is None or any(job.note == other.note for other in self._jobs)
        if job is not None and not is_known:
            self._put(job)

    def wait(self, timeout: float | None = 30.0) -> bool:
        """Wait until nothing is left to do; False if that takes longer."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._jobs, timeout)

    def close(self) -> None:
        """End soon; without an owner, who would do the rest after the next start, when all is done."""
        if not any(job.owner for job in self._jobs):
            self.wait(None)  # attempts and commands are limited in number and time
        self._is_closing.set()
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSING)

    def _put(self, job: FileOnItsWay) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="file-steps", daemon=True)
                self._thread.start()

    # ── in the thread ──

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs or self._is_closing.is_set():
                    self._thread = None
                    return
                job = self._jobs[0]
            try:
                is_over = self._advance(job)
            except Exception as error:  # noqa: BLE001  # what one file breaks must not keep the others
                _log.warning("what follows %s is given up", job.path, exc_info=error, extra={"run": job.run_uid})
                self._tell(job.run_uid, f"what follows {job.path} is given up until the next start: {error!r}", True)
                is_over = True
            with self._lock:
                if is_over:
                    self._jobs.remove(job)
                self._lock.notify_all()

    def _advance(self, job: FileOnItsWay) -> bool:
        """Do the steps that are left; False if the process ends first."""
        for content, step in self._steps.items():
            if content in job.done:
                continue
            if self._is_left(job):
                return False
            pause = step.pause
            for attempt in range(1, step.attempts + 1):
                try:
                    if not self._do(step, job):
                        return False
                    break
                except (OSError, SettingsError, subprocess.SubprocessError) as error:
                    if self._is_left(job):
                        return False
                    text = f"{step} of {job.path.name} failed: {error}"
                    if attempt == step.attempts or isinstance(error, SettingsError | FileExistsError):
                        self._tell(job.run_uid, f"{text}; the file is at {job.path}, and nothing more is done", True)
                        return True  # its note stays: the next start tries again
                    _log.warning("%s; it is tried again in %g s", text, pause, extra={"run": job.run_uid})
                    if self._is_closing.wait(pause):
                        return False
                    pause = min(2 * pause, _LONGEST_PAUSE)
            job.done.append(content)
            self._note(job)
        self._note_path(job).unlink(missing_ok=True)
        return True

    def _is_left(self, job: FileOnItsWay) -> bool:
        """Tell whether the rest is for the next start: nobody hears any more what is told."""
        return self._is_closing.is_set() and bool(job.owner)

    def _do(self, step: Step, job: FileOnItsWay) -> bool:
        """Do one step; False if the writer was closed before it was done."""
        if step.command:
            words = [word.replace("{path}", str(job.path)) for word in step.command]
            done = subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=step.timeout, check=False
            )
            if done.returncode != 0:
                raise OSError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
            job.checksum = ""  # it may have changed the file
            return True
        has_links = job.path.exists() and _has_links(job.path)
        if has_links and step.move_to:
            raise SettingsError("it has links to files of detectors, which it would lose: copy it, and move the folder")
        target = step.folder(job.start) / job.name
        if has_links:
            self._tell(job.run_uid, f"{target} is a copy whose links lead to frames that are not there", False)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.samefile(job.path.parent):
            return True
        _copy(job.path, target, job.run_uid, is_move=bool(step.move_to))
        if not step.move_to:
            return True
        if self._is_left(job):
            return False
        self._moved(job, target)  # the move is repeated as a whole if the process dies in between
        job.path.unlink(missing_ok=True)
        job.path = target
        return True

    def _note(self, job: FileOnItsWay) -> None:
        if not job.owner:
            return
        try:
            self._folder.mkdir(exist_ok=True)
            new = self._note_path(job).with_suffix(".new")
            new.write_text(json.dumps(vars(job) | {"path": str(job.path)}))
            new.replace(self._note_path(job))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._note_path(job), error, extra={"run": job.run_uid})

    def _note_path(self, job: FileOnItsWay) -> Path:
        return self._folder / job.note


def _has_links(path: Path) -> bool:
    """Tell whether a run's file shows data of other files."""
    with h5py.File(path, "r") as file:
        files = file.get("entry/external_files")
        return isinstance(files, h5py.Group) and len(files) > 0


def _copy(source: Path, target: Path, run_uid: str, *, is_move: bool) -> None:
    """Make a file with the same content, never over another one, and read it back; raises OSError."""
    if target.exists():  # of an attempt that was cut short after this
        if not source.exists() or checksum(target) == checksum(source):
            return
        raise FileExistsError(f"{target} is there with another content, and is not overwritten")
    if is_move and source.stat().st_dev == target.parent.stat().st_dev:
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError as error:  # another mount of the same disk, or a file system without hard links
            _log.debug("%s is copied: %s", source, error)
        else:
            sync(target.parent)
            return
    hidden = target.with_name(f".{target.name}.{file_word(run_uid, default='run')}.part")
    hidden.unlink(missing_ok=True)  # of an attempt that was killed
    try:
        shutil.copy2(source, hidden)
        sync(hidden)
        if checksum(hidden) != checksum(source):
            raise OSError("the copy reads back with another checksum")
        rename_new(hidden, target)
        sync(target.parent)
    finally:
        hidden.unlink(missing_ok=True)
