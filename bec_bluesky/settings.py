"""Where this system keeps things and how its parts find each other: environment variables `BEC_BLUESKY_…`."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bec_bluesky.errors import SettingsError

__all__ = ["DEFAULT_PROFILE", "Settings", "load"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _default_profile() -> Path:
    package = Path(__file__).resolve().parent
    mounted = package / "_profile"
    return mounted if mounted.is_dir() else package.parent


DEFAULT_PROFILE = _default_profile()
"""The instrument content that comes with the package: `_profile/` in a wheel, the checkout's root otherwise."""


def _beamline_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name: 1 to 64 letters, digits, '_', '.' or '-'")
    return value


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "bec-bluesky"


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


class Settings(BaseSettings):
    """What every process of one system must agree on; child processes inherit it by `environment()`."""

    model_config = SettingsConfigDict(env_prefix="BEC_BLUESKY_", extra="forbid", frozen=True)

    beamline: Annotated[str, AfterValidator(_beamline_name)] = Field(
        default="sim", description="name of the beamline; it tags every key on Redis"
    )
    redis_url: str | None = Field(
        default=None,
        description="redis://, rediss:// or unix:// of a running server; none: a private one is found or started",
    )
    data_dir: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=_default_data_dir, description="files, catalogue, logs and the embedded Redis"
    )
    profile: Annotated[Path, AfterValidator(_absolute)] = Field(
        default=DEFAULT_PROFILE,
        description="the instrument: plans/ devices/ callbacks/ writers/ profile_collection/",
    )
    api_port: int = Field(
        default=8265, ge=0, le=65535, description="HTTP API and Tiled, on the loopback interface; 0: any"
    )
    qserver_control_address: str = Field(
        default="tcp://127.0.0.1:60615", description="0MQ socket for bluesky-queueserver's clients; empty: none"
    )
    qserver_info_address: str = Field(
        default="tcp://127.0.0.1:60625", description="0MQ socket on which console and status are published; empty: none"
    )
    qserver_http_port: int = Field(
        default=60610,
        ge=-1,
        le=65535,
        description="bluesky-httpserver's interface, on the loopback interface; 0: any; -1: none",
    )
    qserver_encoding: Literal["json", "msgpack"] = Field(
        default="json", description="how requests and answers on the control socket are written"
    )
    catalog_url: str | None = Field(
        default=None,
        pattern="^postgresql://",
        description="postgresql://user:password@host/database for the catalogue's metadata and tables; none: SQLite",
    )
    tiled_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@?#]+$",
        description="http:// or https:// of a Tiled server that keeps the runs; none: one is served by the API",
    )
    tiled_key_file: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        default=None, description="file with the key of that server; none: TILED_API_KEY of the environment"
    )
    accelerations: str = Field(
        default="all",
        description="changes that make the RunEngine faster: all, none, names, or names with '-' that stay off",
    )
    log_level: str = Field(default="INFO", pattern="(?i)^(DEBUG|INFO|WARNING|ERROR)$")

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def files_dir(self) -> Path:
        """Where writers and file-writing detectors put their files."""
        return self.data_dir / "files"

    @property
    def file_list(self) -> Path:
        """The list of all files of runs that were ever announced."""
        return self.data_dir / "files.jsonl"

    @property
    def catalog_dir(self) -> Path:
        """Where the embedded Tiled server keeps its catalogue, tables and arrays."""
        return self.data_dir / "catalog"

    @property
    def people(self) -> Path:
        """The book of users and keys."""
        return self.data_dir / "people.json"

    @property
    def history_index(self) -> Path:
        """The file by which the scan server searches the history; made anew when it is missing."""
        return self.data_dir / f"history-{self.beamline}.sqlite"

    @property
    def scan_number(self) -> Path:
        """The file that has the highest scan number, for when Redis has lost it."""
        return self.data_dir / f"scan-number-{self.beamline}"

    def environment(self) -> dict[str, str]:
        """Give these settings as environment variables for a child process."""
        values: dict[str, object] = self.model_dump()
        return {f"BEC_BLUESKY_{name.upper()}": str(value) for name, value in values.items() if value is not None}

    def with_(self, **changes: object) -> Self:
        """Copy with changes, checked like the original."""
        return load(**(self.model_dump() | changes))  # pyright: ignore[reportReturnType]  # load() returns Settings


def _shown(value: object) -> str:
    """Show what was given, without the password or key that may be in an address."""
    return re.sub(r"(?<=://)[^/\s]*@|(?<=api_key=)[^&'\s]*", "…", repr(value))


def load(**given: object) -> Settings:
    """Read the settings: `given` ones, then the environment, then defaults.

    Raises SettingsError with one line a wrong value.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # pyright: ignore[reportArgumentType]  # checked by pydantic
    except ValidationError as error:
        lines = [
            f"BEC_BLUESKY_{'.'.join(map(str, e['loc'])).upper()}={_shown(e['input'])}: {e['msg']}"
            for e in error.errors()
        ]
        raise SettingsError("; ".join(lines)) from None
