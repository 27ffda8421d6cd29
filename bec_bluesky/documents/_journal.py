"""The documents of one run, kept for a sink that may have to begin again."""

import struct
import tempfile
import threading

from bec_bluesky.documents._callback import Document
from bec_bluesky.messages import pack, unpack

__all__ = ["DocumentJournal"]

_IN_MEMORY = 2**20
_HEADER = struct.Struct("<I")


class DocumentJournal:
    """Documents in order, readable from any place by another thread.

    The first MB is in memory, more goes to an unnamed temporary file, which vanishes with the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # lives as long as the journal
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far; also the place at which the next document will be."""
        return self._size

    def append(self, name: str, doc: Document) -> None:
        """Keep a document as it is now; raises TypeError if it holds what cannot be encoded."""
        record = pack((name, doc))
        with self._lock:
            self._file.seek(self._size)
            self._file.write(_HEADER.pack(len(record)))
            self._file.write(record)
            self._size += _HEADER.size + len(record)

    def read(self, place: int, most: int) -> tuple[list[tuple[str, dict[str, object]]], int]:
        """Give at most so many documents from a place on, and the place after them; 0 is the start document."""
        records: list[bytes] = []
        with self._lock:
            self._file.seek(place)
            while place < self._size and len(records) < most:
                (length,) = _HEADER.unpack(self._file.read(_HEADER.size))
                records.append(self._file.read(length))
                place += _HEADER.size + length
        documents: list[tuple[str, dict[str, object]]] = [(name, doc) for name, doc in map(unpack, records)]
        return documents, place

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._file.close()
            self._size = 0
