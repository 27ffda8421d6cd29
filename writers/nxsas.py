"""Writes small-angle scattering runs as NXsas files, by the conventions of Bluesky's suitcases.

The metadata tree in the start document and its references are those of suitcase-nxsas; what the application definition
asks beyond it is taken from the run. `export` and `Serializer` stand alone; `NXsasWriter` is hosted by a profile.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import event_model
import h5py
import numpy as np

from bec_bluesky.documents import Document, DocumentMender, Emit, FileReady, RunCallback, RunSink, file_prefix
from bec_bluesky.errors import SettingsError
from writers._disk import MIN_FREE, check_space, keep_for_ever, publish
from writers._nexus_text import Names, write_value
from writers._nxsas_definition import complete, entry_of, missing
from writers._nxsas_frames import FramesOfRun
from writers._nxsas_geometry import geometry
from writers._nxsas_stream import BATCH_BYTES, StreamColumns, add_units
from writers._nxsas_tree import copy_document, lay, merged, technique_trees

__all__ = ["NXsasWriter", "Serializer", "export", "geometry"]


def export(
    gen: Iterable[tuple[str, Document]], directory: str | Path, file_prefix: str = "{uid}-", **kwargs: Any
) -> dict[str, list[Path]]:
    """Write one run into `<file_prefix>.h5`; give `{"stream_data": [path]}`. `kwargs` are those of `Serializer`."""
    with Serializer(directory, file_prefix, **kwargs) as serializer:
        for name, document in gen:
            serializer(name, dict(document))
    return serializer.artifacts


class Serializer(event_model.DocumentRouter):
    """Takes the documents of one run; the file appears under its name with the stop document, and replaces none.

    All documents are kept below `/bluesky`. `tree` lies under the trees of the start document. Frames in detectors' own
    files are linked with relative names; `embed` copies them. What is missing is said in
    `/bluesky/problems` and `problems`. Raises FileExistsError if the name is taken.
    """

    def __init__(
        self,
        directory: str | Path,
        file_prefix: str = "{uid}-",
        *,
        embed: bool = False,
        tree: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._directory = Path(directory).expanduser().absolute()
        self._template = file_prefix
        self._embed = embed
        self._tree = tree or {}
        self._mender = DocumentMender()
        self._path: Path | None = None
        self._file: h5py.File | None = None
        self._is_complete = False
        self._start: Document = {}
        self._streams: dict[str, StreamColumns] = {}
        self._frames = FramesOfRun()

    @property
    def first(self) -> Document:
        """The run's start document."""
        return self._start

    @property
    def artifacts(self) -> dict[str, list[Path]]:
        """The file, once it is complete."""
        return {"stream_data": [self._path]} if self._path is not None and self._is_complete else {}

    def __call__(self, name: str, doc: Any, validate: bool = False) -> Any:
        """Take one document; what is malformed is put right or left out, and said in the file."""
        known = len(self._mender.problems)
        for part in self._mender(name, doc):
            self.problems += self._mender.problems[known:]
            known = len(self._mender.problems)
            super().__call__(part[0], dict(part[1]), validate=validate)
        self.problems += self._mender.problems[known:]
        return name, doc

    def start(self, doc: Any) -> None:
        if self._path is not None:
            raise ValueError("a Serializer takes one run: make another for the next")
        self._start = doc
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{file_prefix(self._template, doc).rstrip('-_.') or 'run'}.h5"
        if path.exists():
            raise FileExistsError(f"{path} is there already: it is not overwritten")
        self._path = path
        self._part = self._path.with_name(f".{self._path.stem}.{file_prefix('{uid}', doc)}.part")
        self._file = h5py.File(self._part, "w", libver="earliest")
        self._bluesky = self._file.create_group("bluesky")
        self._bluesky.attrs["NX_class"] = "NXcollection"
        for name in ("start", "descriptors", "events", "stop"):
            self._bluesky.create_group(name).attrs["NX_class"] = "NXcollection"
        copy_document(doc, self._group("start"))

    def descriptor(self, doc: Any) -> None:
        name = Names()[str(doc.get("name") or "primary")]
        descriptors = self._group("descriptors")
        if name not in descriptors:
            copy_document(doc, descriptors.create_group(name))
            add_units(descriptors[name], doc)
            stream = StreamColumns(self._group("events").create_group(name), self._frames)
        else:  # the same stream, declared again
            stream = next(each for each in self._streams.values() if each.name == name)
        stream.declare(doc)
        self._streams[doc["uid"]] = stream

    def event_page(self, doc: Any) -> Any:
        stream = self._streams.get(doc["descriptor"])
        if stream is not None:
            stream.append(doc)

    def stream_resource(self, doc: Any) -> None:
        self._frames.add_resource(doc)

    def stream_datum(self, doc: Any) -> None:
        stream = self._streams.get(doc["descriptor"])
        if stream is not None:
            self._frames.add_stream_datum(doc, stream.descriptors[doc["descriptor"]])

    def resource(self, doc: Any) -> None:
        self._frames.add_resource(doc)

    def datum_page(self, doc: Any) -> Any:
        self._frames.add_datums(doc)

    def stop(self, doc: Any) -> None:
        copy_document(doc, self._group("stop"))
        self._finish(doc)

    def flush(self) -> None:
        """Write what is in memory."""
        for stream in self._streams.values():
            stream.flush()

    def close(self) -> None:
        """Close the file; that of a run without a stop document is completed with what is known."""
        if not self._file:  # never opened, or closed
            return
        self.problems.append("the run has no stop document: the file ends where the documents did")
        self._finish({"time": max([stream.last_time for stream in self._streams.values()] + [self._start["time"]])})

    def abandon(self) -> None:
        """Close the file as it is, under its hidden name."""
        if self._file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _group(self, name: str) -> h5py.Group:
        group = self._bluesky[name]
        assert isinstance(group, h5py.Group)
        return group

    def _finish(self, stop: Document) -> None:
        assert self._path is not None and self._file is not None
        self.flush()
        events = self._group("events")
        for stream, frames in self._frames:
            data: Any = events[Names()[stream]]["data"]  # pyright: ignore[reportIndexIssue]  # groups of ours
            frames.write(data, Names()[frames.key], self._directory, is_embedded=self._embed, problems=self.problems)
        self.problems += self._frames.problems
        self.problems += [problem for stream in {*self._streams.values()} for problem in stream.problems()]
        lay(merged(self._tree, *technique_trees(self._start)), self._file, self._bluesky, self.problems)
        complete(self._file, self._start, stop, events)
        self.problems += missing(entry_of(self._file))
        if self.problems:
            write_value(self._bluesky, "problems", "\n".join(self.problems))
        self._file.flush()  # a close that fails on a full disk leaves HDF5 in a state that ends in a segmentation fault
        self._file.close()
        publish(self._part, self._path)
        self._is_complete = True


