"""Runs out of the catalogue, in the formats that people ask for."""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bec_bluesky import plugins
from bec_bluesky.documents._callback import Document
from bec_bluesky.documents._files import write_documents
from bec_bluesky.documents._prefix import file_prefix
from bec_bluesky.errors import PlugInError, RefusedError, choices
from bec_bluesky.settings import Settings

__all__ = ["export_run"]

Exporter = Callable[..., Mapping[str, list[Any]]]
"""`(documents, directory, file_prefix=…) -> {label: [path, …]}`, as the suitcases of Bluesky have it."""

_OURS = {"csv": "writers.tables:export", "nexus": "writers.nexus_export:export", "nxsas": "writers.nxsas:export"}
_DOCUMENTS = ("jsonl", "msgpack")
_SUITCASES = {"spec": "specfile"}
"""Formats whose suitcase has another name; any other format is a suitcase of its own name, if that is installed."""


def export_run(
    settings: Settings,
    documents: Iterable[tuple[str, Document]],
    directory: str | Path,
    format: str,  # noqa: A002  # the word people use
    *,
    prefix: str = "{uid}-",
) -> list[Path]:
    """Write one run into a directory as csv, jsonl, msgpack, nexus, nxsas, spec; give the files.

    A format may also be the name of an installed suitcase (`tiff_series`), or `module:function` with the signature of a
    suitcase's `export`. `prefix` is a template over the start document. Raises RefusedError for a format that is not
    there or an impossible prefix, FileExistsError rather than overwrite.
    """
    folder = Path(directory).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    rest = iter(documents)
    first = next(rest, None)
    if first is None or first[0] != "start":
        raise RefusedError("these documents begin with no start document, so they are no run", "bad_document")
    beginning, run = file_prefix(prefix, first[1]), itertools.chain([first], rest)
    if format in _DOCUMENTS:
        path = folder / f"{beginning.rstrip('-_') or 'run'}.{format}"
        write_documents(path, run, format)
        return [path]
    plugins.mount(settings)
    artifacts = _exporter(format)(run, str(folder), file_prefix=beginning)
    return [Path(path) for paths in artifacts.values() for path in paths]


def _exporter(format: str) -> Exporter:  # noqa: A002
    if ":" in format:
        return plugins.load_object(format)
    if format in _OURS:
        return plugins.load_object(_OURS[format])
    suitcase = f"suitcase.{_SUITCASES.get(format, format)}"
    try:
        is_there = format.isidentifier() and importlib.util.find_spec(suitcase) is not None
    except ModuleNotFoundError:  # no suitcase at all
        is_there = False
    if is_there:
        return plugins.load_object(f"{suitcase}:export")
    if format in _SUITCASES:
        package = suitcase.replace(".", "-")
        raise PlugInError(f"format {format!r} needs {package}: `pip install 'bec-bluesky[exports]'`")
    known = sorted({*_OURS, *_DOCUMENTS, *_SUITCASES})
    raise RefusedError(f"no format {format!r}: {choices(format, known)}", "unknown_format")
