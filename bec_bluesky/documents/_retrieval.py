"""Read stored runs: from the running server, or from its files when it is down."""

from typing import Any

from bec_bluesky.documents._address import CatalogAddress, api_key, find_catalog
from bec_bluesky.documents._catalog import build_catalog_app, catalog_exists
from bec_bluesky.errors import SettingsError
from bec_bluesky.settings import Settings

__all__ = ["open_catalog"]


def open_catalog(settings: Settings, address: CatalogAddress | None = None) -> Any:
    """Give the catalogue of runs as a Tiled client (databroker's `CatalogOfBlueskyRuns`).

    `catalog[-1]` is the newest run, `catalog[12]` the newest with scan number 12, `catalog["3fa85"]` by the beginning
    of its uid; `catalog[-1]["primary"]["det"].read()` is a column. While the API runs it is asked; when it is down, the
    same catalogue is opened here, read-only. With `settings.tiled_url` it is that server that is asked. `address` saves
    looking for the server. Raises SettingsError if there is no catalogue yet, or nobody who answers for it.
    """
    address = address or find_catalog(settings)
    if address is not None:
        from tiled.client import from_uri

        return from_uri(address.uri, api_key=address.api_key or None)
    if settings.tiled_url is not None:
        raise SettingsError(
            f"the Tiled server {settings.tiled_url} does not answer, or does not take the key: ask again when it does, "
            "or check BEC_BLUESKY_TILED_URL and BEC_BLUESKY_TILED_KEY_FILE"
        )
    if not catalog_exists(settings):
        raise SettingsError(
            f"no run was ever catalogued in {settings.catalog_dir}: run `bec-bluesky up`, or set BEC_BLUESKY_DATA_DIR "
            "to the directory that holds the data"
        )
    from tiled.client import from_context
    from tiled.client.context import Context

    return from_context(Context.from_app(build_catalog_app(settings, api_key(settings), read_only=True)))
