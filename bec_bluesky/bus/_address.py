"""Where a Redis is."""

from dataclasses import dataclass
from typing import Any

from redis.connection import parse_url

from bec_bluesky.errors import SettingsError

__all__ = ["Address", "parse"]


@dataclass(frozen=True)
class Address:
    """A parsed Redis URL."""

    url: str
    path: str | None = None
    """Unix socket; else host and port."""
    host: str = "127.0.0.1"
    port: int = 6379
    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: bool = False

    def __str__(self) -> str:
        """Give the address without its password."""
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"


def parse(url: str) -> Address:
    """Read `redis://`, `rediss://` or `unix://`; raises SettingsError for anything else."""
    try:
        parts: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise SettingsError(
            f"{url!r} is no Redis URL: give redis://host:port/db, rediss://… or unix:///path"
        ) from error
    return Address(
        url=url,
        path=parts.get("path"),
        host=parts.get("host", "127.0.0.1"),
        port=int(parts.get("port", 6379)),
        username=parts.get("username"),
        password=parts.get("password"),
        database=int(parts.get("db", 0)),
        tls=url.startswith("rediss:"),
    )
