"""`lock` and `unlock`: keep others from changing the queue and from starting anything."""

from typing import Annotated

import typer

from bec_bluesky.cli._options import connected, settings_of
from bec_bluesky.client import LOCK_KEY_VARIABLE

__all__ = ["lock", "unlock"]

Key = Annotated[str | None, typer.Option(help=f"of the lock; else that in {LOCK_KEY_VARIABLE}")]


def lock(
    context: typer.Context,
    note: Annotated[str, typer.Argument(help="why; others are told")] = "",
    key: Key = None,
    only_queue: Annotated[bool, typer.Option("--only-queue", help="others may start what is there")] = False,
    only_environment: Annotated[bool, typer.Option("--only-environment", help="others may fill the queue")] = False,
    show: Annotated[bool, typer.Option("--show", help="only say what is locked")] = False,
) -> int:
    """Lock the queue and the start of runs, and print the key; looking and stopping are never locked."""
    with connected(settings_of(context)) as client:
        if not show:
            client.lock(note, key=key, queue=not only_environment, environment=not only_queue)
            typer.echo(f"export {LOCK_KEY_VARIABLE}={client.lock.key}")
        typer.echo(repr(client.lock), err=not show)
    return 0


def unlock(context: typer.Context, key: Key = None) -> int:
    """Unlock with the key, or with the emergency key."""
    with connected(settings_of(context)) as client:
        client.lock.release(key)
    return 0
