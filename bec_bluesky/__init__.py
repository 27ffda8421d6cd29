"""Orchestration for synchrotron beamlines: small services on Redis around the Bluesky RunEngine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bec_bluesky.client import connect as connect

__all__ = ["__version__", "connect"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `connect` is fetched on first use, so that importing the package costs nothing.
    if name == "connect":
        from bec_bluesky.client import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
