"""`replay`: files of documents through callbacks and writers once more, without a running system."""

import enum
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bec_bluesky import plugins
from bec_bluesky.cli._options import After, Beamline, DataDirectory, ProfileDirectory, settings_of
from bec_bluesky.documents import Document, read_documents, replay, upgraded
from bec_bluesky.errors import RefusedError
from bec_bluesky.settings import Settings

__all__ = ["replay_files"]

_RUN_FILES = (".nxs", ".nx5", ".h5", ".hdf5")


class Speed(enum.StrEnum):
    """How fast documents come."""

    FULL = "full"
    ORIGINAL = "original"


def replay_files(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="documents (.jsonl, .json, .msgpack), or run files (.nxs)")],
    into: Annotated[Path, typer.Option("--into", help="directory for files and products")],
    writers: Annotated[
        list[str] | None, typer.Option("--writers", "-w", help="name in profile.toml; may be repeated")
    ] = None,
    speed: Annotated[Speed, typer.Option("--speed", help="as fast as can be, or as fast as it was")] = Speed.FULL,
    after: After = False,
    data: DataDirectory = None,
    beamline: Beamline = None,
    profile: ProfileDirectory = None,
) -> int:
    """Put runs from files through the bundler, analyses and writers of the profile; older documents are understood.

    Points and results are lines of `products.jsonl` in the directory. Without --writers all are used that need no
    running system; `data import` puts runs into the catalogue.
    """
    settings = settings_of(context, data_dir=data, beamline=beamline, profile=profile)
    into = into.expanduser().absolute()
    into.mkdir(parents=True, exist_ok=True)
    made: Counter[str] = Counter()
    with (into / "products.jsonl").open("a", encoding="utf-8") as products:

        def take(product: Any) -> None:
            made[type(product).__name__] += 1
            products.write(json.dumps(msgspec.structs.asdict(product), default=_plain) + "\n")
            if hasattr(product, "path"):
                typer.echo(f"{product.writer}: {product.path}")
            elif hasattr(product, "text"):
                typer.echo(f"{product.source}: {product.text}", err=True)

        here = settings.with_(data_dir=into)
        runs: list[str] = []
        for path in files:
            documents = upgraded(_documents(here, path))
            how = {"at_speed": speed is Speed.ORIGINAL, "offline": True, "outward": after}
            runs += replay(here, documents, emit=take, only=writers, directory=into, **how)
    counts = ", ".join(f"{number} {name}" for name, number in sorted(made.items())) or "nothing"
    typer.echo(f"{len(runs)} runs: {counts}")
    return 0


def _documents(settings: Settings, path: Path) -> Iterator[tuple[str, Document]]:
    if not path.exists():
        raise RefusedError(f"{path} is not there: name a file of documents, or a run file", "no_file")
    if path.suffix in _RUN_FILES:
        plugins.mount(settings)
        return plugins.load_object("writers.nexus:read_documents")(path)
    return read_documents(path)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
