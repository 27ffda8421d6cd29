"""The commands and their options; what they do is in the modules beside this one."""

from typing import Annotated

import typer

from bec_bluesky import __version__
from bec_bluesky.cli._alarms_command import alarms
from bec_bluesky.cli._data_commands import data_app
from bec_bluesky.cli._device_commands import device_app
from bec_bluesky.cli._history_commands import history, rerun
from bec_bluesky.cli._lock_commands import lock, unlock
from bec_bluesky.cli._log_command import log
from bec_bluesky.cli._options import (
    Beamline,
    Chosen,
    DataDirectory,
    ProfileDirectory,
    RedisUrl,
    connected,
    settings_of,
)
from bec_bluesky.cli._people_commands import people_app
from bec_bluesky.cli._plan_commands import plans_app
from bec_bluesky.cli._queue_commands import queue_app
from bec_bluesky.cli._replay_command import replay_files
from bec_bluesky.cli._restart_command import restart
from bec_bluesky.cli._script_commands import script_app, show_console

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run a beamline: a queue of Bluesky plans, remote devices, files, a catalogue and live analysis.",
)
app.add_typer(queue_app, name="queue")
app.add_typer(plans_app, name="plans")
app.add_typer(data_app, name="data")
app.add_typer(device_app, name="device")
app.add_typer(script_app, name="script")
app.add_typer(people_app, name="people")
app.command()(alarms)
app.command()(log)
app.command()(lock)
app.command()(unlock)
app.command()(history)
app.command()(restart)
app.command("replay")(replay_files)
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})(rerun)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"bec-bluesky {__version__}")
        raise typer.Exit


@app.callback()
def choose(
    context: typer.Context,
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
    profile: ProfileDirectory = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Choose the system; the same options may also stand after the command."""
    given = {"data_dir": data, "beamline": beamline, "redis_url": redis, "profile": profile}
    context.obj = Chosen({name: value for name, value in given.items() if value is not None})


@app.command()
def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return when everything runs")] = False,
    profile: ProfileDirectory = None,
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
    timeout: Annotated[float, typer.Option(help="seconds in which everything must run")] = 120.0,
    report_fd: Annotated[int, typer.Option(hidden=True)] = -1,
    leash: Annotated[bool, typer.Option(hidden=True)] = False,
) -> int:
    """Start Redis and every service of the beamline, and keep them running."""
    from bec_bluesky.cli import _up

    settings = settings_of(context, profile=profile, data_dir=data, beamline=beamline, redis_url=redis)
    if detach:
        return _up.detached(settings)
    if report_fd >= 0:
        return _up.reporting(settings, report_fd, timeout=timeout, leash=leash)
    return _up.attached(settings, timeout=timeout)


@app.command()
def down(context: typer.Context, data: DataDirectory = None, beamline: Beamline = None, redis: RedisUrl = None) -> int:
    """Stop the beamline in order; also what a killed supervisor left."""
    from bec_bluesky.cli import _launch

    settings = settings_of(context, data_dir=data, beamline=beamline, redis_url=redis)
    if not _launch.down(settings, typer.echo):
        typer.echo(f"nothing runs in {settings.data_dir}")
    return 0


@app.command()
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
) -> int:
    """Show services, queue and run. Exit code 0: everything that should run runs."""
    from bec_bluesky.cli import _status

    return _status.show(settings_of(context, data_dir=data, beamline=beamline, redis_url=redis), as_json=as_json)


@app.command("stop-all")
def stop_all(
    context: typer.Context, data: DataDirectory = None, beamline: Beamline = None, redis: RedisUrl = None
) -> int:
    """Panic stop: stop everything that moves on every device server, at once, and abort what runs.

    Exit code 0 only if every device confirmed that it stopped; otherwise the ones that did not are named.
    """
    with connected(settings_of(context, data_dir=data, beamline=beamline, redis_url=redis)) as client:
        report = client.stop_all()
    typer.echo(report)
    return 0 if report.is_complete else 1


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(help="name of a plan: `bec-bluesky plugins` lists them")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="its arguments: [det] samx -5 5 num=11; names need no quotes")
    ] = None,
    meta: Annotated[list[str] | None, typer.Option("--meta", help="key=value for the run's metadata")] = None,
    queue: Annotated[str, typer.Option("--queue", "-q", help="one that `profile.toml` declares; none: main")] = "",
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
) -> int:
    """Add a plan to the queue, start the queue, and follow the run. Exit code 0 only if it completed.

    Options stand before the plan. Ctrl-C once pauses after the point and asks what to do, twice aborts.
    """
    from bec_bluesky.cli import _run
    from bec_bluesky.errors import BadArgumentError

    if plan.startswith("-"):
        raise BadArgumentError(f"`run` has no option {plan!r}: see `bec-bluesky run --help`")
    settings = settings_of(context, data_dir=data, beamline=beamline, redis_url=redis)
    return _run.run(settings, plan, arguments or [], meta or [], queue)


@app.command()
def console(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on, until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="how many of the last ones")] = 100,
    source: Annotated[str, typer.Option("--source", help="worker, or the id of a task or of an item; none: all")] = "",
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
) -> int:
    """Show what plans, scripts and functions print on the server."""
    settings = settings_of(context, data_dir=data, beamline=beamline, redis_url=redis)
    return show_console(settings, follow=follow, lines=lines, source=source)


@app.command()
def demo(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="leave the system up")] = False,
    data: DataDirectory = None,
) -> int:
    """Start a whole beamline with a soft IOC, run three scans, and read them back in three ways."""
    from bec_bluesky.cli import _demo

    return _demo.demo(settings_of(context), data, keep=keep)


@app.command()
def plugins(
    context: typer.Context, profile: ProfileDirectory = None, data: DataDirectory = None, beamline: Beamline = None
) -> int:
    """List what the profile offers: plans, devices, callbacks, writers; the broken ones with their reasons."""
    from bec_bluesky.cli import _plugins_command

    settings = settings_of(context, profile=profile, data_dir=data, beamline=beamline)
    return _plugins_command.show(settings)
