"""Runs out of the catalogue, in the formats that people ask for."""

import contextlib
import functools
import importlib.util
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bec_bluesky import plugins
from bec_bluesky.documents._callback import Document
from bec_bluesky.documents._files import write_documents
from bec_bluesky.documents._prefix import file_prefix, metadata_word
from bec_bluesky.errors import PlugInError, RefusedError, choices
from bec_bluesky.settings import Settings

__all__ = ["export_run"]

Exporter = Callable[..., Mapping[str, list[Any]]]
"""`(documents, directory, file_prefix=…) -> {label: [path, …]}`, as the suitcases of Bluesky have it."""

_OURS = {"csv": "writers.tables:export", "nexus": "writers.nexus_export:export", "nxsas": "writers.nxsas:export"}
_OURS |= {"nxcansas": "writers.nxcansas:export"}
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
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write one run into a directory as csv, jsonl, msgpack, nexus, nxcansas, nxsas, spec; give the files.

    A format may also be the name of an installed suitcase (`tiff_series`), or `module:function` with the signature of a
    suitcase's `export`. `prefix` is a template over the start document, `options` are those of the format. Raises
    RefusedError for a format or an option that is not there or an impossible prefix, FileExistsError rather than
    overwrite. What fails leaves no empty directory.
    """
    rest = iter(documents)
    first = next(rest, None)
    if first is None or first[0] != "start":
        raise RefusedError("these documents begin with no start document, so they are no run", "bad_document")
    beginning, run = file_prefix(prefix, first[1]), itertools.chain([first], rest)
    plugins.mount(settings)
    exporter = _exporter(format)
    _check_options(format, exporter, options or {})
    with _directory(Path(directory).expanduser()) as folder:
        artifacts = exporter(run, str(folder), file_prefix=beginning, **(options or {}))
    return [Path(path) for paths in artifacts.values() for path in paths]


@contextlib.contextmanager
def _directory(folder: Path) -> Iterator[Path]:
    """Make a directory; if nothing comes into it, take it and those above it away again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty
            for path in made:
                path.rmdir()
        raise


def _check_options(format: str, exporter: Exporter, options: Mapping[str, Any]) -> None:  # noqa: A002
    parameters = inspect.signature(exporter).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in ("gen", "directory", "file_prefix")]
    for option in options:
        if option not in known:
            raise RefusedError(f"{format} has no option {option!r}: {choices(option, known)}", "bad_option")


def _exporter(format: str) -> Exporter:  # noqa: A002
    if ":" in format:
        return plugins.load_object(format)
    if format in _DOCUMENTS:
        return functools.partial(_export_documents, format)
    if format in _OURS:
        return plugins.load_object(_OURS[format])
    suitcase = f"suitcase.{_SUITCASES.get(format, format)}"
    try:
        is_there = format.isidentifier() and importlib.util.find_spec(suitcase) is not None
    except ModuleNotFoundError:  # no suitcase at all
        is_there = False
    if is_there:
        exporter = plugins.load_object(f"{suitcase}:export")
        return functools.partial(_export_spec, exporter) if format == "spec" else exporter
    if format in _SUITCASES:
        package = suitcase.replace(".", "-")
        raise PlugInError(f"format {format!r} needs {package}: `pip install 'bec-bluesky[exports]'`")
    known = sorted({*_OURS, *_DOCUMENTS, *_SUITCASES})
    raise RefusedError(f"no format {format!r}: {choices(format, known)}", "unknown_format")


def _export_documents(
    format: str,  # noqa: A002
    gen: Iterable[tuple[str, Document]],
    directory: str,
    file_prefix: str,
) -> dict[str, list[Path]]:
    path = Path(directory) / f"{file_prefix.rstrip('-_') or 'run'}.{format}"
    write_documents(path, gen, format)
    return {"all": [path]}


def _export_spec(
    exporter: Exporter, gen: Iterable[tuple[str, Document]], directory: str, file_prefix: str
) -> Mapping[str, list[Any]]:
    """Let the suitcase find the user, whom it looks for as `owner`, and name the file without a dash at the end."""

    def owned(name: str, doc: Document) -> tuple[str, Document]:
        owner = doc.get("owner") or metadata_word(doc, "user") if name == "start" else ""
        return name, dict(doc) | {"owner": str(owner)} if owner else doc

    return exporter(itertools.starmap(owned, gen), directory, file_prefix=file_prefix.rstrip("-_") or "run")
