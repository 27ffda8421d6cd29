"""Runs as files of documents: JSON lines, or msgpack."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bec_bluesky.documents._callback import Document
from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.messages import encode, unpack

__all__ = ["read_documents", "write_documents"]

_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".msgpack": "msgpack"}
_NUMPY = {b"nd", b"type", b"shape", b"data"}
"""What msgpack-numpy, and so suitcase-msgpack, writes for an array."""


def write_documents(path: str | Path, documents: Iterable[tuple[str, Document]], format: str | None = None) -> None:  # noqa: A002  # the word people use
    """Write documents: `jsonl` is a line `[name, document]` each, `msgpack` such pairs one after the other.

    Without a format the file's ending tells it. Arrays become lists in JSON; msgpack keeps them. Raises
    FileExistsError (nothing is overwritten), and RefusedError for another format.
    """
    path = Path(path)
    kind = _format_of(path, format)
    with path.open("xb") as file:
        try:
            for name, document in documents:
                if kind == "jsonl":
                    text = json.dumps([name, _plain(document)], ensure_ascii=False)
                    file.write(text.encode(errors="replace") + b"\n")
                else:
                    file.write(encode([name, document]))
            file.flush()
        except BaseException:  # half a run must not look like a whole one
            path.unlink(missing_ok=True)
            raise


def read_documents(path: str | Path, format: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: A002
    """Read what `write_documents`, suitcase-jsonl, suitcase-msgpack or bluesky's JSONWriter and JSONLinesWriter wrote.

    Raises RefusedError that names the line of a mistake.
    """
    path = Path(path)
    kind = _format_of(path, format)
    raw = _lines(path) if kind == "jsonl" else _packed(path)
    for number, pair in enumerate(raw, start=1):
        match pair:
            case [str(name), dict(document)] | {"name": str(name), "doc": dict(document)}:
                yield name, document
            case _:
                raise RefusedError(f"{path}: document {number} is no [name, document]", "bad_document")


def _format_of(path: Path, asked: str | None) -> str:
    kind = asked or _FORMATS.get(path.suffix, "")
    if kind not in _FORMATS.values():
        known = sorted(set(_FORMATS.values()))
        raise RefusedError(f"no format {kind or path.name!r}: {choices(kind or path.suffix, known)}", "unknown_format")
    return kind


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        if path.suffix == ".json":
            found = _array(path, file.read())
            if found is not None:
                yield from found
                return
            file.seek(0)
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RefusedError(f"{path}, line {number}: {error}", "bad_document") from None


def _array(path: Path, text: bytes) -> list[Any] | None:
    """Read a file that is one JSON array of documents; None if it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None  # lines, perhaps: they are told one by one
    return found if isinstance(found, list) and not (len(found) == 2 and isinstance(found[0], str)) else None


def _packed(path: Path) -> Iterator[Any]:
    import msgpack

    data = path.read_bytes()
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(data)
    begin = 0
    try:
        while begin < len(data):
            unpacker.skip()
            end = unpacker.tell()
            yield _with_arrays(unpack(data[begin:end]))
            begin = end
    except (msgpack.UnpackException, msgspec.MsgspecError, ValueError) as error:
        raise RefusedError(f"{path}, byte {begin}: {error or 'the file ends in a document'}", "bad_document") from None


def _with_arrays(value: Any) -> Any:
    """Make arrays of what msgpack-numpy wrote for them."""
    if isinstance(value, dict):
        if value.keys() >= _NUMPY or (value.keys() >= _NUMPY - {b"shape"} and not value.get(b"nd")):
            import numpy

            array = numpy.frombuffer(value[b"data"], numpy.dtype(_text(value[b"type"])))
            return array.reshape(value[b"shape"]) if value[b"nd"] else array[0]
        return {_text(key): _with_arrays(each) for key, each in value.items()}
    return [_with_arrays(each) for each in value] if isinstance(value, list) else value


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    """Make a value fit for JSON: arrays become lists, what JSON has no word for becomes text.

    NaN and the infinities are written as Python reads them.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    return value if isinstance(value, str | int | float | None) else str(value)
