"""What roles may do: scopes, as bluesky-httpserver names them."""

from types import MappingProxyType

from bec_bluesky.errors import BadArgumentError, choices

__all__ = ["ALL_SCOPES", "ROLES", "STOPPING", "checked_role", "default_group", "role_named"]

_READ = frozenset(
    f"read:{name}"
    for name in ("status", "queue", "history", "resources", "config", "monitor", "console", "lock", "testing")
)
_RUN = frozenset(
    f"write:{name}"
    for name in ("queue:edit", "queue:control", "manager:control", "plan:control", "execute", "history:edit")
)
_SET_UP = frozenset(f"write:{name}" for name in ("permissions", "scripts", "config", "lock"))
_OTHERS = frozenset({"admin:apikeys", "admin:read:principals", "admin:metrics"})
STOPPING = _RUN | _SET_UP
"""Any one of them is enough to stop or to pause: it is refused to nobody who may do anything."""
ALL_SCOPES = _READ | STOPPING | _OTHERS | {"write:manager:stop", "write:testing", "user:apikeys"}

ROLES = MappingProxyType(
    {
        "observer": _READ | {"user:apikeys"},
        "user": _READ | _RUN | {"user:apikeys"},
        "staff": _READ | _RUN | _SET_UP | {"user:apikeys"},
        "admin": ALL_SCOPES,
    }
)
"""Looks on; runs plans; sets up the beamline (rules, scripts, devices, locks); and looks after people, too."""
_OTHER_NAMES = {"expert": "staff", "advanced": "user"}
"""Roles of bluesky-httpserver that are called otherwise here."""


def role_named(name: str) -> str:
    """Give the role of that name; raises BadArgumentError if there is none."""
    return checked_role(_OTHER_NAMES.get(name, name))


def checked_role(name: str) -> str:
    """Give a role as it is kept; raises BadArgumentError for any other name."""
    if name not in ROLES:
        raise BadArgumentError(f"no role {name!r}: {choices(name, ROLES)}")
    return name


def default_group(role: str) -> str:
    """Give the user group whose rules hold for a role unless another one is chosen."""
    return "root" if role in ("staff", "admin") else "primary"
