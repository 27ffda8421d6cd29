"""`bec-bluesky-re-manager`: the whole system, started by the options of bluesky-queueserver's `start-re-manager`."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from bec_bluesky.cli._startup_profile import Startup
from bec_bluesky.cli._supervisor import supervise
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.settings import DEFAULT_PROFILE, Settings, load

__all__ = ["ignored", "main", "parser", "settings_of"]

_SWITCH = ("ON", "OFF")
_NO_USE: dict[str, dict[str, Any]] = {
    "--config": {},
    "--ignore-invalid-plans": {"choices": _SWITCH},
    "--device-max-depth": {"type": int},
    "--existing-plans-devices": {},
    "--update-existing-plans-devices": {"choices": ("NEVER", "ENVIRONMENT_OPEN", "ALWAYS")},
    "--user-group-permissions-reload": {"choices": ("NEVER", "ON_REQUEST", "ON_STARTUP")},
    "--keep-re": {"action": "store_true"},
    "--use-ipython-kernel": {"choices": _SWITCH},
    "--ipython-matplotlib": {},
    "--ipython-kernel-ip": {},
    "--ipython-connection-file": {},
    "--ipython-connection-dir": {},
    "--ipython-shell-port": {},
    "--ipython-iopub-port": {},
    "--ipython-stdin-port": {},
    "--ipython-hb-port": {},
    "--ipython-control-port": {},
    "--permitted-re-metadata-keys": {"nargs": "+"},
}
"""Options that say nothing here: plans that cannot be described are reported, lists are made by the system itself,
there is one RunEngine, and no IPython kernel."""
_DEMO = DEFAULT_PROFILE / "profile_collection" / "queueserver_demo"


def parser() -> argparse.ArgumentParser:
    """Give the parser of all options of `start-re-manager`."""
    made = argparse.ArgumentParser(
        prog="bec-bluesky-re-manager",
        description="Start the whole system for the plans of start-up files. Options are those of start-re-manager.",
    )
    made.add_argument("--zmq-control-addr", "--zmq-addr", help="control socket, e.g. tcp://*:60615")
    made.add_argument("--zmq-info-addr", "--zmq-publish-console-addr", help="socket of console and status")
    made.add_argument("--zmq-publish-console", choices=_SWITCH, help="OFF: no socket of console and status")
    made.add_argument("--zmq-encoding", choices=("json", "msgpack"), help="of requests and answers")
    made.add_argument("--startup-profile", help="name of an IPython profile")
    made.add_argument("--ipython-dir", type=Path, help="where IPython has its profiles")
    source = made.add_mutually_exclusive_group()
    source.add_argument("--startup-module", help="module with plans")
    source.add_argument("--startup-script", type=Path, help="file with plans")
    source.add_argument("--startup-dir", type=Path, help="directory of files with plans")
    made.add_argument("--user-group-permissions", type=Path, help="YAML file, or its directory")
    made.add_argument("--redis-addr", help="host[:port][/database]; none: a private Redis")
    made.add_argument("--redis-name-prefix", help="name of the beamline")
    made.add_argument("--console-output", choices=_SWITCH, help="OFF: say nothing")
    loudness = made.add_mutually_exclusive_group()
    for option, level in (("--verbose", "DEBUG"), ("--quiet", "WARNING"), ("--silent", "ERROR")):
        loudness.add_argument(option, dest="log_level", action="store_const", const=level, help=f"log {level}")
    for option, facts in _NO_USE.items():
        made.add_argument(option, help="accepted; says nothing here", **facts)
    return made


def ignored(options: argparse.Namespace) -> list[str]:
    """Give the options that were given and say nothing here."""
    return [option for option in _NO_USE if getattr(options, option[2:].replace("-", "_")) not in (None, False)]


def settings_of(options: argparse.Namespace, variables: Mapping[str, str]) -> Settings:
    """Give the settings; writes a profile for start-up files that have none. Raises SettingsError.

    HTTP is left to bluesky-httpserver unless BEC_BLUESKY_QSERVER_HTTP_PORT says otherwise.
    """
    info = options.zmq_info_addr or variables.get("QSERVER_ZMQ_INFO_ADDRESS_FOR_SERVER")
    settings = load(
        qserver_control_address=options.zmq_control_addr or variables.get("QSERVER_ZMQ_CONTROL_ADDRESS_FOR_SERVER"),
        qserver_info_address="" if options.zmq_publish_console == "OFF" else info,
        qserver_encoding=options.zmq_encoding or variables.get("QSERVER_ZMQ_ENCODING_FOR_SERVER"),
        qserver_http_port=None if "BEC_BLUESKY_QSERVER_HTTP_PORT" in variables else -1,
        redis_url=options.redis_addr and f"redis://{options.redis_addr.removeprefix('redis://')}",
        beamline=options.redis_name_prefix,
        log_level=options.log_level,
    )
    directory = options.startup_dir
    if options.startup_profile:  # goes before --startup-dir, as there
        base = options.ipython_dir or Path(variables.get("IPYTHONDIR") or Path.home() / ".ipython")
        directory = base / f"profile_{options.startup_profile}" / "startup"
    is_named = directory or options.startup_script or options.startup_module
    if not is_named and "BEC_BLUESKY_PROFILE" not in variables:
        directory = _DEMO / "startup"
    startup = Startup(
        directory=directory,
        script=options.startup_script,
        module=options.startup_module,
        permissions=options.user_group_permissions,
    )
    profile = startup.profile(settings)
    return settings if profile is None else settings.with_(profile=profile)


def main(arguments: list[str] | None = None) -> int:
    """Supervise in the foreground until SIGTERM or Ctrl-C."""
    options = parser().parse_args(arguments)
    says = options.console_output != "OFF"

    def report(facts: dict[str, Any]) -> None:
        if says and "say" in facts:
            typer.echo(facts["say"])

    try:
        settings = settings_of(options, os.environ)
        if without := ignored(options):
            report({"say": f"accepted, but of no use here: {', '.join(without)}"})
        supervise(settings, report)
    except (BecBlueskyError, OSError) as error:
        sys.stderr.write(f"bec-bluesky-re-manager: {error}\n")
        return 1
    return 0
