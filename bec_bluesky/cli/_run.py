"""`run`: one plan, added, started and followed to its end."""

from bec_bluesky.cli._arguments import parse_arguments, parse_metadata
from bec_bluesky.cli._options import connected
from bec_bluesky.client import raise_if_failed, watch
from bec_bluesky.settings import Settings

__all__ = ["run"]


def run(settings: Settings, plan: str, arguments: list[str], metadata: list[str], queue: str = "") -> int:
    """Run a plan; 0, or PlanFailedError if it did not complete."""
    args, kwargs = parse_arguments(arguments)
    md = parse_metadata(metadata)
    with connected(settings) as client:
        item = watch(client, client.queue(queue).put(plan, args, kwargs, metadata=md, start=True), settled="all")
    raise_if_failed(item)
    return 0
