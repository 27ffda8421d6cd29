"""The embedded Tiled catalogue of runs: its configuration, its files, and the ASGI app that serves it.

By default metadata are in SQLite, the events' columns in tables of a second SQLite file (any number of processes may
read while one writes, which DuckDB refuses); with `settings.catalog_url` both are in PostgreSQL. Arrays are Zarr files.
Frames stay in the detectors' own files below `settings.files_dir`.
"""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bec_bluesky.errors import SettingsError
from bec_bluesky.log import logger
from bec_bluesky.settings import Settings

__all__ = ["build_catalog_app", "catalog_configuration", "catalog_exists"]

_log = logger(__name__)
_EXPORTER = "bec_bluesky.documents._recorded:json_seq_exporter"
"""Not in the configuration that others read: they may not have this package."""


def _metadata_file(settings: Settings) -> Path:
    return settings.catalog_dir / "catalog.db"


def _tables_file(settings: Settings) -> Path:
    return settings.catalog_dir / "tables.db"


def _metadata_url(settings: Settings) -> str:
    """Give the address of the metadata, as SQLAlchemy takes it."""
    if settings.catalog_url:
        return f"postgresql+asyncpg://{settings.catalog_url.partition('://')[2]}"
    return f"sqlite+aiosqlite:///{_metadata_file(settings)}"


def catalog_exists(settings: Settings) -> bool:
    """Tell whether a catalogue was ever made in this data directory."""
    if settings.catalog_url:
        return True
    return _metadata_file(settings).is_file() and _tables_file(settings).is_file()


def catalog_configuration(
    settings: Settings, api_key: str, *, read_only: bool = False, root_path: str = ""
) -> dict[str, Any]:
    """Give Tiled's configuration of the catalogue; it is plain data, fit for a `direct` profile.

    `root_path` is the prefix under which the app is mounted.
    """
    tables = settings.catalog_url or f"sqlite:///{_tables_file(settings)}"
    arrays = str(settings.catalog_dir / "arrays")
    catalog: dict[str, Any] = {
        "uri": _metadata_url(settings),
        "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
        "metadata": {"name": settings.beamline},
        "readable_storage": [str(settings.files_dir)],
    }
    if read_only:
        if not settings.catalog_url:
            path = quote(str(_metadata_file(settings)))
            catalog["uri"] = f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true"
        catalog["readable_storage"] += [tables, arrays]
    else:
        catalog["writable_storage"] = [arrays, tables]
    return {
        "trees": [{"path": "/", "tree": "catalog", "args": catalog}],
        "authentication": {"single_user_api_key": api_key, "allow_anonymous_access": False},
        "media_types": {"BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}},
        "routers": ["bluesky_tiled_plugins.routers.validator:router"],
        "metrics": {"prometheus": False},
        "uvicorn": {"root_path": root_path},
    }


def build_catalog_app(settings: Settings, api_key: str, *, read_only: bool = False, root_path: str = "") -> Any:
    """Make the ASGI app; the catalogue is created if there is none yet, unless `read_only`.

    Takes about two seconds, nearly all of it imports: call it in a thread where an event loop is waiting. Raises
    SettingsError if the directory cannot be written or the catalogue was made by another version of Tiled.
    """
    if not read_only:
        _prepare(settings)
    from tiled.server.app import build_app_from_config

    configuration = catalog_configuration(settings, api_key, read_only=read_only, root_path=root_path)
    configuration["media_types"]["BlueskyRun"] = {"application/json-seq": _EXPORTER}
    return build_app_from_config(configuration)


def _prepare(settings: Settings) -> None:
    try:
        for directory in (settings.catalog_dir, settings.catalog_dir / "arrays", settings.files_dir):
            directory.mkdir(parents=True, exist_ok=True)
        if not settings.catalog_url:
            _prepare_tables(_tables_file(settings))
    except (OSError, sqlite3.Error) as error:
        raise SettingsError(
            f"the catalogue directory {settings.catalog_dir} cannot be written ({error}): "
            "set BEC_BLUESKY_DATA_DIR to another one"
        ) from error
    asyncio.run(_initialize(_metadata_url(settings)))


def _prepare_tables(path: Path) -> None:
    """Make the file of the tables one in which readers and the writer do not wait for each other, as Tiled's own is."""
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


async def _initialize(url: str) -> None:
    """Create the tables where there are none; what an interrupted start left half made is completed.

    Tiled itself starts a process for this at every start (two seconds); here it costs milliseconds.
    """
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine
    from tiled.alembic_utils import DatabaseUpgradeNeeded, UninitializedDatabase, UnrecognizedDatabase, check_database
    from tiled.catalog.alembic_constants import ALEMBIC_DIR
    from tiled.catalog.core import ALL_REVISIONS, REQUIRED_REVISION, initialize_database

    def stamp(connection: Connection) -> None:
        MigrationContext.configure(connection).stamp(ScriptDirectory(str(ALEMBIC_DIR)), "head")

    engine = create_async_engine(url)
    place = engine.url.render_as_string(hide_password=True)
    try:
        with contextlib.suppress(UninitializedDatabase):
            await check_database(engine, REQUIRED_REVISION, ALL_REVISIONS)
            return
        await initialize_database(engine)
        async with engine.begin() as connection:
            await connection.run_sync(stamp)
        _log.info("made the catalogue %s", place)
    except DatabaseUpgradeNeeded as error:
        raise SettingsError(
            f"the catalogue {place} was made by an older Tiled: copy it, "
            f"then run `tiled catalog upgrade-database {place}`"
        ) from error
    except UnrecognizedDatabase as error:
        raise SettingsError(f"{place} is no catalogue that this version of Tiled can read: {error}") from error
    except (OSError, SQLAlchemyError) as error:
        raise SettingsError(
            f"the catalogue {place} cannot be opened ({error}): check BEC_BLUESKY_CATALOG_URL and its server"
        ) from error
    finally:
        await engine.dispose()
