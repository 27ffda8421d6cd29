"""`status`: services, queue and run on one page."""

import json
import time
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bec_bluesky import embedded, plugins
from bec_bluesky.cli._lock import read_record
from bec_bluesky.cli._options import connected
from bec_bluesky.cli._parts import servers_here
from bec_bluesky.cli._queue_commands import call_text
from bec_bluesky.client import Client
from bec_bluesky.device_server import service_name
from bec_bluesky.errors import BecBlueskyError, SettingsError
from bec_bluesky.messages.common import Alarm, Heartbeat
from bec_bluesky.messages.devices import DeviceHolder
from bec_bluesky.messages.queue import MAIN_QUEUE, ScanServerStatus
from bec_bluesky.settings import Settings

__all__ = ["show"]

_LATE = 2.0
"""Seconds since the last heartbeat (there is one a second) after which a service seems to hang."""
_RECENT, _MOST_ALARMS = 3600.0, 100
"""Of the alarms that are counted: seconds since they came, and how many of them at most."""


def show(settings: Settings, *, as_json: bool) -> int:
    """Show the state of the system; 0 if every service of the profile runs, 1 if not."""
    if embedded.find(settings) is None:
        if as_json:
            typer.echo(json.dumps({"up": False, "beamline": settings.beamline, "data_dir": str(settings.data_dir)}))
        else:
            typer.echo(f"not up: nothing runs in {settings.data_dir}; `bec-bluesky up` starts it")
        return 1
    with connected(settings) as client:
        services = client.services
        queues = _queues(client)
        holders = client.holders
        alarms = [alarm for alarm in client.alarms(_MOST_ALARMS) if alarm.time > time.time() - _RECENT]
    missing = sorted(_expected(settings) - services.keys())
    if as_json:
        typer.echo(json.dumps(_facts(settings, services, queues, holders, missing)))
    else:
        _print(settings, services, missing)
        _print_queues(queues)
        for device, holder in sorted(holders.items()):
            typer.echo(f"{device} is held by {holder.text}")
        _print_alarms(alarms)
    return 1 if missing or any(beat.state != "running" for beat in services.values()) else 0


def _queues(client: Client) -> dict[str, ScanServerStatus]:
    """Give the status of each queue, the main one first; nothing if the scan server does not answer."""
    try:
        if "scan_server" not in client.services:
            return {}
        main = client.status
        others = {name: client.queue(name).status for name in main.queues if name != MAIN_QUEUE}
    except BecBlueskyError:
        return {}
    return {MAIN_QUEUE: main} | others


def _expected(settings: Settings) -> set[str]:
    """Name the services that `up` started or is about to start; none if they run elsewhere."""
    record = read_record(settings)
    return set() if record is None else set(record.services)


def _facts(
    settings: Settings,
    services: dict[str, Heartbeat],
    queues: dict[str, ScanServerStatus],
    holders: dict[str, DeviceHolder],
    missing: list[str],
) -> dict[str, Any]:
    record = read_record(settings)
    return {
        "up": not missing,
        "beamline": settings.beamline,
        "data_dir": str(settings.data_dir),
        "supervisor": record.supervisor.pid if record is not None and record.is_up else None,
        "services": {name: msgspec.to_builtins(beat) for name, beat in sorted(services.items())},
        "missing": missing,
        "scan_server": msgspec.to_builtins(queues.get(MAIN_QUEUE)),
        "queues": {name: msgspec.to_builtins(status) for name, status in queues.items()},
        "holders": {device: msgspec.to_builtins(holder) for device, holder in sorted(holders.items())},
    }


def _state(beat: Heartbeat) -> str:
    age = time.time() - beat.time
    return beat.state if age < _LATE else f"no beat for {age:.0f} s"


def _note(beat: Heartbeat) -> str:
    """Say what is special about a service; of a device server, how many of its devices are there."""
    facts = beat.facts
    if "devices" in facts:
        share = f"{facts['connected']} of {facts['devices']} devices"
        return f"{share}; {beat.note}" if beat.note else share
    if facts.get("stands_by"):
        return "stands by: takes over when the scan server is gone"
    return beat.note or str(facts.get("url", ""))


def _not_started(settings: Settings, services: dict[str, Heartbeat], missing: list[str]) -> list[str]:
    """Name the device servers that the device file asks for, also since `up`, and that are nowhere."""
    try:
        known = servers_here(settings, plugins.read_profile(settings))
    except SettingsError:
        return []  # its mistakes are told where it is used
    return [server for server in known if service_name(server) not in services and service_name(server) not in missing]


def _print(settings: Settings, services: dict[str, Heartbeat], missing: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    record = read_record(settings)
    if record is None:
        supervisor = "no supervisor here"
    elif record.is_up:
        supervisor = f"supervisor pid {record.supervisor.pid}"
    else:
        supervisor = "its supervisor was killed: `bec-bluesky down`, then `up`, when nothing runs"
    console.print(f"beamline {settings.beamline}, data in {settings.data_dir}, {supervisor}", markup=False)
    table = Table(box=None, pad_edge=False)
    for column in ("service", "state", "pid", "since", "note"):
        table.add_column(column, overflow="fold")
    for name, beat in sorted(services.items()):
        since = time.strftime("%m-%d %H:%M:%S", time.localtime(beat.started))
        table.add_row(name, _state(beat), str(beat.pid), since, _note(beat))
    for name in missing:
        hung = record.remains.get(name) if record is not None else None
        if hung is not None:
            remedy = f"it has just been started, or hangs: `kill -9 {hung.pid}`, and it is started again"
            table.add_row(name, "no beat", str(hung.pid), "", remedy)
        else:
            table.add_row(name, "not running", "", "", f"see {settings.log_dir / name}.out")
    for server in _not_started(settings, services, missing):
        command = f"python -m bec_bluesky.device_server --server {server}"
        table.add_row(service_name(server), "not running", "", "", f"devices.yaml names it: `{command}`, or `up` anew")
    console.print(table)


def _print_alarms(alarms: list[Alarm]) -> None:
    if alarms:
        number = "an alarm" if len(alarms) == 1 else f"{len(alarms)} alarms"
        typer.echo(f"{number} in the last hour (`bec-bluesky alarms`), the newest: {alarms[0].text}")


def _print_queues(queues: dict[str, ScanServerStatus]) -> None:
    if not queues:
        typer.echo("the scan server does not answer")
        return
    for name, status in queues.items():
        title = "queue" if name == MAIN_QUEUE else f"queue {name}"
        done = f", {status.history} done" if name == MAIN_QUEUE else ""
        typer.echo(f"{title} {status.queue_state}: {status.waiting} waiting{done}; run {status.run_state}")
        if status.running is not None:
            scan = "" if status.scan_id is None else f"scan {status.scan_id}: "
            typer.echo(f"running {scan}{call_text(status.running)} by {status.running.user}")
        if status.waits_for:
            typer.echo(f"waits: {status.waits_for}")
        if status.suspended:
            typer.echo(f"suspended: {status.suspended}")
    for text in queues[MAIN_QUEUE].interlocks:
        typer.echo(text)
    worker = queues[MAIN_QUEUE].worker
    if worker:
        typer.echo(f"worker: {worker}")
