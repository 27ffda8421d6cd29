"""One run on its way into a NeXus file."""

import time
from collections.abc import Mapping
from typing import Any

import event_model
import h5py

from bec_bluesky.documents import Document, FileReady
from writers._nexus_column import GrowingDataset
from writers._nexus_external import ExternalFiles
from writers._nexus_instrument import Axes, write_instrument, write_logs
from writers._nexus_place import Place
from writers._nexus_plot import write_plot
from writers._nexus_stream import StreamTable
from writers._nexus_text import Names, encode, iso_time, seconds, set_attributes, write_value
from writers._tiled_column import Column

__all__ = ["RunFile"]

_BATCH = 1_000
"""Events or documents in memory, at most."""
_FLUSH_EVERY = 1.0
"""Seconds."""


class RunFile:
    """Takes the documents of a run; its file grows under a hidden name until the stop document."""

    def __init__(self, start: Document, place: Place, external: ExternalFiles) -> None:
        self.start = start
        self.place = place
        self.problems: list[str] = []
        self._external = external
        self._file = h5py.File(place.part, "w", libver="earliest")
        self._entry = self._file.create_group("entry")
        self._streams: dict[str, StreamTable] = {}
        self._by_descriptor: dict[str, StreamTable] = {}
        self._stream_names = Names()
        self._flushed = time.monotonic()
        self._texts: list[str] = []
        self._shapes: dict[str, list[int]] = {}
        self._write_head()
        documents = _collection(self._entry, "documents")
        attributes = {"format": "one JSON array [name, document] for each document, in the order they came"}
        self._documents = GrowingDataset(documents, "json", Column("string"), attributes)
        self._stream_group = _collection(self._entry, "streams")

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; the stop document completes the part file and closes it."""
        self._texts.append(encode([name, doc]))
        match name:
            case "descriptor":
                self._open_stream(doc)
            case "event":
                self._add_event(doc)
            case "event_page":
                for event in event_model.unpack_event_page(doc):  # pyright: ignore[reportArgumentType]  # a dict
                    self._add_event(event)
            case "stream_resource" | "resource":
                self._external.add(doc)
            case "stream_datum":
                stream = self._by_descriptor.get(doc.get("descriptor", ""))
                self._external.extend(doc, "" if stream is None else stream.name)
            case "stop":
                self._finish(doc)
                return
            case _:
                pass
        if len(self._texts) >= _BATCH:
            self.flush()
        else:
            self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write what is in memory if it has been there for a second."""
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory, and hand it to the operating system."""
        for stream in self._streams.values():
            stream.flush()
        texts, self._texts = self._texts, []
        self._documents.append(texts)
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the part file as it is."""
        if self._file:
            self._file.close()

    def announcement(self, path: str, size: int) -> FileReady:
        """Say that the file is there."""
        number = self.start.get("scan_id")
        return FileReady(
            run_uid=str(self.start["uid"]),
            scan_id=number if isinstance(number, int) else 0,
            writer="nexus",
            path=path,
            size=size,
            time=time.time(),
            shapes=self._shapes,
            problems=self.problems,
        )

    def _open_stream(self, descriptor: Document) -> None:
        name = str(descriptor.get("name") or "primary")
        stream = self._streams.get(name)
        if stream is None:
            group = self._stream_group.create_group(self._stream_names[name])
            stream = self._streams[name] = StreamTable(group, name)
        stream.declare(descriptor)
        self._by_descriptor[descriptor["uid"]] = stream

    def _add_event(self, event: Document) -> None:
        stream = self._by_descriptor.get(event.get("descriptor", ""))
        if stream is None or not isinstance(event.get("data"), Mapping):
            self.problems.append(
                f"event {event.get('uid')}: without data or descriptor; it is only among the documents"
            )
        else:
            stream.append(event)

    def _write_head(self) -> None:
        start, entry = self.start, self._entry
        set_attributes(
            self._file,
            {
                "NX_class": "NXroot",
                "default": "entry",
                "creator": "bec-bluesky",
                "file_name": self.place.name,
                "file_time": iso_time(time.time()),
                "h5py_version": h5py.version.version,
                "HDF5_Version": h5py.version.hdf5_version,
            },
        )
        set_attributes(entry, {"NX_class": "NXentry"})
        plan = str(start.get("plan_name") or "run")
        write_value(entry, "title", str(start.get("title") or f"{start.get('scan_id', '')} {plan}".strip()))
        write_value(entry, "entry_identifier", str(start["uid"]))
        write_value(entry, "start_time", iso_time(seconds(start.get("time"))))
        run = _collection(entry, "run")
        for key in ("uid", "scan_id", "plan_name", "plan_type", "num_points"):
            if start.get(key) is not None:
                write_value(run, key, start[key])
        for key in ("plan_args", "versions"):
            if key in start:
                write_value(run, key, encode(start[key]), {"encoding": "json"})
        self._write_people()

    def _write_people(self) -> None:
        start, entry = self.start, self._entry
        for key, nx_class in (("user", "NXuser"), ("sample", "NXsample")):
            found: Any = start.get(key)
            found = start.get(f"{key}_name") if found in (None, "") else found
            if found in (None, ""):
                continue
            group = entry.create_group(key)
            set_attributes(group, {"NX_class": nx_class})
            fields = (
                found if isinstance(found, Mapping) else {"name": found if isinstance(found, str) else encode(found)}
            )
            names = Names()
            for field, value in fields.items():
                write_value(group, names[str(field)], value)
        if start.get("proposal") not in (None, ""):
            proposal = start["proposal"]
            text = proposal if isinstance(proposal, str) else encode(proposal)
            write_value(entry, "experiment_identifier", text)

    def _finish(self, stop: Document) -> None:
        for stream in self._streams.values():
            stream.flush(is_last=stream.rows == 0)
        self._documents.append(self._texts, is_last=self._documents.rows == 0)
        self._texts = []
        self._write_tail(stop)
        for write in (self._write_links, self._write_instrument, self._write_side_streams, self._write_plot):
            try:
                write()
            except Exception as error:  # noqa: BLE001  # what a malformed document breaks must not cost the data
                self.problems.append(f"{write.__name__.removeprefix('_write_')}: incomplete ({error!r})")
        self._write_problems()
        self._file.flush()
        self._file.close()

    def _write_tail(self, stop: Document) -> None:
        begin, end = seconds(self.start.get("time")), seconds(stop.get("time"))
        write_value(self._entry, "end_time", iso_time(end))
        write_value(self._entry, "duration", round(end - begin), {"units": "s"})
        run = self._entry["run"]
        assert isinstance(run, h5py.Group)
        write_value(run, "duration", end - begin, {"units": "s"})
        write_value(run, "exit_status", str(stop.get("exit_status") or ""))
        write_value(run, "reason", str(stop.get("reason") or ""))
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

    def _write_links(self) -> None:
        if self._external:
            self._external.link(self._streams, _collection(self._entry, "external_files"))

    def _write_instrument(self) -> None:
        axes = Axes(self.start)
        instrument = self._entry.create_group("instrument")
        set_attributes(instrument, {"NX_class": "NXinstrument"})
        write_instrument(instrument, self._order(axes), axes)

    def _write_plot(self) -> None:
        axes = Axes(self.start)
        order = self._order(axes)
        main = order[0] if order and not order[0].is_aside else None
        self._shapes = write_plot(self._entry, self.start, axes, main, self._external)

    def _write_side_streams(self) -> None:
        if "baseline" in self._streams:
            self._entry["baseline"] = h5py.SoftLink(str(self._streams["baseline"].group.name))
        monitors = [stream for stream in self._streams.values() if stream.is_monitor]
        if monitors:
            group, names = _collection(self._entry, "monitors"), Names()
            for stream in monitors:
                write_logs(group, names, stream)

    def _write_problems(self) -> None:
        for stream in self._streams.values():
            self.problems += stream.problems()
        self.problems += self._external.problems
        run = self._entry["run"]
        assert isinstance(run, h5py.Group)
        if self.problems:
            GrowingDataset(run, "problems", Column("string"), {}).append(self.problems, is_last=True)


def _collection(parent: h5py.Group, name: str) -> h5py.Group:
    group = parent.create_group(name)
    set_attributes(group, {"NX_class": "NXcollection"})
    return group
