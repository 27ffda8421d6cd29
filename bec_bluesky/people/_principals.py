"""Who asks: people as they are kept, their keys and sessions, and what comes of them for one request."""

import uuid
from dataclasses import dataclass

import msgspec

from bec_bluesky.people._roles import ALL_SCOPES

__all__ = ["INHERIT", "PUBLIC", "SINGLE_USER", "ApiKey", "Principal", "Session", "User"]

INHERIT = "inherit"
"""Stands for all scopes that the key's owner has when it is used."""


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person, or a program that stands for one."""

    name: str
    role: str
    group: str
    """Whose rules say which plans, devices and functions are open."""
    password: str | None = None
    """As `hash_password` gives it; None: keys only."""
    note: str = ""


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


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who has logged in with a password."""

    id: str
    owner: str
    began: float
    expires: float


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
