"""A file in which a run can be read while it grows, by HDF5's single writer and multiple readers (SWMR)."""

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Mapping

import h5py

from bec_bluesky.documents import Document, Emit, FileGrowing, RunProblem
from writers._disk import keep_for_ever
from writers._nexus_external import ExternalFiles, ExternalFrames
from writers._nexus_follow_stream import StreamCopy
from writers._nexus_head import collection, write_head, write_root
from writers._nexus_place import Place
from writers._nexus_stream import StreamTable
from writers._nexus_text import scan_number, set_attributes

__all__ = ["FollowFile"]

_log = logging.getLogger(__name__)
_SPACE = 256 * 2**20
"""Bytes that must be free beyond what must stay free anyway: a copy gives way before the run's own file does."""
_MOST_COPIES = 20
"""Files that one stream may need, one after the other: its columns change their types a few times at most."""
_MOST_LINKS = 1_000
"""Files of detectors that are linked."""


class FollowFile:
    """Copies what a run's file gets, in the same batches, for whoever reads along; the paths are those of that file.

    What people open is a small file of links, renamed into its place whole. Each stream's columns are in a file of
    their own, since HDF5 lets a file that is being read along get no new datasets: for a new column, or one that
    changes its type, the stream gets another file, and the file of links another version. Readers keep what they have
    open.

    It begins with the first batch: a run of a second needs none. What keeps it from being written is told, once, as an
    alarm, and costs the run's own file nothing.
    """

    def __init__(self, place: Place, start: Document, emit: Emit) -> None:
        self._place = place
        self._start = start
        self._emit = emit
        self._copies: dict[str, StreamCopy] = {}
        """The newest of each stream."""
        self._open: list[StreamCopy] = []
        """All that have a file open, from before it is made on."""
        self._numbers: dict[str, int] = {}
        """Files that each stream has needed."""
        self._linked: list[ExternalFrames] = []
        self._is_announced = False
        self._is_over = False

    def update(self, streams: Mapping[str, StreamTable], external: ExternalFiles, *, is_last: bool) -> None:
        """Copy what the streams have got; the last batch only if there were others. Never raises."""
        if self._is_over or (is_last and not self._is_announced):
            return
        try:
            self._place.check_space(_SPACE)
            self._update(streams, external)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not disturb the run's own file
            self._give_up(error)

    def remove(self) -> None:
        """Close it and take it away; who has it open can read on. Never raises."""
        self._is_over = True
        for copy in list(self._open):
            try:
                self._close(copy)
            except (OSError, RuntimeError) as error:
                _log.warning("%s: %s", copy.path, error, extra={"run": self._start["uid"]})
                keep_for_ever(copy)
        self._copies.clear()
        self._open.clear()
        self._place.remove_follow()

    def _close(self, copy: StreamCopy) -> None:
        copy.close()
        self._open.remove(copy)

    def _update(self, streams: Mapping[str, StreamTable], external: ExternalFiles) -> None:
        copies = dict(self._copies)
        for name, stream in streams.items():
            if stream.rows:
                copies[name] = self._extended(self._copies.get(name), stream)
        with_frames = (frames for frames in external if frames.is_hdf5 and frames.stream in streams)
        linked = list(itertools.islice(with_frames, _MOST_LINKS))
        if copies == self._copies and linked == self._linked:
            return
        replaced = [copy for name, copy in self._copies.items() if copies[name] is not copy]
        self._copies, self._linked = copies, linked
        self._write_links(streams, external)
        for copy in replaced:  # the files stay until the end: somebody may have the links to them
            self._close(copy)

    def _extended(self, copy: StreamCopy | None, stream: StreamTable) -> StreamCopy:
        lengths = copy.text_lengths if copy is not None else {}
        while copy is None or not copy.fits(stream) or not copy.extend(stream):
            number = self._numbers[stream.name] = self._numbers.get(stream.name, 0) + 1
            if number > _MOST_COPIES:
                raise ValueError(f"the columns of {stream.name} changed more than {_MOST_COPIES} times")
            lengths = lengths if copy is None else copy.text_lengths
            if copy is not None and copy is not self._copies.get(stream.name):
                self._close(copy)
            path = self._place.follow_folder / f"{stream.label}.{number}.h5"
            path.parent.mkdir(exist_ok=True)
            copy = StreamCopy(path, lengths)
            self._open.append(copy)
            copy.begin(stream)
        return copy

    def _write_links(self, streams: Mapping[str, StreamTable], external: ExternalFiles) -> None:
        """Make the file that people open: in memory, so that HDF5 never meets the disk with it."""
        path = self._place.follow_folder / "links.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File("links", "w", libver="latest", driver="core", backing_store=False) as file:
            write_root(file, time.time())
            set_attributes(file, {"follows": self._place.name})
            entry = file.create_group("entry")
            write_head(entry, self._start)
            groups = collection(entry, "streams")
            for name, stream in streams.items():
                group = collection(groups, stream.label)
                set_attributes(group, {"stream": name})
                if (copy := self._copies.get(name)) is not None:
                    set_attributes(group, {"not_followed": copy.left_out or None})
                    for member in copy.members:
                        group[member] = h5py.ExternalLink(f"{path.parent.name}/{copy.path.name}", member)
            for frames in self._linked:
                self._link_frames(streams[frames.stream], groups, frames, external)
            file.flush()
            image = file.id.get_file_image()
        path.write_bytes(image)
        path.replace(self._place.follow)
        if not self._is_announced:
            self._is_announced = True
            self._announce()

    def _link_frames(
        self, stream: StreamTable, groups: h5py.Group, frames: ExternalFrames, external: ExternalFiles
    ) -> None:
        """Link what a detector writes, by the name that the run's file will give it if it cannot be mapped."""
        group = groups[stream.label]
        assert isinstance(group, h5py.Group)
        assert frames.path is not None
        name = stream.names[frames.key]
        if name in group:
            name = stream.names[f"{frames.key} in {frames.uri}"]
        if name not in group:
            group[name] = h5py.ExternalLink(external.name_of(frames.path), frames.dataset)

    def _announce(self) -> None:
        self._emit(
            FileGrowing(
                run_uid=str(self._start["uid"]),
                scan_id=scan_number(self._start),
                writer="nexus",
                path=str(self._place.follow),
                time=time.time(),
            )
        )

    def _give_up(self, error: Exception) -> None:
        uid = str(self._start["uid"])
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error)[:200] or repr(error)
        text = f"{self._place.follow.name}, to follow the run, is given up: {reason}"
        _log.warning(text, exc_info=None if number else error, extra={"run": uid})
        self._is_over = True
        for copy in self._open:
            keep_for_ever(copy)
            with contextlib.suppress(OSError):  # its space is wanted for the run's own file, though it stays open
                os.truncate(copy.path, 0)
        self._copies.clear()
        self._open.clear()
        self._place.remove_follow()
        self._emit(RunProblem(run_uid=uid, source="nexus", text=text))
