"""`plans …`: which plans there are, what they take, and importing them anew."""

from typing import Annotated

import typer

from bec_bluesky.cli._options import choose, connected, settings_of
from bec_bluesky.client import Client
from bec_bluesky.errors import UnknownPlanError
from bec_bluesky.messages.queue import Parameter

__all__ = ["plans_app"]

plans_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, describe and reload the plans that the queue takes."
)


plans_app.callback()(choose)


def _client(context: typer.Context) -> Client:
    return connected(settings_of(context))


@plans_app.command("list")
def list_(context: typer.Context) -> int:
    """Show all plans with their first sentence."""
    with _client(context) as client:
        plans = client.plans
    for name, info in plans.items():
        typer.echo(f"{name}: {info.summary}")
    return 0


@plans_app.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(help="of a plan")]) -> int:
    """Show what a plan does and what each of its arguments may be."""
    with _client(context) as client:
        plans = client.plans
    if name not in plans:
        raise UnknownPlanError(name, plans)
    info = plans[name]
    typer.echo(f"{name}  ({info.module})\n{info.summary}\n")
    for parameter in info.parameters:
        typer.echo(f"  {_call_name(parameter)}: {_written(parameter)}")
    return 0


@plans_app.command()
def reload(
    context: typer.Context,
    module: Annotated[
        str, typer.Argument(help="plans.scans, or a start-up file: 10-plans.py; none: all that changed")
    ] = "",
) -> int:
    """Import edited plans while everything runs. Exit code 1 if something could not be imported: it stays as it was."""
    with _client(context) as client:
        found = client.plans.reload(module)
    for word, names in (("added", found.added), ("changed", found.changed), ("removed", found.removed)):
        if names:
            typer.echo(f"{word}: {', '.join(names)}")
    if not (found.added or found.changed or found.removed or found.problems):
        typer.echo("nothing is different")
    for problem in found.problems:
        typer.echo(problem, err=True)
    return 1 if found.problems else 0


def _call_name(parameter: Parameter) -> str:
    stars = {"var_positional": "*", "var_keyword": "**"}.get(parameter.kind, "")
    return f"{stars}{parameter.name}" + (f"={parameter.default}" if parameter.has_default else "")


def _written(parameter: Parameter) -> str:
    from bec_bluesky.scan_server import accepted_in_words  # not for every command

    what = accepted_in_words(parameter.accepts)
    return f"{what}. {parameter.text}" if parameter.text and parameter.text != what else what
