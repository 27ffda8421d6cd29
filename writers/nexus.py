"""Writes each run into a NeXus/HDF5 file of its own, which opens with a plot."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from bec_bluesky.documents import Document, Emit, FileReady, RunCallback, RunProblem, RunSink
from bec_bluesky.errors import SettingsError
from writers._nexus_classes import DeviceClasses
from writers._nexus_documents import read_documents
from writers._nexus_external import ExternalFiles
from writers._nexus_place import FileIndex, Place
from writers._nexus_run import RunFile, announce_again
from writers._nexus_template import FileTemplate

__all__ = ["NexusWriter", "read_documents"]

_log = logging.getLogger(__name__)
_ALARMS = 5
"""Problems of one file that become alarms of their own, at most."""


class NexusWriter(RunCallback):
    """One file per run below `directory`, named by `template` and never over another.

    The fields of the template are year, month, day, hour, minute, second and scan_id (numbers), plan_name, sample,
    proposal, user, beamline and uid (words, of which only what is safe in a file name is taken). If the name is taken,
    the beginning of the run's uid is added. Raises SettingsError for a template that names no files. `min_free` is what
    must stay free on the disk, in bytes: a run that would need it is given up, before HDF5 meets a full disk.

    The file grows under a hidden name, which ends in `.part`, and gets its own when the run has ended and all is on the
    disk. Deviations (values of mixed types, a detector's file that is not there) are said in the file at
    `/entry/run/problems`, in the `FileReady` that is emitted, and as an alarm.

    `classes` gives devices their NeXus class by patterns of their names (`{"ring*" = "NXsource"}`); others have the one
    that they hint at, or that belongs to a label in `device_file` (motors, detectors, monitors, sources, slits,
    mirrors, sensors …), or that their part in the run tells.
    """

    required: ClassVar[bool] = True

    def __init__(
        self,
        *,
        emit: Emit | None = None,
        directory: str | Path,
        template: str = "{year}/{scan_id:06d}_{plan_name}.nxs",
        min_free: int = 64 * 2**20,
        classes: dict[str, str] | None = None,
        device_file: str | Path | None = None,
    ) -> None:
        super().__init__(emit=emit)
        self._root = Path(directory).expanduser().absolute()
        self._template = FileTemplate(template)
        self._index = FileIndex(self._root)
        self._min_free = min_free
        self._classes = DeviceClasses(classes, device_file)

    def open_run(self, start: Document) -> RunSink | None:
        """Begin a file; None if the run has one already. Raises SettingsError if none can be written."""
        uid = str(start["uid"])
        if self.holds(uid):
            return None
        earlier = self.open_runs.get(uid)
        if isinstance(earlier, _Run):
            earlier.file.close()
        place = Place(self._root, self._template, start, min_free=self._min_free)
        if (published := place.find()) is not None:  # killed before it was announced
            self.emit(announce_again(published, start))
            self._index.add(uid, published)
            return None
        place.prepare(self._root)
        return _Run(self, RunFile(start, place, ExternalFiles(self._root, place.folder), self._classes))

    def holds(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there."""
        return self._index.find(run_uid) is not None

    def is_stored(self, run_uid: str) -> bool:
        """Tell whether the run's complete file is there."""
        return self.holds(run_uid)

    def tick(self) -> None:
        """Write what has been in memory for a second; a file that cannot be written raises with its next document."""
        for file in self._open_files():
            try:
                file.flush_if_due()
            except SettingsError as error:
                _log.error("%s", error, extra={"run": str(file.start["uid"])})

    def close(self) -> None:
        """Close the files of open runs; they keep their hidden names."""
        for file in self._open_files():
            try:
                file.flush()
            except SettingsError as error:
                _log.error("%s", error, extra={"run": str(file.start["uid"])})
            file.close()
        super().close()

    def publish(self, file: RunFile) -> None:
        """Give a complete file its name, and announce it."""
        path = file.place.publish()
        ready = file.announcement(path)
        self.emit(ready)
        self._index.add(ready.run_uid, path)
        self._tell(ready)

    def _tell(self, ready: FileReady) -> None:
        name, problems = Path(ready.path).name, ready.problems
        for problem in problems:
            _log.warning("%s: %s", name, problem, extra={"run": ready.run_uid})
        told = problems[:_ALARMS] if len(problems) <= _ALARMS else problems[: _ALARMS - 1]
        if len(told) < len(problems):
            told = [*told, f"and {len(problems) - len(told)} more problems, in the file at /entry/run/problems"]
        for text in told:
            self.emit(RunProblem(run_uid=ready.run_uid, source="nexus", text=f"{name}: {text}"))

    def _open_files(self) -> Iterator[RunFile]:
        for run in self.open_runs.values():
            if isinstance(run, _Run):
                yield run.file


class _Run:
    """The sink of one run."""

    def __init__(self, writer: NexusWriter, file: RunFile) -> None:
        self.file = file
        self._writer = writer

    def __call__(self, name: str, doc: Document) -> None:
        self.file(name, doc)
        if name == "stop":
            self._writer.publish(self.file)
