"""Exports a run as the NeXus file that `writers.nexus` makes of it."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from bec_bluesky.documents import Document, FileReady, file_prefix
from writers.nexus import NexusWriter

__all__ = ["export"]


def export(
    gen: Iterable[tuple[str, Document]], directory: str | Path, file_prefix: str = "{uid}-"
) -> dict[str, list[Path]]:
    """Write one run into `<file_prefix>.nxs`; give `{"nexus": [path]}`. Raises FileExistsError if it is there."""
    documents = iter(gen)
    first = next(documents)
    ready: list[FileReady] = []
    folder = Path(directory).expanduser()
    path = folder / f"{_stem(file_prefix, first[1])}.nxs"
    if path.exists():
        raise FileExistsError(f"{path} is there already: it is not overwritten")
    writer = NexusWriter(directory=folder, template=path.name, emit=lambda made: _keep(made, ready))
    try:
        for name, document in _one_run(chain([first], documents)):
            writer(name, document)
    finally:
        writer.close()
    if not ready:
        raise FileExistsError(f"{folder} holds this run already: nothing is written twice")
    return {"nexus": [Path(made.path) for made in ready]}


def _stem(template: str, start: Document) -> str:
    return file_prefix(template, start).rstrip("-_.") or "run"


def _keep(made: object, ready: list[FileReady]) -> None:
    if isinstance(made, FileReady):
        ready.append(made)


def _one_run(documents: Iterable[tuple[str, Document]]) -> Iterator[tuple[str, Document]]:
    """Give the documents, and a stop document if the run has none yet: the file is closed with what is known."""
    start: Document = {}
    name, document = "", start
    for name, document in documents:
        start = document if name == "start" else start
        yield name, document
    if name != "stop":
        moment = document.get("time", start["time"])
        yield "stop", {"uid": f"{start['uid']}-unfinished", "run_start": start["uid"], "time": moment} | _UNFINISHED


_UNFINISHED = {"exit_status": "abort", "reason": "the run had no stop document when it was exported", "num_events": {}}
