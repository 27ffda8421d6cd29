"""`data …`: find stored runs, read them, take them out and put them through callbacks again."""

import asyncio
import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky import embedded, plugins
from bec_bluesky.bus import Bus
from bec_bluesky.cli._arguments import parse_arguments
from bec_bluesky.cli._options import After, choose, settings_of
from bec_bluesky.documents import Run, Runs, given_up_runs, leave_given_up, read_documents, replay, upgraded
from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.products import FileReady
from bec_bluesky.settings import Settings

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find stored runs and read them.")
Which = Annotated[
    str, typer.Argument(help="scan number, uid or its beginning, `last`, or -2 for the one before", metavar="RUN")
]


_WITH_NEGATIVE = {"ignore_unknown_options": True}
"""For commands that take a RUN: -1 is one, and no option."""


data_app.callback()(choose)


def _run(settings: Settings, which: str) -> Run:
    is_number = which.removeprefix("-").isdecimal() and len(which) < 8  # longer ones are the beginnings of uids
    return Runs.open(settings)[-1 if which == "last" else int(which) if is_number else which]


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


@data_app.command("list")
def list_(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="words in the metadata")] = None,
    plan: Annotated[str | None, typer.Option("--plan")] = None,
    sample: Annotated[str | None, typer.Option("--sample")] = None,
    motor: Annotated[str | None, typer.Option("--motor")] = None,
    detector: Annotated[str | None, typer.Option("--detector")] = None,
    status: Annotated[str | None, typer.Option("--status", help="success, abort, fail or open")] = None,
    since: Annotated[str | None, typer.Option("--since", help="2026-11-26 or 2026-11-26T14:30")] = None,
    until: Annotated[str | None, typer.Option("--until")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
) -> int:
    """Show stored runs, newest first."""
    found = Runs.open(settings_of(context)).search(
        text, plan=plan, sample=sample, motor=motor, detector=detector, status=status, since=since, until=until
    )
    table = Table(box=None, pad_edge=False)
    for column in ("scan", "uid", "began", "plan", "motors", "sample", "status"):
        table.add_column(column, overflow="fold")
    for run in found.last(limit):
        start = run.start
        motors = ", ".join(map(str, start.get("motors") or ()))
        words = (str(run.scan_id), run.uid[:8], _moment(start["time"]), str(start.get("plan_name", "")), motors)
        table.add_row(*words, str(start.get("sample", "")), run.exit_status)
    Console(highlight=False, markup=False).print(table)
    if len(found) > limit:
        typer.echo(f"… and {len(found) - limit} older ones")
    return 0


@data_app.command(context_settings=_WITH_NEGATIVE)
def show(context: typer.Context, which: Which) -> int:
    """Show what a run is: its metadata, streams and columns."""
    run = _run(settings_of(context), which)
    start, stop = run.start, run.stop
    typer.echo(f"scan {run.scan_id}  {run.uid}  {start.get('plan_name', '')}  {run.exit_status}")
    typer.echo(f"from {_moment(start['time'])}" + (f" to {_moment(stop['time'])}" if stop else ", not closed"))
    if stop is not None and stop.get("reason"):
        typer.echo(f"reason: {stop['reason']}")
    counts = (stop or {}).get("num_events") or {}
    for stream in run.streams:
        scalars = run.columns(stream)
        arrays = [name for name in run.columns(stream, frames=True) if name not in scalars]
        number = f" {counts[stream]} points:" if stream in counts else ""
        typer.echo(f"{stream}:{number} {', '.join(scalars)}" + (f"; arrays: {', '.join(arrays)}" if arrays else ""))
    for file in run.files:
        typer.echo(f"{file.writer}: {file.path}, {file.size} bytes" + _if_gone(file))
        for problem in file.problems:
            typer.echo(f"  {problem}")
    typer.echo(json.dumps(start, indent=2, default=str))
    return 0


def _if_gone(file: FileReady) -> str:
    return "" if Path(file.path).exists() else "; it is not there any more"


@data_app.command(context_settings=_WITH_NEGATIVE)
def files(context: typer.Context, which: Which) -> int:
    """Print the paths of a run's files, one a line."""
    for file in _run(settings_of(context), which).files:
        typer.echo(file.path)
    return 0


