"""`up` in its three ways: in the foreground, as a background process that reports, and waiting for that one."""

import json
import os
from typing import Any

import typer

from bec_bluesky.cli._launch import Background
from bec_bluesky.cli._supervisor import supervise
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.settings import Settings

__all__ = ["attached", "detached", "reporting"]


def attached(settings: Settings, *, timeout: float) -> int:
    """Supervise in the foreground until Ctrl-C."""

    def report(facts: dict[str, Any]) -> None:
        if "say" in facts:
            typer.echo(facts["say"])
        if "ready" in facts:
            typer.echo("Ctrl-C stops everything in order")

    supervise(settings, report, timeout=timeout)
    return 0


def detached(settings: Settings) -> int:
    """Start a supervisor in the background; return when everything runs."""
    background = Background.launch(settings, typer.echo)
    background.wait_for("ready")
    pid = background.release()
    typer.echo(f"running in the background (pid {pid}); `bec-bluesky down` stops it")
    return 0


def reporting(settings: Settings, descriptor: int, *, timeout: float, leash: bool) -> int:
    """Supervise and report, a line of JSON each, to whoever started this process, as long as it listens."""
    file = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")

    def report(facts: dict[str, Any]) -> None:
        nonlocal file
        try:
            file.write(json.dumps(facts) + "\n")
        except (BrokenPipeError, ValueError):  # it looked away, or we closed the file because it did
            with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # a device
                os.dup2(nowhere.fileno(), descriptor)

    try:
        supervise(settings, report, timeout=timeout, leash=leash)
    except (BecBlueskyError, OSError) as error:
        report({"error": str(error)})
        return 1
    return 0
