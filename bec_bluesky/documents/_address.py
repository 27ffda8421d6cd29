"""Where the catalogue of this data directory is served, and the key that opens it."""

import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from bec_bluesky.errors import SettingsError
from bec_bluesky.private_file import write_private
from bec_bluesky.settings import Settings, load

__all__ = [
    "CatalogAddress",
    "api_key",
    "api_uri",
    "external_catalog",
    "find_catalog",
    "publish_address",
    "withdraw_address",
]


@dataclass(frozen=True)
class CatalogAddress:
    """A Tiled server."""

    uri: str
    """Ends with `/api/v1`."""
    api_key: str = field(repr=False)
    """Empty: nobody has to show one."""


def api_uri(uri: str) -> str:
    """Give the address of the API, with `/api/v1`, for the address of a Tiled server."""
    uri = uri.rstrip("/")
    return uri if uri.endswith("/api/v1") else f"{uri}/api/v1"


def external_catalog(settings: Settings) -> CatalogAddress | None:
    """Give the Tiled server that the settings name, whether it answers or not; None if the API serves its own.

    Raises SettingsError if the file with its key cannot be read, or can be by others.
    """
    if settings.tiled_url is None:
        return None
    path = settings.tiled_key_file
    if path is None:
        return CatalogAddress(api_uri(settings.tiled_url), os.environ.get("TILED_API_KEY", "").strip())
    try:
        key = path.read_text(encoding="utf-8").strip()
        is_open = stat.S_IMODE(path.stat().st_mode) & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"BEC_BLUESKY_TILED_KEY_FILE={path} cannot be read ({error})") from error
    if is_open:
        raise SettingsError(f"others may read the key of the Tiled server, {path}: `chmod 600` it")
    return CatalogAddress(api_uri(settings.tiled_url), key)


def api_key(settings: Settings) -> str:
    """Read the key of the HTTP API and of Tiled, or make it; processes that start together get the same one.

    Raises SettingsError if the file cannot be made or read, or if others may read it.
    """
    path = settings.data_dir / "api.key"
    part = path.with_name(f".api.key.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(part, secrets.token_hex(32))
            try:
                os.link(part, path)  # unlike a rename, it never replaces the key of whoever was first
            except FileExistsError:
                pass
            finally:
                part.unlink()
        key = path.read_text(encoding="utf-8").strip()
        is_open = stat.S_IMODE(path.stat().st_mode) & 0o077
    except OSError as error:
        raise SettingsError(
            f"the API key {path} cannot be made or read ({error.strerror}): check who owns it, or set "
            "BEC_BLUESKY_DATA_DIR to another directory"
        ) from error
    if is_open:
        raise SettingsError(f"others may read the API key {path}: `chmod 600` it, or delete it to get a new one")
    if not key.isalnum():
        raise SettingsError(f"{path} holds no key (letters and digits): delete it to get a new one")
    return key


def _address_file(settings: Settings) -> Path:
    return settings.data_dir / "api.json"


def publish_address(settings: Settings, *, url: str, tiled: str) -> None:
    """Say where the API and its Tiled answer, for processes without a bus."""
    write_private(_address_file(settings), json.dumps({"url": url, "tiled": tiled, "pid": os.getpid()}))


def withdraw_address(settings: Settings) -> None:
    """Take the address back, unless another server has published its own since."""
    try:
        if json.loads(_address_file(settings).read_text())["pid"] == os.getpid():
            _address_file(settings).unlink()
    except (OSError, ValueError, KeyError):
        pass


def find_catalog(settings: Settings | None = None, *, timeout: float = 5.0) -> CatalogAddress | None:
    """Give the Tiled server of the settings or the data directory; None if it does not answer in `timeout` seconds.

    Without `settings` those of the environment hold. Raises SettingsError for a key file that cannot be used.
    """
    import httpx

    settings = settings or load()
    address = external_catalog(settings) or _published(settings)
    if address is None:
        return None
    headers = {"Authorization": f"Apikey {address.api_key}"} if address.api_key else {}
    try:
        answer = httpx.get(f"{address.uri}/", headers=headers, timeout=timeout, trust_env=False)
    except httpx.HTTPError:
        return None
    return address if answer.status_code == httpx.codes.OK else None


def _published(settings: Settings) -> CatalogAddress | None:
    """Give the server that the API of this data directory has announced."""
    try:
        tiled = str(json.loads(_address_file(settings).read_text())["tiled"])
        return CatalogAddress(tiled, (settings.data_dir / "api.key").read_text(encoding="utf-8").strip())
    except (OSError, ValueError, KeyError):
        return None
