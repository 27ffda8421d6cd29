"""`history` and `rerun`: look for what ended, and add it once more."""

import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky.cli._arguments import parse_arguments
from bec_bluesky.cli._options import Chosen, connected, settings_of
from bec_bluesky.client import PastItems, call_text
from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages.queue import QueueItem

__all__ = ["history", "rerun"]

When = Annotated[str | None, typer.Option(help="2026-11-26 or 2026-11-26T14:30")]


def history(
    context: typer.Context,
    text: Annotated[
        list[str] | None, typer.Argument(help="words in plan, title, note, sample, user, reason, names of devices")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    plan: str = "",
    user: str = "",
    sample: str = "",
    status: Annotated[str, typer.Option(help="completed, failed, stopped, aborted, halted or unknown")] = "",
    queue: Annotated[str, typer.Option(help="the queue in which it ran; none: any")] = "",
    since: When = None,
    until: When = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: one object a line")] = False,
) -> int:
    """Show what ended, newest first."""
    chosen = context.find_object(Chosen)
    queue = queue or ("" if chosen is None else chosen.queue)
    with connected(settings_of(context)) as client:
        past = client.history(
            " ".join(text or []),
            plan=plan,
            user=user,
            sample=sample,
            status=status,
            queue=queue,
            since=since,
            until=until,
        )
        if as_json:
            for item in past.first(limit):
                typer.echo(msgspec.json.encode(item).decode())
        else:
            _print(past, limit)
    return 0


def _print(past: PastItems, limit: int) -> None:
    items = past.first(limit + 1)
    table = Table(box=None, pad_edge=False)
    for column in ("ended", "item", "call", "scans", "by", "status", "reason"):
        table.add_column(column, overflow="fold")
    for item in items[:limit]:
        table.add_row(*_row(item))
    Console(highlight=False, markup=False).print(table)
    if len(items) > limit:
        typer.echo(f"… and older ones (-n {2 * limit} shows more)")


def _row(item: QueueItem) -> tuple[str, ...]:
    result = item.result
    if result is None:
        return "", item.item_id[:8], call_text(item), "", item.user, "", ""
    ended = time.strftime("%m-%d %H:%M:%S", time.localtime(result.time_stop))
    scans = ", ".join(map(str, result.scan_ids))
    return ended, item.item_id[:8], call_text(item), scans, item.user, result.exit_status, result.reason


def rerun(
    context: typer.Context,
    which: Annotated[str, typer.Argument(help="scan number, or the beginning of the id of an item or a run")],
    changes: Annotated[list[str] | None, typer.Argument(help="num=21")] = None,
    start: Annotated[bool, typer.Option("--start", help="start the queue too")] = False,
    queue: Annotated[str | None, typer.Option(help="none: the one in which it ran")] = None,
) -> int:
    """Put an item into the queue once more, with other arguments by name."""
    args, kwargs = parse_arguments(changes or [])
    if args:
        raise BadArgumentError(f"{args[0]!r} has no name: write name=value for what changes")
    with connected(settings_of(context)) as client:
        item = client.rerun(which, start=start, queue=queue, **kwargs)
    for warning in item.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{item.item_id}  {call_text(item.accepted)}")
    return 0