@data_app.command(context_settings=_WITH_NEGATIVE)
def get(
    context: typer.Context,
    which: Which,
    stream: Annotated[str | None, typer.Option("--stream", help="the main one, if none is named")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="a file; else the terminal")] = None,
) -> int:
    """Write a stream's numbers as comma-separated values."""
    _run(settings_of(context), which).csv(output, stream)
    return 0


@data_app.command(context_settings=_WITH_NEGATIVE)
def export(
    context: typer.Context,
    which: Which,
    path: Annotated[Path, typer.Argument(help="a file that ends with .jsonl or .msgpack; with --format a directory")],
    format_: Annotated[
        str | None,
        typer.Option("--format", "-f", help="csv, jsonl, msgpack, nexus, nxcansas, nxsas, spec, or any suitcase"),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="of file names, from the start document")] = "{uid}-",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="of the format, as bins=200; may be repeated")
    ] = None,
) -> int:
    """Write a run's documents to a file, which `import` and `replay` read; or the run in another format."""
    unnamed, options = parse_arguments(option or [])
    if unnamed:
        raise BadArgumentError(f"--option {unnamed[0]}: write name=value")
    for made in _run(settings_of(context), which).export(path, format_, prefix=prefix, options=options):
        typer.echo(made)
    return 0


@data_app.command()
def unwritten(
    context: typer.Context,
    leave: Annotated[
        list[str] | None, typer.Option("--leave", help="uid, or its beginning, of one that stays so; may be repeated")
    ] = None,
) -> int:
    """Show the runs that writers gave up on and will write after their restart, with the reasons."""
    return asyncio.run(_show_unwritten(settings_of(context), leave or []))


async def _show_unwritten(settings: Settings, leave: list[str]) -> int:
    server = await asyncio.to_thread(embedded.find, settings)
    if server is None:
        raise RefusedError(f"no Redis of {settings.data_dir} runs, which has the documents: `bec-bluesky up`", "not_up")
    required = plugins.read_profile(settings).required
    async with Bus(server.url, settings.beamline) as bus:
        runs = await given_up_runs(bus)
        for word in leave:
            found = [run for run in runs if run.startswith(word)]
            if len(found) != 1:
                raise RefusedError(
                    f"{len(found)} runs that were given up begin with {word!r}: {list(runs)}", "unknown_run"
                )
            await leave_given_up(bus, found[0], required)
            del runs[found[0]]
            typer.echo(f"{found[0]} stays unwritten; a service that is degraded by it says so until it is restarted")
    for run, reasons in runs.items():
        for writer, reason in reasons.items():
            typer.echo(f"{run} {writer}: {reason}")
    return 0


@data_app.command("import")
def import_(context: typer.Context, path: Path, after: After = False) -> int:
    """Put the runs of a file of documents into the catalogue and wherever else the profile keeps runs."""
    settings = settings_of(context)
    required = sorted(plugins.read_profile(settings).required)
    return _replay(settings, path, required, None, at_speed=False, after=after)


@data_app.command("replay")
def replay_(
    context: typer.Context,
    path: Path,
    only: Annotated[list[str] | None, typer.Option("--only", help="name in profile.toml; may be repeated")] = None,
    directory: Annotated[Path | None, typer.Option("--directory", help="for files, instead of the usual one")] = None,
    at_speed: Annotated[bool, typer.Option("--at-speed", help="as fast as it was")] = False,
    after: After = False,
) -> int:
    """Feed the documents of a file to the profile's callbacks and writers, without a running system."""
    return _replay(settings_of(context), path, only, directory, at_speed=at_speed, after=after)


def _replay(
    settings: Settings, path: Path, only: list[str] | None, directory: Path | None, *, at_speed: bool, after: bool
) -> int:
    made: Counter[str] = Counter()

    def take(product: Any) -> None:
        made[type(product).__name__] += 1
        if hasattr(product, "path"):
            typer.echo(f"{product.writer}: {product.path}")

    documents, how = upgraded(read_documents(path)), {"at_speed": at_speed, "outward": after}
    runs = replay(settings, documents, emit=take, only=only, directory=directory, **how)
    counts = ", ".join(f"{number} {name}" for name, number in sorted(made.items())) or "nothing"
    typer.echo(f"{len(runs)} runs: {counts}")
    return 0
