"""HTTP on the loopback interface: status, and the embedded Tiled catalogue below `/tiled`."""

from bec_bluesky.api._server import ApiServer
from bec_bluesky.api._tiled_profile import profile_name

__all__ = ["ApiServer", "profile_name"]
