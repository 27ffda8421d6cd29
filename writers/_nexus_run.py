"""One run on its way into a NeXus file."""

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import event_model
import h5py
import numpy as np

from bec_bluesky.documents import AnalysisResult, Document, FileReady, is_lost
from bec_bluesky.errors import SettingsError
from writers._disk import keep_for_ever
from writers._nexus_checksum import checksum
from writers._nexus_classes import DeviceClasses
from writers._nexus_column import GrowingDataset
from writers._nexus_documents import DocumentLog, References
from writers._nexus_external import ExternalFiles
from writers._nexus_follow import FollowFile
from writers._nexus_head import collection, group_in, write_head, write_root, write_tail
from writers._nexus_instrument import Axes, link_group, write_instrument, write_logs, write_readout_groups
from writers._nexus_layout import Layout, LayoutRun
from writers._nexus_lost import PartFile
from writers._nexus_place import Place
from writers._nexus_plot import write_plots
from writers._nexus_results import Results
from writers._nexus_stream import StreamTable
from writers._nexus_sync import BackgroundSync
from writers._nexus_text import Names, scan_number, seconds, set_attributes, write_value
from writers._tiled_column import Column

__all__ = ["RunFile", "announce_again"]

_BATCH = 1_000
"""Events or documents in memory, at most."""
_BATCH_BYTES = 16 * 2**20
"""Large arrays of one stream in memory, at most (and one event)."""
_CACHE_BYTES = 64 * 2**10
"""Chunks of each dataset in memory: a few, since they are written in order; HDF5's own 8 MB fill as a run grows."""
_FLUSH_EVERY = 1.0
"""Seconds."""
_RESULTS_SETTLE = 0.05
"""Seconds without another result, after which the final ones are taken for all."""
_RESUMED = "an earlier attempt to write this run was cut short; all that is known of it was written again"


