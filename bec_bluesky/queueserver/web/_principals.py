"""Who may do what over HTTP: scopes, principals, and the API keys that were made for them."""

import hashlib
import secrets
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from bec_bluesky.documents import write_private
from bec_bluesky.errors import BadArgumentError, SettingsError

__all__ = ["ALL_SCOPES", "PUBLIC", "SINGLE_USER", "ApiKey", "KeyStore", "Principal"]

_READ = ("status", "queue", "history", "resources", "config", "monitor", "console", "lock", "testing")
_WRITE = (
    *("queue:edit", "queue:control", "manager:control", "plan:control", "execute", "history:edit", "permissions"),
    *("scripts", "config", "lock", "manager:stop", "testing"),
)
ALL_SCOPES = frozenset(
    {f"read:{name}" for name in _READ}
    | {f"write:{name}" for name in _WRITE}
    | {"user:apikeys", "admin:apikeys", "admin:read:principals", "admin:metrics"}
)
"""As bluesky-httpserver has them."""
INHERIT = "inherit"
"""Stands for all scopes that the key's owner has when it is used."""
_SECRET_BYTES = 36
_FIRST = 8
_LONGEST_NOTE = 255
_LONGEST_LIFE = 100 * 365 * 86_400
"""Seconds."""


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as it is kept: its secret cannot be found from it."""

    first_eight: str
    hashed: str
    """SHA-256 of the secret, which has 288 random bits and so needs no salt."""
    owner: str
    scopes: tuple[str, ...]
    note: str | None = None
    expires: float | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    name: str
    """Goes into items and requests as their user."""
    group: str
    roles: tuple[str, ...]
    scopes: frozenset[str]
    provider: str = "__anonymous__"
    key: ApiKey | None = None
    """The key that was shown, if it is one that was made for this principal."""

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"bec-bluesky:{self.provider}:{self.name}"))


SINGLE_USER = Principal("UNAUTHENTICATED_SINGLE_USER", "primary", ("unauthenticated_single_user",), ALL_SCOPES)
"""Whoever has the key of the whole system."""
PUBLIC = Principal("UNAUTHENTICATED_PUBLIC", "primary", ("unauthenticated_public",), frozenset({"read:status"}))
"""Whoever shows no key, where that is allowed."""


@dataclass
class KeyStore:
    """The API keys that were made, in a file that only its owner may read."""

    path: Path
    _keys: dict[str, ApiKey] = field(default_factory=dict[str, ApiKey])
    """By the hash of the secret."""
    _used: dict[str, float] = field(default_factory=dict[str, float])

    def load(self) -> None:
        """Read the file, if there is one; raises SettingsError if it is no list of keys."""
        if not self.path.exists():
            return
        try:
            keys = msgspec.json.decode(self.path.read_bytes(), type=list[ApiKey])
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(f"{self.path} holds no API keys ({error}): repair it, or delete it") from error
        self._keys = {key.hashed: key for key in keys}

    def make(
        self, owner: Principal, scopes: Collection[str] | None, lifetime: int | None, note: str | None
    ) -> tuple[ApiKey, str]:
        """Make a key with some of its owner's scopes; give it and its secret, which nobody can give again.

        Raises BadArgumentError if it were to have more than its owner, or than the key by which it is asked for.
        """
        if lifetime is not None and not 0 < lifetime <= _LONGEST_LIFE:
            raise BadArgumentError(f"expires_in={lifetime}: seconds, more than 0 and at most {_LONGEST_LIFE}")
        if note is not None and len(note) > _LONGEST_NOTE:
            raise BadArgumentError(f"the note has {len(note)} characters: at most {_LONGEST_NOTE}")
        secret = secrets.token_hex(_SECRET_BYTES)
        key = ApiKey(
            first_eight=secret[:_FIRST],
            hashed=_hash(secret),
            owner=owner.name,
            scopes=_scopes_of_new(owner, scopes),
            note=note,
            expires=None if lifetime is None else time.time() + lifetime,
        )
        self._keys = self._alive() | {key.hashed: key}
        self._save()
        return key, secret

    def find(self, secret: str) -> ApiKey | None:
        """Give the living key with this secret."""
        key = self._keys.get(_hash(secret))
        if key is None or not _is_alive(key):
            return None
        self._used[key.hashed] = time.time()
        return key

    def used(self, key: ApiKey) -> float | None:
        """Tell when it was used last since this service started."""
        return self._used.get(key.hashed)

    def of(self, owner: Principal) -> list[ApiKey]:
        """Give the living keys of somebody."""
        return [key for key in self._alive().values() if key.owner == owner.name]

    def revoke(self, owner: Principal, first_eight: str) -> bool:
        """Take a key away; False if its owner has none that begins so."""
        found = [key for key in self.of(owner) if key.first_eight == first_eight[:_FIRST]]
        if not found:
            return False
        self._keys = {hashed: key for hashed, key in self._alive().items() if key not in found}
        self._save()
        return True

    def principal(self, owner: Principal, key: ApiKey) -> Principal:
        """Give the owner with the scopes of one of the keys."""
        scopes = owner.scopes if INHERIT in key.scopes else owner.scopes & frozenset(key.scopes)
        return replace(owner, scopes=scopes, key=key)

    def _alive(self) -> dict[str, ApiKey]:
        return {hashed: key for hashed, key in self._keys.items() if _is_alive(key)}

    def _save(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(list(self._keys.values())), indent=1)
        write_private(self.path, text.decode())


def _scopes_of_new(owner: Principal, asked: Collection[str] | None) -> tuple[str, ...]:
    source = owner.key.scopes if owner.key is not None else (INHERIT,)
    if asked is None or INHERIT in asked:
        return source
    if not set(asked) <= owner.scopes:
        raise BadArgumentError(
            f"Requested scopes {sorted(asked)} must be a subset of the allowed principal's scopes "
            f"{sorted(owner.scopes)}."
        )
    return tuple(sorted(set(asked)))


def _is_alive(key: ApiKey) -> bool:
    return key.expires is None or key.expires > time.time()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
