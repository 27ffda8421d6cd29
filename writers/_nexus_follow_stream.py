"""The columns of one stream in a file that others read while it grows."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from writers._nexus_column import GrowingDataset
from writers._nexus_stream import StreamTable
from writers._nexus_text import set_attributes

__all__ = ["StreamCopy"]

_LARGEST = 65_536
"""Bytes of one value; columns of larger ones are not copied."""
_CHUNK_BYTES = 65_536
_MOST_CHUNK_ROWS = 1_024
_BLOCK_BYTES = 4 * 2**20
"""Copied at once, when a file begins with what was there before."""
_TEXT_LENGTH = 64
"""Bytes for texts, at least: HDF5's texts of any length are not for files that are read along."""
_COUNT = "seq_num"
"""Grows last, so that who looks at it first finds as many rows of all other columns."""


class StreamCopy:
    """One file of columns: `begin` makes it with what the stream has, `extend` copies the rows that came."""

    def __init__(self, path: Path, text_lengths: Mapping[str, int]) -> None:
        self.path = path
        self.text_lengths = dict(text_lengths)
        """{path of a column of texts: bytes}"""
        self.left_out: list[str] = []
        """Names of columns whose values are too large."""
        self._sources: dict[str, h5py.Dataset] = {}
        """What the run's file has, as it was when this one was made."""
        self._columns: dict[str, tuple[h5py.Dataset, h5py.Dataset]] = {}
        """{path: (where the run's file has it, where it is here)}"""
        self._rows = 0
        self._file: h5py.File | None = None

    def begin(self, stream: StreamTable) -> None:
        """Make the file, which must not be there, without rows."""
        self._sources = _sources(stream)
        self._file = file = h5py.File(self.path, "x", libver="latest", rdcc_nbytes=_CHUNK_BYTES)
        file.create_group("timestamps")
        for member, column in stream.datasets():
            self._add(file, member, column)
        file.swmr_mode = True

    @property
    def members(self) -> list[str]:
        """What the root of the file has."""
        return [*(path for path in self._columns if "/" not in path), "timestamps"]

    def fits(self, stream: StreamTable) -> bool:
        """Tell whether the stream has the columns still that this file was made for."""
        found = _sources(stream)
        return found.keys() == self._sources.keys() and all(found[path] is self._sources[path] for path in found)

    def extend(self, stream: StreamTable) -> bool:
        """Copy what the stream has got, and let readers see it; False if a text is too long for this file."""
        if stream.rows == self._rows:
            return True
        assert self._file is not None
        for path in self._columns:
            if path != _COUNT and not self._copy(path, stream.rows):
                return False
        self._file.flush()
        self._copy(_COUNT, stream.rows)
        self._file.flush()
        self._rows = stream.rows
        return True

    def close(self) -> None:
        """Close the file; raises OSError or RuntimeError if that fails."""
        self._columns.clear()
        self._sources.clear()
        if self._file is not None:
            self._file.close()

    def _add(self, file: h5py.File, path: str, column: GrowingDataset) -> None:
        if (source := column.dataset) is None:
            return
        dtype = source.dtype
        if h5py.check_string_dtype(dtype) is not None:
            dtype = h5py.string_dtype(length=self.text_lengths.setdefault(path, _TEXT_LENGTH))
        row_bytes = dtype.itemsize * int(np.prod(source.shape[1:]))
        if row_bytes > _LARGEST:
            self.left_out.append(path)
            return
        rows = max(1, min(_MOST_CHUNK_ROWS, _CHUNK_BYTES // max(1, row_bytes)))
        shape = source.shape[1:]
        target = file.create_dataset(
            path, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *(max(1, each) for each in shape))
        )
        set_attributes(target, column.attributes)
        if "encoding" in source.attrs:
            target.attrs["encoding"] = source.attrs["encoding"]
        self._columns[path] = source, target

    def _copy(self, path: str, end: int) -> bool:
        source, target = self._columns[path]
        row_bytes = max(1, target.dtype.itemsize * int(np.prod(target.shape[1:])))
        step = max(1, _BLOCK_BYTES // row_bytes)
        begin = target.shape[0]
        target.resize(end, axis=0)
        for row in range(begin, end, step):
            values = source[row : min(end, row + step)]
            if path in self.text_lengths:
                longest = max(map(len, values))
                if longest > self.text_lengths[path]:
                    self.text_lengths[path] = max(longest, min(2 * longest, _LARGEST))
                    return False
                values = values.astype(target.dtype)
            target[row : row + len(values)] = values
        return True


def _sources(stream: StreamTable) -> dict[str, h5py.Dataset]:
    return {path: column.dataset for path, column in stream.datasets() if column.dataset is not None}
