"""Writes each run into a NeXus/HDF5 file of its own, which opens with a plot."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from bec_bluesky.documents import AnalysisResult, Document, Emit, FileReady, RunCallback, RunProblem, RunSink
from bec_bluesky.errors import SettingsError
from writers._disk import MIN_FREE, Room
from writers._file_steps import FileOnItsWay, FileSteps, steps_of
from writers._nexus_checksum import Checksums
from writers._nexus_classes import DeviceClasses
from writers._nexus_documents import read_documents
from writers._nexus_external import ExternalFiles
from writers._nexus_follow import FollowFile
from writers._nexus_layout import LayoutRun, load_layout
from writers._nexus_lost import OpenFiles, PartFile
from writers._nexus_place import FileIndex, Place, published_from
from writers._nexus_run import RunFile, announce_again
from writers._nexus_template import FileTemplate

__all__ = ["LayoutRun", "NexusWriter", "read_documents"]

_log = logging.getLogger(__name__)
_LOOK_EVERY = 0.05
"""Seconds between two looks for a late file, when nobody ticks."""
_ALARMS = 5
"""Problems of one file that become alarms of their own, at most."""


class NexusWriter(RunCallback):
    """One file per run below `directory`, named by `template` and never over another.

    The fields of the template are year, month, day, hour, minute, second and scan_id (numbers), plan_name, sample,
    proposal, user, beamline and uid (words, of which only what is safe in a file name is taken). If the name is taken,
    the beginning of the run's uid is added. Raises SettingsError for a template that names no files. `min_free` is what
    must stay free on the disk, in bytes: a run that would need it is given up, before HDF5 meets a full disk. Below
    `warn_free` bytes there is an alarm, when a run begins and while it goes on.

    The file grows under a hidden name, which ends in `.part`, and gets its own when the run has ended and all is on the
    disk. Deviations (values of mixed types, a detector's file that is not there) are said in the file at
    `/entry/run/problems`, in the `FileReady` that is emitted, and as an alarm.

    With `follow` a run that takes longer than a second can be read while it goes on: in `<name>.<uid>.follow.h5`, where
    its file will be, by h5py with `swmr=True`. A `FileGrowing` is emitted when that is there, and it goes away when the
    run's own file has come.

    `classes` gives devices their NeXus class by patterns of their names (`{"ring*" = "NXsource"}`); others have the one
    that they hint at, or that belongs to a label in `device_file` (motors, detectors, monitors, sources, slits,
    mirrors, sensors …), or that their part in the run tells.

    Files of detectors that are not complete when the run ends are awaited for `wait_for_files` seconds, in a document
    service without holding up other runs, and there those that are still open for writing for `wait_until_closed`
    seconds; with `file_checksums` their SHA-256 is written, too. What hosted analyses find is awaited for
    `wait_for_results` seconds after a scan.

    `layouts` add to the tree at the run's end, in this order: paths of YAML files (`writers/example_layout.yaml`) or
    functions `module:function` that take a `LayoutRun` (`writers/example_layout.py`). One that fails is told, and
    costs the file nothing else.

    `after` is what is done with a complete file, in this order and without holding up others: `{copy_to = "/archive/
    {proposal}"}`, `{move_to = …}`, `{command = ["program", "{path}"]}`. A copy is read back and compared by checksum,
    a file that was moved is announced again. What fails is tried again `attempts` times, then told as an alarm; the
    original stays, and the next start tries once more. A file with links to those of detectors is not moved.
    """

    pace: ClassVar[float] = 0.05
    required: ClassVar[bool] = True
    mends_documents: ClassVar[bool] = False  # all documents are kept as they came
    wants_results: ClassVar[bool] = True
    outward_options: ClassVar[frozenset[str]] = frozenset({"after"})

    def __init__(
        self,
        *,
        emit: Emit | None = None,
        directory: str | Path,
        template: str = "{year}/{scan_id:06d}_{plan_name}.nxs",
        min_free: int = MIN_FREE,
        warn_free: int = 2 * 2**30,
        classes: dict[str, str] | None = None,
        device_file: str | Path | None = None,
        wait_for_files: float = 10.0,
        wait_until_closed: float = 3.0,
        wait_for_results: float = 0.2,
        file_checksums: bool = False,
        layouts: Iterable[str] = (),
        after: Iterable[dict[str, Any]] = (),
        follow: bool = True,
    ) -> None:
        super().__init__(emit=emit)
        self._root = Path(directory).expanduser().absolute()
        self._template = FileTemplate(template)
        self._index = FileIndex(self._root)
        self._begun = OpenFiles(self._root)
        self._min_free = min_free
        self._classes = DeviceClasses(classes, device_file)
        self._wait_for_files = wait_for_files
        self._wait_until_closed = min(wait_until_closed, wait_for_files)
        self._wait_for_results = wait_for_results
        self._file_checksums = file_checksums
        self._room = Room(self._root, warn_free)
        self._steps = FileSteps(self._root, steps_of(list(after)), moved=self._move, tell=self._tell_of_step)
        self._layouts = {where: load_layout(where) for where in layouts}
        self._with_follow = follow
        self._ending: dict[str, RunFile] = {}
        """Runs that got their stop document, and wait for what comes late."""
        self._checksums = Checksums()
        self._unannounced: dict[str, tuple[RunFile, Path, Future[str]]] = {}
        """Complete files under their own names, until their checksums are there."""
        self._failed: dict[str, SettingsError | OSError] = {}
        """Of those, the ones whose files could not be completed, until that was told."""
        self._is_ticked = False

    def open_run(self, start: Document) -> RunSink | None:
        """Begin a file; None if the run has one already. Raises SettingsError if none can be written."""
        uid = str(start["uid"])
        if self.holds(uid) or uid in self._unannounced:
            return None
        earlier = self.open_runs.get(uid)
        ending = earlier.file if isinstance(earlier, _Run) else self._ending.pop(uid, None)
        if ending is not None:
            ending.close()
        place = Place(self._root, self._template, start, min_free=self._min_free)
        place.remove_follow()  # what a killed process left
        if (published := place.find()) is not None:  # killed before it was announced
            place.clear(published)
            self._tell_of(announce_again(published, start), start)
            return None
        place.prepare(self._root)
        self._watch_room(uid)
        if self.owner:
            self._begun.add(uid, place.part, self.owner)
        external = ExternalFiles(self._root, place.folder, with_checksums=self._file_checksums)
        follow = FollowFile(place, start, self.emit) if self._with_follow else None
        return _Run(self, RunFile(start, place, external, self._classes, self._layouts, follow))

    def unfinished(self) -> list[str]:
        """Give the runs of this owner that have a part file, or were not announced, and are not open here."""
        found: list[str] = []
        for uid, part in self._begun.of(self.owner).items() if self.owner else ():
            if uid in self.open_runs or uid in self._ending or uid in self._unannounced:
                continue
            if not self.holds(uid) and (_is_left(part) or published_from(part, uid) is not None):
                found.append(uid)
            else:
                self._begun.remove(uid)
        return found

    def close_lost(self, run_uid: str) -> None:
        """Complete the file of a run whose documents are gone, with what it holds; it says so.

        One that a killed process had completed and not announced is announced.
        Raises SettingsError if its part file cannot be read; that stays as it is.
        """
        part = self._begun.of(self.owner).get(run_uid)
        if run_uid not in self.open_runs and part is not None:
            published = None if _is_left(part) else published_from(part, run_uid)
            if published is not None:
                path, is_lost = published
                _, start = next(read_documents(path))
                self._tell_of(announce_again(path, start), start, is_lost=is_lost)
                return
            self._write_again(run_uid, part)
        super().close_lost(run_uid)

    def _write_again(self, run_uid: str, part: Path) -> None:
        """Write a run from the documents in the longest part file of it, up to its stop document."""
        before = part.with_suffix(".before")
        longest = max((path for path in (part, before) if path.exists()), key=lambda path: path.stat().st_size)
        left = PartFile(longest)
        try:
            documents = left.documents()
            _, start = next(documents)
        except (OSError, StopIteration) as error:
            why = str(error) or left.problem or "it holds no documents"
            raise SettingsError(f"{longest} cannot be read ({why}): it stays") from error
        self.take(run_uid, "start", start)
        if run_uid not in self.open_runs:  # its file was complete, and is announced now
            return
        left.path = before  # it was set aside
        stop: Document | None = None
        for name, doc in documents:
            if name == "stop":
                stop = doc
            else:
                self.take(run_uid, name, doc)
        run = self.open_runs[run_uid]
        if isinstance(run, _Run) and not left.is_whole():
            kept = left.keep(f"{Path(run.file.place.name).stem}_as_it_was.nxs")
            run.file.problems.append(f"{left.problem}: what an earlier attempt wrote is kept in {kept.name}")
        if stop is not None:
            self.take(run_uid, "stop", stop)

    def complain(self, run_uid: str, problems: list[str]) -> None:
        """Say what is wrong with the documents of an open run in its file, which is told when it is ready."""
        run = self.open_runs.get(run_uid)
        if isinstance(run, _Run):
            run.file.problems += problems

    def holds(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there."""
        return self._index.find(run_uid) is not None

    def is_stored(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there; raises, once, what kept it from being completed."""
        if (error := self._failed.pop(run_uid, None)) is not None:
            raise error
        return self.holds(run_uid)

    def announcements(self, run_uid: str) -> list[FileReady | RunProblem]:
        """Announce the run's complete file once more, with its problems."""
        path = self._index.find(run_uid)
        if path is None:
            return []
        _, start = next(read_documents(path))
        ready = announce_again(path, start)
        return [ready, *_alarms(ready)]

    def tick(self) -> None:
        """Write what has been in memory for a second; a file that cannot be written raises with its next document.

        Complete the runs that have everything, or have waited long enough.
        """
        if not self._is_ticked:
            self._is_ticked = True
            self._steps.resume(self.owner)
        for uid in self.open_runs:
            self._watch_room(uid)
        for file in self._open_files():
            try:
                file.flush_if_due()
            except SettingsError as error:
                _log.error("%s", error, extra={"run": str(file.start["uid"])})

        self._complete_due()
        self._announce_due()

    def take_result(self, result: AnalysisResult) -> None:
        """Take what an analysis found, for the run's file."""
        run = self.open_runs.get(result.run_uid)
        file = run.file if isinstance(run, _Run) else self._ending.get(result.run_uid)
        if file is not None:
            file.take_result(result)

    def end(self, file: RunFile) -> None:
        """Complete a file whose run has ended, or keep it for what comes late, if there is somebody who ticks."""
        if self._is_ticked:
            self._ending[str(file.start["uid"])] = file
            if not self._is_awaited(file):
                del self._ending[str(file.start["uid"])]
                self._publish(file)
            return
        while file.has_late_files(self._wait_for_files, until_closed=0.0):  # a bare engine unstages after this
            time.sleep(_LOOK_EVERY)
        self._publish(file)

    def _is_awaited(self, file: RunFile) -> bool:
        return file.has_late_results(self._wait_for_results) or file.has_late_files(
            self._wait_for_files, until_closed=self._wait_until_closed
        )

    def _complete_due(self) -> None:
        for uid, file in list(self._ending.items()):
            if self._is_awaited(file):
                continue
            del self._ending[uid]
            try:
                self._publish(file)
            except (SettingsError, OSError) as error:
                self._failed[uid] = error

    def close(self) -> None:
        """Close the files of open runs; they keep their hidden names."""
        for file in self._ending.values():
            file.close()
        self._ending.clear()
        self._announce_due()
        self._checksums.close()
        self._unannounced.clear()
        for file in self._open_files():
            try:
                file.flush()
            except SettingsError as error:
                _log.error("%s", error, extra={"run": str(file.start["uid"])})
            file.close()
        self._steps.close()
        super().close()

    def _publish(self, file: RunFile) -> None:
        """Complete a file, give it its name, and announce it with its checksum, soon if that takes a while."""
        try:
            file.complete(self._wait_until_closed if self._is_ticked else math.inf)
            path = file.place.publish()
        finally:
            file.end_follow()
        self._unannounced[str(file.start["uid"])] = (file, path, self._checksums.of(path))
        self._announce_due(wait=not self._is_ticked)

    def _announce_due(self, *, wait: bool = False) -> None:
        for uid, (file, path, digest) in list(self._unannounced.items()):
            if not wait and not digest.done():
                continue
            del self._unannounced[uid]
            try:
                ready = file.announcement(path, digest.result())
            except OSError as error:  # somebody took it away
                self._failed[uid] = error
                continue
            for problem in ready.problems:
                _log.warning("%s: %s", path.name, problem, extra={"run": uid})
            self._tell_of(ready, file.start, is_lost=file.is_lost)

    def _tell_of(self, ready: FileReady, start: Document, *, is_lost: bool = False) -> None:
        """Announce a complete file, and begin what is to be done with it."""
        uid, path = ready.run_uid, Path(ready.path)
        steps = self._steps.plan(uid, path, start, self.owner, checksum=ready.checksum, is_lost=is_lost)
        self.emit(ready)
        if not is_lost:  # what was lost may come after all
            self._index.add(uid, path)
        self._begun.remove(uid)
        self._steps.begin(steps)
        for problem in _alarms(ready):
            self.emit(problem)

    def _watch_room(self, run_uid: str) -> None:
        if (text := self._room.shortage()) is not None:
            self.emit(RunProblem(run_uid=run_uid, source="nexus", text=text))

    def _move(self, file: FileOnItsWay, to: Path) -> None:
        """Announce a file at its new place; in the thread of the steps."""
        if not file.is_lost:  # what was lost may come after all
            self._index.add(file.run_uid, to)
        known = file.path if file.path.exists() else to  # a place that hangs would hold up all that use HDF5
        ready = announce_again(known, {**file.start, "uid": file.run_uid}, digest=file.checksum)
        self.emit(msgspec.structs.replace(ready, path=str(to), moved_from=str(file.path)))

    def _tell_of_step(self, run_uid: str, text: str, is_error: bool) -> None:
        level = "error" if is_error else "warning"
        self.emit(RunProblem(run_uid=run_uid, source="nexus", text=text, level=level))

    def _open_files(self) -> Iterator[RunFile]:
        for run in self.open_runs.values():
            if isinstance(run, _Run):
                yield run.file


def _is_left(part: Path) -> bool:
    """Tell whether something is left of what an attempt wrote that was cut short."""
    return part.exists() or part.with_suffix(".before").exists()


def _alarms(ready: FileReady) -> list[RunProblem]:
    """Give what people are told of the problems of a file."""
    name, problems = Path(ready.path).name, ready.problems
    told = problems[:_ALARMS] if len(problems) <= _ALARMS else problems[: _ALARMS - 1]
    if len(told) < len(problems):
        told = [*told, f"and {len(problems) - len(told)} more problems, in the file at /entry/run/problems"]
    return [RunProblem(run_uid=ready.run_uid, source="nexus", text=f"{name}: {text}") for text in told]


class _Run:
    """The sink of one run."""

    def __init__(self, writer: NexusWriter, file: RunFile) -> None:
        self.file = file
        self._writer = writer

    def __call__(self, name: str, doc: Document) -> None:
        self.file(name, doc)
        if name == "stop":
            self._writer.end(self.file)

    def close(self) -> None:
        """Close the file as it is, under its hidden name."""
        self.file.close()