class NXsasWriter(RunCallback):
    """Writes an NXsas file for each run that has a technique's tree in its start document; for each run, with `tree`.

    `file_prefix` is a template over the start document, which must have `{uid}`: by it a restarted service finds what
    is there. `embed` copies frames out of detectors' own files. `min_free` is what must stay free on the disk, in
    bytes: a run that would need it is given up, before HDF5 meets a full disk.
    """

    pace: ClassVar[float] = 0.05
    required: ClassVar[bool] = True

    def __init__(
        self,
        *,
        emit: Emit | None = None,
        directory: str | Path,
        file_prefix: str = "{scan_id:06d}_{uid}",
        embed: bool = False,
        tree: dict[str, Any] | None = None,
        min_free: int = MIN_FREE,
    ) -> None:
        super().__init__(emit=emit)
        if "{uid}" not in file_prefix and "{start[uid]}" not in file_prefix:
            raise SettingsError(
                f"file_prefix = {file_prefix!r} has no {{uid}}: add it, so that no run is written twice"
            )
        self._directory = Path(directory).expanduser().absolute()
        self._prefix = file_prefix
        self._embed = embed
        self._tree = tree
        self._min_free = min_free

    def open_run(self, start: Document) -> RunSink | None:
        """Begin a file; None if the run is there, or is none of small-angle scattering."""
        if (self._tree is None and not any(technique_trees(start))) or self.holds(str(start["uid"])):
            return None
        if isinstance(earlier := self.open_runs.get(str(start["uid"])), _Sink):
            earlier.close()
        serializer = Serializer(self._directory, self._prefix, embed=self._embed, tree=self._tree)
        return _Sink(self, serializer, self._directory, self._min_free)

    def holds(self, run_uid: str) -> bool:
        """Tell whether the run's file is there."""
        return any(self._files(run_uid))

    def _files(self, run_uid: str) -> Iterable[Path]:
        return self._directory.glob(f"[!.]*{file_prefix('{uid}', {'uid': run_uid})}*.h5")

    def complain(self, run_uid: str, problems: list[str]) -> None:
        """Say what is wrong with the documents of an open run, in its file too."""
        super().complain(run_uid, problems)
        run = self.open_runs.get(run_uid)
        if isinstance(run, _Sink):
            run.serializer.problems += problems

    def announcements(self, run_uid: str) -> list[FileReady]:
        """Announce the run's file once more."""
        return [_announce_again(path, run_uid) for path in self._files(run_uid)]

    def tick(self) -> None:
        """Write what is in memory; a file that cannot be written raises with its next document."""
        for run in self.open_runs.values():
            if isinstance(run, _Sink):
                with contextlib.suppress(SettingsError):
                    run.flush()

    def close(self) -> None:
        """Close the files of open runs; they keep their hidden names."""
        for run in self.open_runs.values():
            if isinstance(run, _Sink):
                run.close()
        super().close()