class RunFile:
    """Takes the documents of a run; its file grows under a hidden name until the stop document."""

    def __init__(
        self,
        start: Document,
        place: Place,
        external: ExternalFiles,
        classes: DeviceClasses | None = None,
        layouts: Mapping[str, Layout] | None = None,
        follow: FollowFile | None = None,
    ) -> None:
        self.start = start
        self._follow = follow
        self._classes = classes or DeviceClasses()
        self._layouts = layouts or {}
        self.place = place
        self._sync = BackgroundSync(place.part)
        self.problems: list[str] = []
        self._external = external
        self._streams: dict[str, StreamTable] = {}
        self._by_descriptor: dict[str, StreamTable] = {}
        self._stream_names = Names()
        self._shapes: dict[str, list[int]] = {}
        self._flushed = time.monotonic()
        self._failure: Exception | None = None
        self._is_abandoned = False
        self._stop: Document | None = None
        self._ended = 0.0
        self._last_result = 0.0
        self._says_open = False
        self.results = Results()
        self._file = h5py.File(place.part, "w", libver="earliest", rdcc_nbytes=_CACHE_BYTES)
        with self._writing():
            write_root(self._file, time.time())
            self._entry = self._file.create_group("entry")
            write_head(self._entry, start)
            if place.is_resumed:
                write_value(group_in(self._entry, "run"), "resumed", _RESUMED)
            self._documents = DocumentLog(collection(self._entry, "documents"))
            self._stream_group = collection(self._entry, "streams")

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; after the stop document, `complete` is due.

        Raises SettingsError if the file cannot be written, and then for every document that follows.
        """
        if self._failure is not None:
            raise self._broken(self._failure) from self._failure
        stream = self._by_descriptor.get(doc.get("descriptor", ""))
        references: References = {}
        if stream is not None and name in ("event", "event_page") and isinstance(doc.get("data"), Mapping):
            references = (stream.references if name == "event" else stream.page_references)(doc["data"])
        self._documents.append(name, doc, references)
        match name:
            case "descriptor":
                with self._writing():
                    self._open_stream(doc)
            case "event":
                self._add_event(doc, references)
            case "event_page":
                if stream is not None:
                    stream.has_pages = True
                for event in event_model.unpack_event_page(doc):  # pyright: ignore[reportArgumentType]  # a dict
                    self._add_event(event, references)
            case "stream_resource" | "resource":
                self._external.add(doc)
            case "stream_datum":
                self._external.extend(doc, stream)
            case "stop":
                self._stop, self._ended = doc, time.monotonic()
                if self.is_lost:
                    self.problems.append(str(doc["reason"]))
                self.flush()
                return
            case _:
                pass
        waiting = self._documents.waiting if stream is None else max(self._documents.waiting, stream.waiting)
        if waiting >= _BATCH or (stream is not None and stream.waiting_bytes > _BATCH_BYTES):
            self.flush()
        else:
            self.flush_if_due()

    def has_late_files(self, patience: float, *, until_closed: float) -> bool:
        """Tell whether a detector's file is awaited still: until so many seconds after the run's end.

        `until_closed`, fewer seconds, is for one that is complete, but open for writing: detectors are unstaged after
        the end.
        """
        since = self._time_since_end
        return since < patience and self._external.is_late(self._streams, until_closed=since < until_closed)

    def has_late_results(self, patience: float) -> bool:
        """Tell whether results of analyses are awaited still: scans have some soon after their end."""
        if not Axes(self.start).dimensions or self._time_since_end >= patience:
            return False
        return not self.results.are_final or time.monotonic() - self._last_result < _RESULTS_SETTLE

    def take_result(self, result: AnalysisResult) -> None:
        """Take what an analysis found."""
        self.results.take(result)
        self._last_result = time.monotonic()

    @property
    def is_lost(self) -> bool:
        """Whether the run was ended because its documents were lost, so that it is not complete."""
        return is_lost(self._stop or {})

    @property
    def _time_since_end(self) -> float:
        """Seconds since the run's stop: what is written long after it waits for nothing."""
        since = time.time() - seconds((self._stop or {}).get("time"))
        return max(since, time.monotonic() - self._ended)

    def complete(self, until_closed: float) -> None:
        """Write what is left to say of the run, and close the part file; raises SettingsError if that fails.

        `until_closed` is the time, in seconds after the run's end, by which detectors have closed their files.
        """
        assert self._stop is not None
        self._says_open = self._time_since_end >= until_closed
        with self._writing():
            self._finish(self._stop)

    def flush_if_due(self) -> None:
        """Write what is in memory if it has been there for a second."""
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory, and hand it to the operating system; raises SettingsError if that fails."""
        if self._failure is not None:
            return
        with self._writing():
            size = sum(stream.waiting_bytes for stream in self._streams.values())
            for stream in self._streams.values():
                stream.flush()
            self._documents.flush()
            self._file.flush()
            self._sync.grown(size)
        if self._follow is not None:
            self._follow.update(self._streams, self._external, is_last=self._stop is not None)
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the part file as it is."""
        self.end_follow()
        if not self._is_abandoned:
            self._file.close()
        with contextlib.suppress(OSError):  # the part is no complete file anyway
            self._sync.end()

    def end_follow(self) -> None:
        """Take away the file in which the run could be read while it grew."""
        if self._follow is not None:
            self._follow.remove()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Give the file up for good at the first error: columns of unequal length would be no record of the run."""
        try:
            self.place.check_space(_BATCH_BYTES)
            yield
        except Exception as error:
            self._failure = error
            if isinstance(error, OSError | RuntimeError):
                self._is_abandoned = True
                keep_for_ever(self)
            self.close()
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> SettingsError:
        if isinstance(error, SettingsError):
            return error
        return SettingsError(
            f"The run's file {self.place.part} cannot be written ({str(error)[:200]}): make room or choose another "
            "directory, then have the run's documents written again"
        )

    def announcement(self, path: Path, digest: str) -> FileReady:
        """Say that the file is there; `digest` is its checksum."""
        return _file_ready(path, self.start, self._shapes, self.problems, digest)

    def _open_stream(self, descriptor: Document) -> None:
        name = str(descriptor.get("name") or "primary")
        stream = self._streams.get(name)
        if stream is None:
            group = self._stream_group.create_group(self._stream_names[name])
            stream = self._streams[name] = StreamTable(group, name)
        try:
            stream.declare(descriptor)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.problems.append(f"{name}: a malformed descriptor ({error!r}); columns are as the events have them")
        self._by_descriptor[descriptor["uid"]] = stream

    def _add_event(self, event: Document, large: Collection[str]) -> None:
        stream = self._by_descriptor.get(event.get("descriptor", ""))
        if stream is None or not isinstance(event.get("data"), Mapping):
            self.problems.append(
                f"event {event.get('uid')}: without data or descriptor; it is only among the documents"
            )
        elif large:
            with self._writing():
                stream.append(event, large)
        else:
            stream.append(event, large)

    def _finish(self, stop: Document) -> None:
        for stream in self._streams.values():
            stream.flush(is_last=stream.rows == 0)
        self._documents.flush(is_last=True)
        self._keep_earlier()
        write_tail(self._entry, self.start, stop)
        self._check_numbers(stop)
        for write in (
            self._write_points,
            self._write_links,
            self._write_instrument,
            self._write_side_streams,
            self._write_plots,
            self._write_results,
        ):
            try:
                write()
            except Exception as error:  # noqa: BLE001  # what a malformed document breaks must not cost the data
                self.problems.append(f"{write.__name__.removeprefix('_write_')}: incomplete ({error!r})")
        self._apply_layouts(stop)
        self._write_problems()
        set_attributes(self._file, {"file_name": self.place.name})
        self._file.flush()
        self._file.close()
        self._sync.end()

    def _keep_earlier(self) -> None:
        """Keep what an earlier attempt wrote if it is more, as a file of its own."""
        earlier = PartFile(self.place.before)
        if earlier.has_more(self._documents.rows, sum(stream.rows for stream in self._streams.values())):
            kept = earlier.keep(f"{Path(self.place.name).stem}_as_it_was.nxs")
            self.problems.append(f"an earlier attempt had more documents than came again: it is kept in {kept.name}")

    def _apply_layouts(self, stop: Document) -> None:
        for where, layout in self._layouts.items():
            try:
                self.problems += layout(LayoutRun(self._entry, self.start, stop, self._streams)) or []
            except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
                self.problems.append(f"layout {where}: failed ({error!r})")

    def _check_numbers(self, stop: Document) -> None:
        expected = stop.get("num_events") or {}
        for name, number in expected.items():
            stream = self._streams.get(name)
            rows = 0 if stream is None else stream.rows
            if isinstance(number, int) and rows != number and not self._has_frames(name):
                self.problems.append(f"{name}: {rows} events are here, the run says {number}")

    def _has_frames(self, stream: str) -> bool:
        return any(frames.stream == stream for frames in self._external)

    def _order(self, axes: Axes) -> list[StreamTable]:
        """Give the streams, the main one first, then other data, then monitors and baseline."""

        def place(stream: StreamTable) -> tuple[bool, bool, bool]:
            return (stream.name != axes.stream, stream.name != "primary", stream.is_aside)

        return sorted(self._streams.values(), key=place)

    def _write_points(self) -> None:
        """Write how many points the main stream has, each once: one that was taken again after a pause is one."""
        order = self._order(Axes(self.start))
        if not order or order[0].is_aside:
            return
        numbers = order[0].seq_nums()
        numbers.sort()
        points = int(np.count_nonzero(numbers[1:] != numbers[:-1])) + min(1, len(numbers))
        frames: Counter[str] = Counter()  # by data key, which may have several files
        for each in self._external:
            if each.stream == order[0].name:
                frames[each.key] += each.frames - (each.first or 0)
        write_value(group_in(self._entry, "run"), "num_points_measured", points or max(frames.values(), default=0))

    def _write_links(self) -> None:
        if self._external:
            listing = collection(self._entry, "external_files")
            self._external.link(self._streams, listing, says_open=self._says_open)

    def _write_instrument(self) -> None:
        axes = Axes(self.start)
        instrument = self._entry.create_group("instrument")
        set_attributes(instrument, {"NX_class": "NXinstrument"})
        name = self.start.get("beamline") or self.start.get("beamline_id") or self.start.get("instrument")
        if isinstance(name, str) and name:
            write_value(instrument, "name", name)
        order = self._order(axes)
        devices = write_instrument(instrument, order, axes, self._classes)
        write_readout_groups(collection(self._entry, "readout_groups"), order, devices)

    def _write_plots(self) -> None:
        axes = Axes(self.start)
        order = self._order(axes)
        main = order[0] if order and not order[0].is_aside else None
        self._shapes = write_plots(self._entry, self.start, axes, main, self._external)

    def _write_results(self) -> None:
        if self.results:
            order = self._order(Axes(self.start))
            self.results.write(self._entry, order[0] if order else None, time.time())

    def _write_side_streams(self) -> None:
        if "baseline" in self._streams:
            link_group(self._entry, "baseline", self._streams["baseline"].group)
        monitors = [stream for stream in self._streams.values() if stream.is_monitor]
        if monitors:
            group, names = collection(self._entry, "monitors"), Names()
            for stream in monitors:
                write_logs(group, names, stream, seconds(self.start.get("time")))

    def _write_problems(self) -> None:
        for stream in self._streams.values():
            self.problems += stream.problems()
        self.problems += self._external.problems
        if self.problems:
            GrowingDataset(group_in(self._entry, "run"), "problems", Column("string"), {}).append(
                self.problems, is_last=True
            )


def announce_again(path: Path, start: Document, *, digest: str = "") -> FileReady:
    """Say that a file is there, with what the file itself tells; `digest` is its checksum, if that is known."""
    shapes: dict[str, list[int]] = {}
    with h5py.File(path, "r") as file:
        data, problems = file.get("entry/data"), file.get("entry/run/problems")
        if isinstance(data, h5py.Group):
            signal = data.get(str(data.attrs["signal"]))
            if isinstance(signal, h5py.Dataset):  # not a broken link
                shapes[f"/entry/data/{data.attrs['signal']}"] = list(signal.shape)
        texts = [str(text) for text in problems.asstr()[()]] if isinstance(problems, h5py.Dataset) else []
    return _file_ready(path, start, shapes, texts, digest or checksum(path))


def _file_ready(
    path: Path, start: Document, shapes: dict[str, list[int]], problems: list[str], digest: str
) -> FileReady:
    return FileReady(
        run_uid=str(start["uid"]),
        scan_id=scan_number(start),
        writer="nexus",
        path=str(path),
        size=path.stat().st_size,
        time=time.time(),
        shapes=shapes,
        problems=problems,
        checksum=digest,
    )
