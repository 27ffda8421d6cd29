"""Options that most commands share: which system is meant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bec_bluesky.client import Client
from bec_bluesky.settings import Settings, load

__all__ = [
    "After",
    "Beamline",
    "Chosen",
    "DataDirectory",
    "ProfileDirectory",
    "RedisUrl",
    "choose",
    "connected",
    "settings_of",
]

After = Annotated[bool, typer.Option("--after", help="also copy, move and command as `after` in profile.toml says")]
DataDirectory = Annotated[Path | None, typer.Option("--data", help="data directory (BEC_BLUESKY_DATA_DIR)")]
Beamline = Annotated[str | None, typer.Option("--beamline", help="name of the beamline (BEC_BLUESKY_BEAMLINE)")]
RedisUrl = Annotated[str | None, typer.Option("--redis", help="URL of a Redis (BEC_BLUESKY_REDIS_URL)")]
ProfileDirectory = Annotated[Path | None, typer.Option("--profile", help="the instrument (BEC_BLUESKY_PROFILE)")]


@dataclass
class Chosen:
    """What was chosen before the command; options after it win."""

    given: dict[str, object] = field(default_factory=dict[str, object])
    queue: str = ""
    """Name of the queue that is meant; empty: the main one."""


def choose(
    context: typer.Context,
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
    profile: ProfileDirectory = None,
) -> None:
    """Choose the system; what groups of commands have as their callback."""
    before = context.find_object(Chosen) or Chosen()
    given = {"data_dir": data, "beamline": beamline, "redis_url": redis, "profile": profile}
    chosen = before.given | {name: value for name, value in given.items() if value is not None}
    context.obj = Chosen(chosen, before.queue)


def settings_of(context: typer.Context, **given: object) -> Settings:
    """Give the settings that the options, then the environment, say."""
    chosen = context.find_object(Chosen) or Chosen()
    return load(**(chosen.given | {name: value for name, value in given.items() if value is not None}))


def connected(settings: Settings) -> Client:
    """Connect a client to the system that is meant."""
    client = Client(settings)
    client.open()
    return client
