"""`log`: who asked the scan server for what, and what became of it; also when nothing runs."""

import itertools
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky.cli._options import Beamline, DataDirectory, settings_of
from bec_bluesky.documents import timestamp
from bec_bluesky.messages.around_queue import Command
from bec_bluesky.people import CommandFile, Wanted

__all__ = ["log"]

_LOOK_AGAIN = 0.5
"""Seconds between two looks at what is new."""
_LONGEST = 80
"""Letters of what was asked."""
_WIDE = 300
"""Letters of a line where there is no terminal."""
_MOST_OF_A_MOMENT = 10_000
"""Commands that are remembered as shown."""


def log(
    context: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(help="words that must stand in the record")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    user: str = "",
    verb: Annotated[str, typer.Option(help="or a part of it: add, abort, lock, script, …")] = "",
    since: Annotated[str | None, typer.Option(help="2026-11-26 or 2026-11-26T14:30")] = None,
    until: Annotated[str | None, typer.Option(help="2026-11-26 or 2026-11-26T14:30")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="only what was refused or failed")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on showing what comes, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: one object a line")] = False,
    data: DataDirectory = None,
    beamline: Beamline = None,
) -> int:
    """Show who asked for what, and what became of it, newest last; also when nothing runs."""
    settings = settings_of(context, data_dir=data, beamline=beamline)
    wanted = Wanted(
        user=user,
        verb=verb,
        text=" ".join(text or []),
        since=0.0 if since is None else timestamp(since),
        until=float("inf") if until is None else timestamp(until),
        only_refused=refused,
    )
    file = CommandFile(settings.data_dir, settings.beamline)
    shown = list(itertools.islice(file.newest(wanted), limit))[::-1]
    _print(shown, as_json=as_json)
    while follow:
        time.sleep(_LOOK_AGAIN)
        last = shown[-1:]
        wanted = replace(wanted, since=last[0].time if last else wanted.since)
        new = [command for command in file.newest(wanted) if command not in shown][::-1]
        _print(new, as_json=as_json, has_title=False)
        shown = (shown + new)[-_MOST_OF_A_MOMENT:]
    return 0


def _print(commands: Iterable[Command], *, as_json: bool, has_title: bool = True) -> None:
    if as_json:
        for command in commands:
            typer.echo(msgspec.json.encode(command).decode())
        return
    table = Table(box=None, pad_edge=False, show_header=has_title)
    for column in ("time", "user", "from", "asked", "answer"):
        table.add_column(column, overflow="fold")
    for command in commands:
        table.add_row(*_row(command))
    if table.row_count:
        wide = None if sys.stdout.isatty() else _WIDE  # for grep: a command a line
        Console(highlight=False, markup=False, width=wide).print(table)


def _row(command: Command) -> tuple[str, ...]:
    moment = time.strftime("%m-%d %H:%M:%S", time.localtime(command.time))
    user = f"{command.user} ({command.user_group})" if command.user_group else command.user
    place = " on ".join(each for each in (command.program, command.host) if each)
    items = ", ".join(item[:8] for item in command.items[:3]) + (" …" if len(command.items) > 3 else "")
    is_well = command.outcome in ("done", "sent")
    answer = items or command.outcome if is_well else f"{command.outcome}: {command.answer}"
    return moment, user, place, f"{command.verb}  {_about(command.asked)}".rstrip(), answer


def _about(asked: dict[str, Any]) -> str:
    """Write what was asked in short."""
    rest = {
        name: value
        for name, value in asked.items()
        if name not in ("args", "kwargs", "action", "plan", "name", "device")
    }
    call = str(asked.get("plan") or asked.get("name") or asked.get("device") or "")
    if call:
        given = [*map(str, asked.get("args", [])), *(f"{k}={v}" for k, v in asked.get("kwargs", {}).items())]
        call += f"({', '.join(given)})"
    text = " ".join(" ".join([call, *(f"{name}={value}" for name, value in rest.items())]).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
