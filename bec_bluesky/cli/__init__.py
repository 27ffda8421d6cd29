"""The command line: `bec-bluesky up | down | status | run | queue | demo | plugins`."""

from bec_bluesky.cli._main import main

__all__ = ["main"]