class _Sink:
    """One run on its way into a file."""

    def __init__(self, writer: NXsasWriter, serializer: Serializer, folder: Path, min_free: int) -> None:
        self.serializer = serializer
        self._writer = writer
        self._folder = folder
        self._min_free = min_free
        self._start: Document = {}
        self._failure: SettingsError | None = None

    def __call__(self, name: str, doc: Document) -> None:
        if name == "start":
            self._start = doc
        with self._writing():
            self.serializer(name, doc)
        for path in self.serializer.artifacts.get("stream_data", ()):
            uid, number = str(self._start["uid"]), self._start.get("scan_id")
            self._writer.emit(_file_ready(path, uid, number, self.serializer.problems))

    def flush(self) -> None:
        """Write what is in memory; raises SettingsError if that fails, and then for ever."""
        with self._writing():
            self.serializer.flush()

    def close(self) -> None:
        """Close the file as it is, under its hidden name."""
        if self._failure is None:
            self.serializer.abandon()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            check_space(self._folder, BATCH_BYTES, self._min_free)
            yield
        except SettingsError as error:
            self.serializer.abandon()
            self._failure = error
            raise
        except (OSError, RuntimeError) as error:
            keep_for_ever(self.serializer)
            self._failure = SettingsError(
                f"NXsas files cannot be written in {self._folder} ({str(error)[:200]}): make room, make it writable or "
                "choose another directory, then have the run exported again"
            )
            raise self._failure from error


def _announce_again(path: Path, run_uid: str) -> FileReady:
    """Say that a file is there which an earlier process made, with what the file itself tells."""
    with h5py.File(path, "r") as file:
        number, problems = file.get("bluesky/start/scan_id"), file.get("bluesky/problems")
        scan_id = number[()] if isinstance(number, h5py.Dataset) else None
        texts = str(problems.asstr()[()]).splitlines() if isinstance(problems, h5py.Dataset) else []
    return _file_ready(path, run_uid, scan_id, texts)


def _file_ready(path: Path, run_uid: str, scan_id: Any, problems: list[str]) -> FileReady:
    return FileReady(
        run_uid=run_uid,
        scan_id=int(scan_id) if isinstance(scan_id, int | np.integer) else 0,
        writer="nxsas",
        path=str(path),
        size=path.stat().st_size,
        time=time.time(),
        problems=problems,
    )
