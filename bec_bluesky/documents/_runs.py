"""Stored runs, as people find and read them."""

import csv
import datetime
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TextIO, overload

import msgspec

from bec_bluesky.documents._address import CatalogAddress, find_catalog
from bec_bluesky.documents._callback import Document
from bec_bluesky.documents._export import export_run
from bec_bluesky.documents._file_list import FileList
from bec_bluesky.documents._files import write_documents
from bec_bluesky.documents._recorded import derived_streams, recorded_documents
from bec_bluesky.documents._retrieval import open_catalog
from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.messages.products import AnalysisResult, FileReady
from bec_bluesky.settings import Settings, load

__all__ = ["Run", "Runs", "timestamp"]

_MAIN = "primary"
_LIKE_TIME = "%Y-%m-%d %H:%M:%S"
_PAGE = 50
"""Runs asked for at once."""


class Run:
    """One stored run; `run["primary"]["det"].read()` reaches through to its Tiled client, `run.client`."""

    def __init__(self, client: Any, settings: Settings | None = None) -> None:
        self._settings = settings
        self.client = client
        """Of Tiled and databroker: `BlueskyRun`."""

    # ── what it is ──

    @property
    def start(self) -> Document:
        """Its start document."""
        return dict(self.client.metadata["start"])

    @property
    def stop(self) -> Document | None:
        """Its stop document; None while it goes on, or if it never got one."""
        stop = self.client.metadata.get("stop")
        return None if stop is None else dict(stop)

    @property
    def uid(self) -> str:
        return str(self.client.metadata["start"]["uid"])

    @property
    def scan_id(self) -> int | None:
        """Its scan number."""
        return self.client.metadata["start"].get("scan_id")

    @property
    def exit_status(self) -> str:
        """success, abort or fail; open without a stop document."""
        stop = self.stop
        return "open" if stop is None else str(stop.get("exit_status", "unknown"))

    @property
    def results(self) -> list[AnalysisResult]:
        """What live analyses found, the newest of each; the final ones when the run has ended."""
        return [msgspec.convert(each, AnalysisResult) for each in self.client.metadata.get("results") or ()]

    @property
    def files(self) -> list[FileReady]:
        """Its complete files, `run.files[0].path`, with size, checksum and problems, as the system's list has them.

        Frames that detectors wrote are in files of their own, which these link to.
        """
        return FileList((self._settings or load()).file_list).of(self.uid)

    @property
    def streams(self) -> list[str]:
        """Names of its streams, the main one first; its points are none."""
        names = set(self.client) - derived_streams(self.client.metadata)
        return sorted(names, key=lambda name: (name != _MAIN, name))

    def columns(self, stream: str | None = None, *, frames: bool = False) -> list[str]:
        """Give the data keys of a stream (of the main one if none is named): those with one number or text a point.

        `frames` adds those with arrays.
        """
        keys: Mapping[str, Any] = self._stream(stream).metadata["data_keys"]
        return [_own_name(stored, key) for stored, key in keys.items() if frames or _is_scalar(key)]

    # ── its data ──

    def xarray(self, stream: str | None = None, columns: Iterable[str] | None = None, *, frames: bool = False) -> Any:
        """Give a stream as `xarray.Dataset` along `time`: scalars only, unless frames or columns are asked for.

        Raises RefusedError for a stream or a column that is not there.
        """
        wanted = self._wanted(stream, columns, frames=frames)
        client = self._stream(stream)
        stored = {_own_name(name, key): name for name, key in client.metadata["data_keys"].items()}
        present = [each for each in ("seq_num", "time") if each in set(client)]
        read = client.read(variables=[*(stored[name] for name in wanted), *present])
        return read.rename({stored[name]: name for name in wanted if stored[name] != name})

    def table(self, stream: str | None = None, columns: Iterable[str] | None = None) -> Any:
        """Give a stream as `pandas.DataFrame`, a row a point, indexed by `seq_num` (from 1).

        Columns are the data keys with one value a point, and `time` (seconds since 1970) where events have one.
        """
        import numpy
        import pandas

        names = self._wanted(stream, columns)
        dataset = self.xarray(stream, names)
        present = [name for name in ("time", *names) if name in dataset.variables]
        found = {name: numpy.asarray(dataset[name].values) for name in present}
        length = max((len(values) for values in found.values()), default=0)
        numbers = dataset["seq_num"].values if "seq_num" in dataset.variables else numpy.arange(1, length + 1)
        columns_ = {name: pandas.Series(values.reshape(len(values), -1)[:, 0]) for name, values in found.items()}
        return pandas.DataFrame(columns_).set_index(pandas.Index(numbers, name="seq_num"))

    @property
    def points(self) -> Any:
        """Its scan points as `pandas.DataFrame`, a row a point, indexed by `seq_num`; also while it goes on.

        Columns are `time`, what the point read and what was joined to it with one value a point, the frames
        `<data key>_frames_start` and `…_stop` (one past the last) in the detector's own file, `point_revision`, and
        `point_missing`: empty, or a JSON list of what did not come. Raises RefusedError if the catalogue has none.
        """
        names = derived_streams(self.client.metadata) & set(self.client)
        if not names:
            raise RefusedError(
                f"the catalogue has no points of run {self.uid[:8]}: none came yet, or nobody bundled it; "
                "`callbacks.bundler.points(run.documents())` makes them",
                "no_stream",
            )
        table = self.table(min(names))
        return table[~table.index.duplicated(keep="last")].sort_index()  # a live one has revisions beside each other

    def csv(self, path: str | Path | None = None, stream: str | None = None) -> None:
        """Write a stream's scalars as comma-separated values, to the standard output if no path is given.

        Raises FileExistsError: nothing is overwritten.
        """
        table = self.table(stream)
        if path is None:
            self._write_csv(table, sys.stdout)
            return
        with Path(path).open("x", newline="", encoding="utf-8") as file:
            self._write_csv(table, file)

    def _write_csv(self, table: Any, file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seq_num", *table.columns])
        for row in table.itertuples():
            writer.writerow([value.item() if hasattr(value, "item") else value for value in row])

    def documents(self) -> Iterator[tuple[str, Document]]:
        """Give the run as event-model documents, as they are kept in the catalogue; without a stop if none came."""
        for name, document in recorded_documents(self.client.documents(), self.client.metadata):
            if name != "stop" or document:  # Tiled's clients make an empty one
                yield str(name), dict(document)

    def export(
        self,
        path: str | Path,
        format: str | None = None,  # noqa: A002  # the word people use
        *,
        prefix: str = "{uid}-",
        options: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Write the run to a file of documents (`run.jsonl`, `run.msgpack`), or with a format into a directory.

        Formats are csv, jsonl, msgpack, nexus, nxcansas, nxsas, spec, and what `export_run` says; `options` are those
        of the format. Gives the files. Raises RefusedError for another format, FileExistsError rather than overwrite.
        """
        path = Path(path)
        if format is None or (path.suffix and path.suffix == f".{format}"):
            write_documents(path, self.documents(), format)
            return [path]
        return export_run(self._settings or load(), self.documents(), path, format, prefix=prefix, options=options)

    def _stream(self, name: str | None) -> Any:
        streams = self.streams
        if not streams:
            raise RefusedError(f"run {self.uid[:8]} has no stream yet", "no_stream")
        if name is None:
            name = streams[0]
        if name not in streams and name not in derived_streams(self.client.metadata):
            raise RefusedError(f"run {self.uid[:8]} has no stream {name!r}: {choices(name, streams)}", "unknown_stream")
        return self.client[name]

    def _wanted(self, stream: str | None, columns: Iterable[str] | None, *, frames: bool = False) -> list[str]:
        if columns is None:
            return self.columns(stream, frames=frames)
        known = self.columns(stream, frames=True)
        wanted = list(columns)
        for name in wanted:
            if name not in known:
                raise RefusedError(
                    f"run {self.uid[:8]} has no column {name!r}: {choices(name, known)}", "unknown_column"
                )
        return wanted

    def __getitem__(self, key: str) -> Any:
        return self.client[key]

    def __repr__(self) -> str:
        start = self.start
        began = datetime.datetime.fromtimestamp(start["time"]).strftime(_LIKE_TIME)
        sample = f", sample {start['sample']}" if start.get("sample") else ""
        return (
            f"<run {self.scan_id} {self.uid[:8]}: {start.get('plan_name', '?')}{sample}, {began}, {self.exit_status}>"
        )


class Runs:
    """The stored runs, or those that a search found: by scan number, uid or its beginning, or -1 for the newest."""

    def __init__(self, catalog: Any, address: CatalogAddress | None = None, settings: Settings | None = None) -> None:
        self._settings = settings
        self.catalog = catalog
        """Tiled's client, databroker's `CatalogOfBlueskyRuns`; `catalog.v1` is databroker's Broker."""
        self.address = address
        """The server that is asked; None if the catalogue's files are read here."""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the catalogue, of a running system or of its files; raises SettingsError if there is none."""
        address = find_catalog(settings)
        return cls(open_catalog(settings, address), address, settings)

    def close(self) -> None:
        """Let go of the connection; harmless when repeated."""
        self.catalog.context.http_client.close()

    @property
    def _runs(self) -> Any:
        """The catalogue, with runs of the present kind: `v2` makes all catalogues of a process give older ones."""
        from bluesky_tiled_plugins.clients.bluesky_run import BlueskyRunV3

        self.catalog.structure_clients.set("BlueskyRun", lambda: BlueskyRunV3)
        return self.catalog

    @property
    def _in_order(self) -> Any:
        """The catalogue by start times: runs that were written again, or imported, come later than they began."""
        return self._runs.sort(("start.time", 1))

    @overload
    def __getitem__(self, which: int | str) -> Run: ...

    @overload
    def __getitem__(self, which: slice) -> list[Run]: ...

    def __getitem__(self, which: int | str | slice) -> Run | list[Run]:
        """Give a run, or the newest as a list, `[-5:]`; raises RefusedError if there is none, or several begin so."""
        if isinstance(which, slice):
            return self._newest(which)
        try:
            found = self._in_order if isinstance(which, int) and which <= 0 else self._runs
            return Run(found[which], self._settings)
        except (KeyError, IndexError, ValueError) as error:
            what = "uid" if isinstance(which, str) else "scan number" if which > 0 else "place"
            why = f"{len(self)} are there" if isinstance(error, IndexError) else str(error.args[0])
            raise RefusedError(f"no run of {what} {which!r}: {why}", "unknown_run") from None

    def _newest(self, places: slice) -> list[Run]:
        if places.start is None or places.start >= 0:
            raise RefusedError(
                "positive numbers are scan numbers, of which there are no slices: the newest five runs are [-5:], "
                "and search() finds others",
                "bad_slice",
            )
        wanted = range(len(self))[places]
        if not wanted:
            return []
        first = min(wanted)
        found = list(self._in_order.values()[first : max(wanted) + 1])
        return [Run(found[place - first], self._settings) for place in wanted]

    def __len__(self) -> int:
        return len(self.catalog)

    def __iter__(self) -> Iterator[Run]:
        """Give the runs, newest first."""
        for end in range(len(self), 0, -_PAGE):
            page = self._in_order.values()[max(0, end - _PAGE) : end]
            yield from (Run(client, self._settings) for client in reversed(page))

    def last(self, number: int = 10) -> list[Run]:
        """Give the newest runs, newest first."""
        return list(itertools.islice(self, number))

    def search(
        self,
        text: str | None = None,
        *,
        plan: str | None = None,
        sample: str | None = None,
        motor: str | None = None,
        detector: str | None = None,
        status: str | None = None,
        since: str | float | datetime.datetime | None = None,
        until: str | float | datetime.datetime | None = None,
        **metadata: Any,
    ) -> "Runs":
        """Give the runs that fit everything that is said.

        `text` is looked for in all metadata; `since` and `until` are times as `2026-11-26` or `2026-11-26 14:30` (local
        time), seconds since 1970 or datetimes; `status` is success, abort, fail or open (no stop document); other
        keywords are keys of the start document. Raises RefusedError for a time that cannot be read.
        """
        from tiled.queries import Contains, FullText, Key, KeyPresent

        queries: list[Any] = [Key(f"start.{key}") == value for key, value in metadata.items()]
        if text is not None:
            queries.append(FullText(text))
        if status == "open":
            queries.append(KeyPresent("stop.uid", exists=False))
            status = None
        for key, value in (("start.plan_name", plan), ("start.sample", sample), ("stop.exit_status", status)):
            if value is not None:
                queries.append(Key(key) == value)
        for key, value in (("start.motors", motor), ("start.detectors", detector)):
            if value is not None:
                queries.append(Contains(key, value))
        if since is not None:
            queries.append(Key("start.time") >= timestamp(since))
        if until is not None:
            queries.append(Key("start.time") <= timestamp(until))
        found = self.catalog
        for query in queries:
            found = found.search(query)
        return Runs(found, self.address, self._settings)

    def __repr__(self) -> str:
        shown = self.last(10)
        more = len(self) - len(shown)
        lines = [repr(run) for run in shown] + ([f"… and {more} older ones"] if more > 0 else [])
        return "\n".join(lines) or "no runs"


def _own_name(stored: str, key: Mapping[str, Any]) -> str:
    """Give the data key of a column that is stored under another name, since SQL refuses its own."""
    return str(key.get("data_key", stored))


def _is_scalar(key: Mapping[str, Any]) -> bool:
    return math.prod(int(size or 0) for size in key.get("shape") or ()) <= 1


def timestamp(when: str | float | datetime.datetime) -> float:
    """Give seconds since 1970 of a time, which may be written as `2026-11-26` or `2026-11-26 14:30` (local time)."""
    if isinstance(when, int | float):
        return float(when)
    try:
        moment = datetime.datetime.fromisoformat(when) if isinstance(when, str) else when
    except ValueError:
        raise RefusedError(f"{when!r} is no time: write it as 2026-11-26 or 2026-11-26T14:30", "bad_time") from None
    return moment.timestamp()
