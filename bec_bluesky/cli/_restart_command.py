"""`restart`: end a part of a running system; its supervisor starts it again."""

import contextlib
import time
from typing import Annotated

import typer

from bec_bluesky.cli._lock import Record, read_record
from bec_bluesky.cli._options import connected, settings_of
from bec_bluesky.cli._processes import Identity, end
from bec_bluesky.errors import BecBlueskyError, RefusedError, choices
from bec_bluesky.messages.queue import MAIN_QUEUE
from bec_bluesky.settings import Settings

__all__ = ["restart"]

_GRACE = 30.0
"""Seconds in which a part ends by itself; then it is killed."""
_PATIENCE = 120.0
"""Seconds in which it must run again."""
_RUNS_DEPEND_ON = ("scan_server", "device_server")


def restart(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="as `bec-bluesky status` lists them", metavar="SERVICE…")],
    now: Annotated[
        bool, typer.Option("--now", help="also what hangs, or while a plan runs that this ends or holds")
    ] = False,
) -> int:
    """End services of the running system and wait until they run again.

    Writers take up what they have not written. The scan server, device servers and companions are refused while a plan
    runs.
    """
    settings = settings_of(context)
    record = _record(settings)
    for name in names:
        if name not in record.processes:
            raise RefusedError(f"no service {name!r} was started by `up`: {choices(name, record.processes)}", "unknown")
        if not now and not _is_ready(settings, record, name):
            raise RefusedError(f"{name} has just been started: wait; if it hangs, say --now", "not_ready")
        is_needed = name.startswith(_RUNS_DEPEND_ON) or name not in record.services  # companions: IOCs, say
        running = _running(settings) if is_needed and not now else ""
        if running:
            raise RefusedError(f"{running}, and may need {name}: wait, stop it, or say --now", "busy")
    for name in names:
        _restart(settings, record, name)
    return 0


def _record(settings: Settings) -> Record:
    record = read_record(settings)
    if record is None or not record.is_up:
        raise RefusedError(f"nothing is up in {settings.data_dir}: `bec-bluesky up` starts it", "not_up")
    return record


def _running(settings: Settings) -> str:
    """Say what runs in which queue; nothing, also if the scan server does not answer."""
    with contextlib.suppress(BecBlueskyError), connected(settings) as client:
        for queue in client.status.queues or [MAIN_QUEUE]:
            running = client.queue(queue).status.running
            if running is not None:
                return f"{running.plan} runs in queue {queue!r}"
    return ""


def _restart(settings: Settings, record: Record, name: str) -> None:
    began = time.monotonic()
    before = record.processes[name]
    was_killed = bool(end([before], grace=_GRACE))
    if was_killed:
        typer.echo(f"{name} did not end within {_GRACE:g} s: killed")
    while not _is_back(settings, name, before):
        if time.monotonic() - began > _GRACE + _PATIENCE:
            raise RefusedError(f"{name} does not run again: see {settings.log_dir / name}.out", "not_back")
        time.sleep(0.1)
    typer.echo(f"{name} runs again after {time.monotonic() - began:.1f} s")


def _is_back(settings: Settings, name: str, before: Identity) -> bool:
    record = _record(settings)
    process = record.processes.get(name)
    is_new = process is not None and process != before and process.is_alive
    return is_new and _is_ready(settings, record, name)


def _is_ready(settings: Settings, record: Record, name: str) -> bool:
    if name not in record.services:
        return True  # a companion has no heartbeat
    with connected(settings) as client:
        beats = client.services.values()
    return any(beat.pid == record.processes[name].pid and beat.state in ("running", "degraded") for beat in beats)
