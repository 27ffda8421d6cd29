"""The embedded Tiled catalogue of runs: its configuration, its files, and the ASGI app that serves it.

Metadata are in SQLite, the events' columns in tables of a second SQLite file (any number of processes may read while
one writes, which DuckDB refuses), arrays as Zarr files. Frames stay in the detectors' own files below
`settings.files_dir`.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bec_bluesky.errors import SettingsError
from bec_bluesky.log import logger
from bec_bluesky.settings import Settings

__all__ = ["build_catalog_app", "catalog_configuration", "catalog_exists"]

_log = logger(__name__)


def _metadata_file(settings: Settings) -> Path:
    return settings.catalog_dir / "catalog.db"


def _tables_file(settings: Settings) -> Path:
    return settings.catalog_dir / "tables.db"


def catalog_exists(settings: Settings) -> bool:
    """Tell whether a catalogue was ever made in this data directory."""
    return _metadata_file(settings).is_file() and _tables_file(settings).is_file()


def catalog_configuration(
    settings: Settings, api_key: str, *, read_only: bool = False, root_path: str = ""
) -> dict[str, Any]:
    """Give Tiled's configuration of the catalogue; it is plain data, fit for a `direct` profile.

    `root_path` is the prefix under which the app is mounted.
    """
    metadata = _metadata_file(settings)
    tables = f"sqlite:///{_tables_file(settings)}"
    arrays = str(settings.catalog_dir / "arrays")
    catalog: dict[str, Any] = {
        "uri": f"sqlite+aiosqlite:///{metadata}",
        "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
        "metadata": {"name": settings.beamline},
        "readable_storage": [str(settings.files_dir)],
    }
    if read_only:
        catalog["uri"] = f"sqlite+aiosqlite:///file:{quote(str(metadata))}?mode=ro&uri=true"
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

    return build_app_from_config(catalog_configuration(settings, api_key, read_only=read_only, root_path=root_path))


def _prepare(settings: Settings) -> None:
    try:
        for directory in (settings.catalog_dir, settings.catalog_dir / "arrays", settings.files_dir):
            directory.mkdir(parents=True, exist_ok=True)
        _tables_file(settings).touch(mode=0o600)
    except OSError as error:
        raise SettingsError(
            f"the catalogue directory {settings.catalog_dir} cannot be written ({error.strerror}): "
            "set BEC_BLUESKY_DATA_DIR to another one"
        ) from error
    asyncio.run(_initialize(_metadata_file(settings)))


async def _initialize(path: Path) -> None:
    """Create the tables where there are none; what an interrupted start left half made is completed.

    Tiled itself starts a process for this at every start (two seconds); here it costs milliseconds.
    """
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import create_async_engine
    from tiled.alembic_utils import DatabaseUpgradeNeeded, UninitializedDatabase, UnrecognizedDatabase, check_database
    from tiled.catalog.alembic_constants import ALEMBIC_DIR
    from tiled.catalog.core import ALL_REVISIONS, REQUIRED_REVISION, initialize_database

    def stamp(connection: Connection) -> None:
        MigrationContext.configure(connection).stamp(ScriptDirectory(str(ALEMBIC_DIR)), "head")

    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        with contextlib.suppress(UninitializedDatabase):
            await check_database(engine, REQUIRED_REVISION, ALL_REVISIONS)
            return
        await initialize_database(engine)
        async with engine.begin() as connection:
            await connection.run_sync(stamp)
        _log.info("made the catalogue %s", path)
    except DatabaseUpgradeNeeded as error:
        raise SettingsError(
            f"the catalogue {path} was made by an older Tiled: copy it, "
            f"then run `tiled catalog upgrade-database {path}`"
        ) from error
    except UnrecognizedDatabase as error:
        raise SettingsError(f"{path} is no catalogue that this version of Tiled can read: {error}") from error
    finally:
        await engine.dispose()
