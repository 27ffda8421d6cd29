"""One run on its way into Tiled: bluesky's own writer, with columns whose type does not hang on their first values.

Import this late: bluesky_tiled_plugins takes two seconds.
"""

from collections import defaultdict
from typing import Any, Self

from bluesky_tiled_plugins.utils import truncate_json_overflow
from bluesky_tiled_plugins.writing.tiled_writer import (
    RESERVED_DATA_KEYS,
    RunNormalizer,
    _RunWriter,  # pyright: ignore[reportPrivateUsage]  # there is no public way to flush by time
)
from event_model import DocumentNames
from tiled.structures.core import Spec

from writers._tiled_column import Column

__all__ = ["Columns", "ColumnsChanged", "QuickNormalizer", "RunTables"]

Columns = dict[tuple[str, str], Column]
"""By (stream, data key)."""
_NEVER = 2**62
_HDF5 = "application/x-hdf5"


class ColumnsChanged(Exception):
    """Values came that do not fit the columns that are stored: write the run again with these."""

    def __init__(self, columns: Columns, changed: Columns) -> None:
        what = ", ".join(f"{stream}/{key} becomes {column.kind}" for (stream, key), column in sorted(changed.items()))
        super().__init__(what)
        self.columns = columns


class QuickNormalizer(RunNormalizer):
    """Upstream's normaliser without the deep copy and the validation of events that are normal already."""

    def event(self, doc: Any) -> None:
        """Pass on an event of internal data; everything else goes the long way."""
        if self._ext_keys or self.patches or any(name in doc["data"] for name in RESERVED_DATA_KEYS):
            super().event(doc)
        else:
            self.dispatcher.process(DocumentNames.event, doc)


