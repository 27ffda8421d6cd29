"""`script …` and `console`: run scripts and functions on the server, and see what is printed there."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky.cli._arguments import parse_arguments
from bec_bluesky.cli._options import choose, connected, settings_of
from bec_bluesky.client import Client, ServerTask
from bec_bluesky.settings import Settings

__all__ = ["script_app", "show_console"]

script_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run scripts and functions on the server, beside the queue."
)
Detach = Annotated[bool, typer.Option("--detach", "-d", help="do not wait; show the task's id")]
TaskId = Annotated[str, typer.Argument(help="of a task, or the beginning of it")]


script_app.callback()(choose)


def _client(context: typer.Context) -> Client:
    return connected(settings_of(context))


@script_app.command()
def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="of Python text; - reads standard input")],
    detach: Detach = False,
) -> int:
    """Run a script and show what it prints; plans that it defines can be queued then. Ctrl-C ends it.

    Exit code 0 only if it ended well.
    """
    with _client(context) as client:
        task = client.tasks.script(sys.stdin.read() if file == "-" else Path(file))
        _show(task, detach=detach)
    return 0


@script_app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def call(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="of a function of the start-up files, or of a script that ran")],
    arguments: Annotated[list[str] | None, typer.Argument(help="its arguments: samx 5 num=11")] = None,
    detach: Detach = False,
) -> int:
    """Call a function, show what it prints and what it returns. Options stand before the name. Ctrl-C ends it."""
    args, kwargs = parse_arguments(arguments or [])
    with _client(context) as client:
        task = client.tasks.function(name, *args, **kwargs)
        _show(task, detach=detach)
        if not detach:
            if task.message.note:
                typer.echo(task.message.note, err=True)
            if task.value is not None:
                typer.echo(task.value)
    return 0


def _show(task: ServerTask, *, detach: bool) -> None:
    if detach:
        typer.echo(task.task_id)
    else:
        task.show()


@script_app.command("list")
def list_(context: typer.Context, limit: Annotated[int, typer.Option("--limit", "-n", help="how many")] = 20) -> int:
    """Show the latest tasks, newest first, and whose definitions are kept."""
    with _client(context) as client:
        tasks, kept = client.tasks.latest(limit), client.tasks.kept.scripts
    table = Table("id", "what", "title", "user", "state", "began")
    for task in (each.message for each in tasks):
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(task.time_start))
        table.add_row(task.task_id[:8], task.kind, task.title, task.user, task.state, began)
    Console().print(table)
    if kept:
        typer.echo("what these define is kept: " + ", ".join(each.title or each.script_id[:8] for each in kept))
    return 0


@script_app.command()
def show(context: typer.Context, task_id: TaskId) -> int:
    """Show what became of a task: its reason, traceback, value, and the end of what it printed."""
    with _client(context) as client:
        task = client.tasks[task_id].message
    typer.echo(f"{task.kind} {task.title!r} of {task.user or 'somebody'}: {task.state}")
    for what in (task.reason, task.note, task.traceback, task.output):
        if what:
            typer.echo(what.rstrip("\n"))
    if task.value is not None:
        typer.echo(task.value)
    return 0


@script_app.command()
def end(context: typer.Context, task_id: TaskId) -> int:
    """End a task: it may clean up for two seconds, then its process is killed. What it moves is stopped."""
    with _client(context) as client:
        client.tasks[task_id].end()
    return 0


@script_app.command()
def forget(context: typer.Context) -> int:
    """Forget what scripts defined; replaces the workers, and is refused while a plan runs."""
    with _client(context) as client:
        client.tasks.forget()
    return 0


def show_console(settings: Settings, *, follow: bool, lines: int, source: str) -> int:
    """Write the last lines of the console, and with `follow` those that come."""
    with connected(settings) as client:
        coming = client.console.follow(source=source) if follow else ()  # first: none is to be missed between
        typer.echo(client.console(lines, source=source), nl=False)
        for text in coming:
            typer.echo(text.text, nl=False)
    return 0
