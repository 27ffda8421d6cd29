"""`queue …`: look at the queue, change it, and act on the running plan."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky.cli._arguments import parse_arguments
from bec_bluesky.cli._options import Beamline, Chosen, DataDirectory, RedisUrl, connected, settings_of
from bec_bluesky.client import Client
from bec_bluesky.messages.queue import QueueItem

__all__ = ["call_text", "queue_app"]

queue_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at the queue, change it, act on the running plan."
)
_PLAN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
Reason = Annotated[str, typer.Option("--reason", help="goes into the run's stop document")]


@queue_app.callback()
def choose(
    context: typer.Context, data: DataDirectory = None, beamline: Beamline = None, redis: RedisUrl = None
) -> None:
    """Choose the system."""
    before = context.find_object(Chosen) or Chosen()
    given = {"data_dir": data, "beamline": beamline, "redis_url": redis}
    context.obj = Chosen(before.given | {name: value for name, value in given.items() if value is not None})


def _client(context: typer.Context) -> Client:
    return connected(settings_of(context))


def call_text(item: QueueItem) -> str:
    """Write an item as the call that it is."""
    args = [str(each) if isinstance(each, str) else repr(each) for each in item.args]
    kwargs = [f"{name}={value!r}" for name, value in item.kwargs.items()]
    return f"{item.plan}({', '.join([*args, *kwargs])})"


@queue_app.command("list")
def list_(context: typer.Context) -> int:
    """Show what runs and what waits."""
    with _client(context) as client:
        queue, status = client.queue.now(), client.status
    typer.echo(f"queue {status.queue_state}, run {status.run_state}")
    if queue.running is not None:
        typer.echo(f"running  {queue.running.item_id[:8]}  {call_text(queue.running)}  by {queue.running.user}")
    for number, item in enumerate(queue.waiting):
        held = f"  held: {item.held}" if item.held else ""
        typer.echo(f"{number:>7}  {item.item_id[:8]}  {call_text(item)}  by {item.user}{held}")
    if queue.running is None and not queue.waiting:
        typer.echo("nothing waits")
    return 0


@queue_app.command(context_settings=_PLAN)
def add(
    context: typer.Context,
    plan: str,
    arguments: Annotated[list[str] | None, typer.Argument(help="[det] samx -5 5 num=11")] = None,
    front: Annotated[bool, typer.Option("--front", help="at the front of the queue")] = False,
    title: Annotated[str, typer.Option("--title")] = "",
) -> int:
    """Put a plan into the queue; nothing starts."""
    args, kwargs = parse_arguments(arguments or [])
    with _client(context) as client:
        item = client.queue.put(plan, args, kwargs, position=0 if front else None, title=title)
    for warning in item.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(item.item_id)
    return 0


@queue_app.command()
def rm(context: typer.Context, item_id: Annotated[str, typer.Argument(help="or the beginning of it")]) -> int:
    """Take a waiting item out."""
    with _client(context) as client:
        client.queue.remove(item_id)
    return 0


@queue_app.command()
def clear(context: typer.Context) -> int:
    """Take all waiting items out."""
    with _client(context) as client:
        client.queue.clear()
    return 0


@queue_app.command()
def start(context: typer.Context) -> int:
    """Run the waiting items one after the other."""
    with _client(context) as client:
        client.queue.start()
    return 0


@queue_app.command()
def stop(context: typer.Context, cancel: Annotated[bool, typer.Option("--cancel", help="take it back")] = False) -> int:
    """Stop the queue after the running plan (`finish` ends the plan itself)."""
    with _client(context) as client:
        client.queue.stop(cancel=cancel)
    return 0


@queue_app.command()
def history(context: typer.Context, limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20) -> int:
    """Show what ended, newest first."""
    with _client(context) as client:
        items = client.queue.history(limit)
    table = Table(box=None, pad_edge=False)
    for column in ("ended", "item", "call", "scans", "status", "reason"):
        table.add_column(column, overflow="fold")
    for item in items:
        result = item.result
        if result is not None:
            ended = time.strftime("%m-%d %H:%M:%S", time.localtime(result.time_stop))
            scans = ", ".join(map(str, result.scan_ids))
            table.add_row(ended, item.item_id[:8], call_text(item), scans, result.exit_status, result.reason)
    Console(highlight=False, markup=False).print(table)
    return 0


@queue_app.command()
def release(context: typer.Context, item_id: str) -> int:
    """Let a held item run when its turn comes."""
    with _client(context) as client:
        client.queue.release(item_id)
    return 0


@queue_app.command()
def pause(
    context: typer.Context, now: Annotated[bool, typer.Option("--now", help="do not wait for the point")] = False
) -> int:
    """Pause the running plan after the point under way."""
    with _client(context) as client:
        client.pause(now=now)
    return 0


@queue_app.command()
def resume(context: typer.Context) -> int:
    """Go on after a pause."""
    with _client(context) as client:
        client.resume()
    return 0


@queue_app.command()
def finish(context: typer.Context, reason: Reason = "") -> int:
    """End the running plan in order; it counts as a success (bluesky's stop)."""
    with _client(context) as client:
        client.stop(reason)
    return 0


@queue_app.command()
def abort(context: typer.Context, reason: Reason = "") -> int:
    """End the running plan with clean-up; it counts as aborted."""
    with _client(context) as client:
        client.abort(reason)
    return 0


@queue_app.command()
def halt(context: typer.Context, reason: Reason = "") -> int:
    """End the running plan at once, without clean-up."""
    with _client(context) as client:
        client.halt(reason)
    return 0