class RunTables(_RunWriter):
    """Upstream's writer of one run; it writes when `flush()` is called, and sends each row once."""

    def __init__(self, client: Any, columns: Columns, metadata: dict[str, Any] | None = None) -> None:
        """Take the run's own metadata, which are there from its first moment beside the start document."""
        # SQLite's tables have no arrays: all go to Zarr
        super().__init__(client, batch_size=_NEVER, max_array_size=0)
        self._catalog = client
        self._metadata = metadata or {}
        self.columns: Columns = dict(columns)
        """As far as they are known; a run that is written again begins with them."""
        self._declared: dict[str, dict[str, Any]] = defaultdict(dict)
        self.rows: dict[str, int] = defaultdict(int)
        """Rows written, by stream."""
        self.frames: dict[str, list[int]] = {}
        """Shapes of what is in the detectors' own files, by `stream/data key`."""

    def beside(self, columns: Columns) -> Self:
        """Give another writer of this run, for a stream that its documents know nothing of."""
        other = type(self)(self._catalog, columns)
        other.root_node, other.access_tags = self.root_node, self.access_tags
        return other

    def start(self, doc: Any) -> None:
        """Make the run's node."""
        start = {key: value for key, value in doc.items() if key not in ("tiled_access_tags", "tiled_specs")}
        specs = [Spec(of) if isinstance(of, str) else Spec(**of) for of in doc.get("tiled_specs") or ()]
        self.access_tags = doc.get("tiled_access_tags")
        self.root_node = self._catalog.create_container(
            key=doc["uid"],
            metadata={"start": truncate_json_overflow(start), **self._metadata},
            specs=[*specs, Spec("BlueskyRun", version="3.0")],
            access_tags=self.access_tags,
        )

    def descriptor(self, doc: Any) -> None:
        """Take a descriptor; which columns are arrays is for `_fit` to say."""
        super().descriptor(doc)
        self._declared[doc["name"]].update(doc["data_keys"])
        self._int_array_keys[doc["name"]].clear()
        self._int_ragged_array_keys[doc["name"]].clear()

    def stop(self, doc: Any) -> None:
        """Write what is left, then the stop document; the run is complete when that is there."""
        self.flush()  # upstream's stop leaves the cache of stream datums as it is: they would be written twice
        super().stop(doc)

    def put_metadata(self, metadata: dict[str, Any]) -> None:
        """Put something into the run's metadata, beside its start document; it replaces what was there."""
        if self.root_node is None:
            raise RuntimeError("the start document comes before everything else")
        self.root_node.update_metadata(metadata=metadata, drop_revision=True)

    def put_facts(self, stream: str, metadata: dict[str, Any]) -> None:
        """Put something into the metadata of a stream."""
        self._desc_nodes[stream].update_metadata(metadata=metadata, drop_revision=True)

    def flush(self) -> None:
        """Write what has come since the last time; raises ColumnsChanged if it does not fit."""
        for stream, rows in self._internal_data_cache.items():
            if rows:
                self._write_internal_data(rows, desc_node=self._desc_nodes[stream])
                rows.clear()
        for doc in self._external_data_cache.values():
            self._write_external_data(doc)
        self._external_data_cache.clear()

    def _write_internal_data(self, data_cache: list[dict[str, Any]], desc_node: Any) -> None:
        stream = desc_node.item["id"]
        count = len(data_cache)
        self._fit(stream, data_cache)
        super()._write_internal_data(data_cache, desc_node)
        self.rows[stream] += count

    def _append_with_retry(self, df_client: Any, table: Any, desc_name: str) -> None:
        # upstream repeats an append whose answer was lost, which may double rows; here the run is written again
        df_client.append_partition(0, table)

    def _write_external_data(self, doc: Any) -> None:
        node, consolidator, patch = self._update_consolidator(doc)
        source = consolidator.get_data_source()
        if (frames := _announced_frames(consolidator)) is not None:
            source.parameters.setdefault("slice", f":{frames}")
        self._update_data_source_for_node(node, source, patch)

    def _update_consolidator(self, doc: Any) -> Any:
        node, consolidator, patch = super()._update_consolidator(doc)
        stream = self._desc_nodes[doc["descriptor"]].item["id"]
        self.frames[f"{stream}/{consolidator.data_key}"] = [int(length) for length in consolidator.shape]
        return node, consolidator, patch

    def _fit(self, stream: str, rows: list[dict[str, Any]]) -> None:
        """Turn the rows' values into what their columns hold; a column without rows yet is widened instead."""
        declared = self._declared[stream]
        others = {"seq_num", "time"} | {f"ts_{key}" for key in declared}
        keys = {key for row in rows for key in row} | {key for name, key in self.columns if name == stream}
        keys -= others
        changed: Columns = {}
        for key in keys:
            known = self.columns.get((stream, key))
            before = known or Column.declared(declared.get(key, {}))
            after = before.holding(row.get(key) for row in rows)  # a value that is missing is None
            self.columns[stream, key] = after
            if self.rows[stream] and (after != before or known is None):
                changed[stream, key] = after
        if changed:
            raise ColumnsChanged(self.columns, changed)
        for key in keys:
            column = self.columns[stream, key]
            for row in rows:
                row[key] = column.converted(row.get(key))
            if column.kind == "array":
                self._int_array_keys[stream].add(key)
                self.data_keys[key] = self.data_keys.get(key, {}) | {"dtype_numpy": column.dtype}  # pyright: ignore[reportArgumentType]  # a dict all the same


def _announced_frames(consolidator: Any) -> int | None:
    """Give how much of an HDF5 dataset, along its first axis, the documents have announced; None if that is not clear.

    A detector may write more than that, if its run is aborted while it exposes; Tiled refuses arrays of another size.
    """
    if consolidator.mimetype != _HDF5 or len(consolidator.assets) != 1:
        return None
    (rows, *_), frame = consolidator.shape, consolidator.datum_shape
    if not frame or frame[0] == 1 or len(consolidator.chunk_shape) > len(frame):
        return int(rows)
    # several frames a point: they follow each other along the first axis
    return int(rows * frame[0]) if len(consolidator.chunk_shape) == len(frame) else None
