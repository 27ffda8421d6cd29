"""`alarms`: what services told people."""

import time
from typing import Annotated

import msgspec
import typer

from bec_bluesky.cli._options import connected, settings_of
from bec_bluesky.client import Client
from bec_bluesky.messages.common import Alarm

__all__ = ["alarms"]

_LOOK_AGAIN = 1.0
"""Seconds between two looks at what is new."""
_AT_ONCE = 1_000
"""Alarms that may come between two looks."""


def alarms(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    run: Annotated[str, typer.Option("--run", help="only those of a run: its uid, or the beginning of it")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on showing what comes, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: one object a line")] = False,
) -> int:
    """Show what services want people to know, newest last."""
    with connected(settings_of(context)) as client:
        seen = _of_run(client, run)
        _print(seen[-limit:], as_json=as_json)
        while follow:
            time.sleep(_LOOK_AGAIN)
            there = _of_run(client, run)
            _print([alarm for alarm in there if alarm not in seen], as_json=as_json)
            seen = there or seen
    return 0


def _of_run(client: Client, run: str) -> list[Alarm]:
    """Give the alarms that are kept, of all runs or of one, oldest first."""
    return [alarm for alarm in client.alarms(_AT_ONCE) if (alarm.run or "").startswith(run)][::-1]


def _print(alarms: list[Alarm], *, as_json: bool) -> None:
    for alarm in alarms:
        if as_json:
            typer.echo(msgspec.json.encode(alarm).decode())
            continue
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(alarm.time))
        about = "".join(f" [{word}]" for word in ((alarm.run or "")[:8], alarm.device) if word)
        typer.echo(f"{when} {alarm.level} {alarm.service}{about}: {alarm.text}")
