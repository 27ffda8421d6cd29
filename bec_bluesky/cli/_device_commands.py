"""`device`: which devices there are, and changing that while everything runs."""

import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bec_bluesky import plugins
from bec_bluesky.cli._options import ProfileDirectory, choose, connected, settings_of
from bec_bluesky.client import Client
from bec_bluesky.errors import BadArgumentError, SettingsError
from bec_bluesky.proxy import EditReport

__all__ = ["device_app"]

device_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show, edit, reload, read and move devices of a running beamline."
)
_KEYS = {"ignore_unknown_options": True}
Name = Annotated[str, typer.Argument(help="of a device")]
Names = Annotated[list[str], typer.Argument(help="of devices")]
Keys = Annotated[
    list[str] | None,
    typer.Argument(help="KEY=VALUE, values as in YAML: limits.low=-5 labels=[motors,sample] kwargs.gain=2"),
]


device_app.callback()(choose)


def _client(context: typer.Context) -> Client:
    return connected(settings_of(context))


def _say(report: EditReport) -> int:
    """Say what was done; 1 if something of it went wrong."""
    typer.echo(str(report))
    return 1 if report.failed or report.servers else 0


def _values(words: list[str] | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in words or ():
        key, is_given, text = word.partition("=")
        if not is_given or not key:
            raise BadArgumentError(f"{word!r} must be KEY=VALUE, such as limits.low=-5 or labels=[motors,sample]")
        try:
            values[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise BadArgumentError(f"{word!r}: the value is no YAML: {' '.join(str(error).split())}") from None
    return values


# ── looking ──


@device_app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False) -> int:
    """Show all devices: state, where they are, limits, what holds them."""
    with _client(context) as client:
        if as_json:
            devices = [info for info in client.devices.values() if info.parent is None]
            rows = {info.path: {"state": info.state, "reason": info.reason, "server": info.server} for info in devices}
            typer.echo(json.dumps(rows, indent=2, sort_keys=True))
        else:
            typer.echo(repr(client.dev))
    return 0


@device_app.command()
def show(context: typer.Context, name: Name) -> int:
    """Show a device, and its entry in the device file."""
    with _client(context) as client:
        described = client.device_file.show(name)
        device = repr(client.dev[name]) if name in client.dev else f"{name} is not there: its server does not run"
    typer.echo(device)
    typer.echo(f"in {described['place']}, device server {described['server']}")
    stream = io.StringIO()
    YAML().dump({name: described["entry"]}, stream)
    typer.echo(stream.getvalue().rstrip())
    return 0


@device_app.command()
def read(context: typer.Context, names: Names) -> int:
    """Read devices or parts of them (`samx.velocity`) now."""
    with _client(context) as client:
        for name in names:
            for key, entry in client.dev[name].read().items():
                typer.echo(f"{key} = {entry['value']}")
    return 0


@device_app.command(context_settings=_KEYS)
def move(
    context: typer.Context,
    name: Name,
    value: Annotated[float, typer.Argument(help="where to, in its units")],
    relative: Annotated[bool, typer.Option("--relative", "-r", help="by so much from its setpoint")] = False,
    timeout: Annotated[float | None, typer.Option(help="seconds to wait for it")] = None,
) -> int:
    """Move a device and wait until it is there; Ctrl-C stops it."""
    with _client(context) as client:
        device = client.dev[name]
        position = device.mvr(value, timeout=timeout) if relative else device.move(value, timeout=timeout)
    typer.echo(f"{name} = {position}")
    return 0


# ── the device file ──


@device_app.command(context_settings=_KEYS)
def add(
    context: typer.Context,
    name: Name,
    class_: Annotated[str, typer.Argument(metavar="CLASS", help="package.module:Name of a class or factory")],
    keys: Keys = None,
    file: Annotated[str, typer.Option(help="included file that is to have it")] = "",
) -> int:
    """Add a device: `device add samx ophyd:EpicsMotor args=[X12SA:M1] labels=[motors]`."""
    entry: dict[str, Any] = {}
    for key, value in _values(keys).items():
        *parents, last = key.split(".")
        owner = entry
        for parent in parents:
            owner = owner.setdefault(parent, {})
        owner[last] = value
    with _client(context) as client:
        return _say(client.device_file.add(name, class_, file=file, **entry))


@device_app.command("set", context_settings=_KEYS)
def set_(
    context: typer.Context,
    name: Name,
    keys: Keys = None,
    unset: Annotated[list[str] | None, typer.Option(help="key to take away: its default holds again")] = None,
) -> int:
    """Set keys of a device: `device set samx limits.low=-5 labels=[motors,sample]`."""
    values = _values(keys)
    if not values and not unset:
        raise BadArgumentError(f"nothing is to be set: `device set {name} limits.low=-5`")
    with _client(context) as client:
        return _say(client.device_file.set(name, values, unset=unset or ()))


@device_app.command()
def enable(context: typer.Context, names: Names) -> int:
    """Build and connect devices that were disabled."""
    with _client(context) as client:
        return _say(client.device_file.enable(*names))


@device_app.command()
def disable(context: typer.Context, names: Names) -> int:
    """Let go of devices; they stay in the file."""
    with _client(context) as client:
        return _say(client.device_file.disable(*names))


@device_app.command()
def rm(context: typer.Context, name: Name) -> int:
    """Let go of a device and take it out of the file."""
    with _client(context) as client:
        return _say(client.device_file.remove(name))


@device_app.command()
def reload(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="of devices; none: apply edits by hand")] = None,
    with_dependants: Annotated[
        bool, typer.Option("--with-dependants", help="also those that are made from the same modules")
    ] = False,
) -> int:
    """Build devices anew, with their edited classes; or apply what was changed in the files by hand."""
    with _client(context) as client:
        return _say(client.device_file.reload(*(names or ()), with_dependants=with_dependants))


@device_app.command()
def check(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="only the files: import no classes")] = False,
    profile: ProfileDirectory = None,
) -> int:
    """Check the device file of the profile, without a running beamline and without touching hardware."""
    from bec_bluesky.device_server import check as check_device
    from bec_bluesky.device_server import read as read_file

    settings = settings_of(context, profile=profile)
    path = plugins.collection(settings) / "devices.yaml"
    specs = read_file(path)
    problems: list[str] = []
    if not quick:
        plugins.mount(settings)
        for name, spec in specs.items():
            try:
                check_device(name, spec)
            except SettingsError as error:
                problems.append(str(error))
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{path}: {len(specs)} devices, {len(problems)} mistakes")
    return 1 if problems else 0


@device_app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file; none: the terminal")] = None,
) -> int:
    """Write the JSON schema of device files, by which editors complete and check them."""
    from bec_bluesky.device_server import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
    return 0
