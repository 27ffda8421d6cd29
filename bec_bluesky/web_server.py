"""An HTTP server inside a service: it listens on the loopback interface and leaves signals to the service."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bec_bluesky.errors import SettingsError

if TYPE_CHECKING:
    import uvicorn

__all__ = ["HOST", "listen", "make_server"]

HOST = "127.0.0.1"


def listen(port: int, setting: str) -> socket.socket:
    """Listen on a port, 0 for any; raises SettingsError that names the `setting` if it cannot be had."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise SettingsError(
            f"port {port} of {HOST} {reason}: set {setting} to another one, or to 0 for any free port"
        ) from error
    listening.setblocking(False)
    return listening


def make_server(app: object) -> "uvicorn.Server":
    """Make a server of an ASGI application, whose lifespan is its maker's business; serve it with `sockets=[…]`."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves the signals to the service."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType]  # an ASGI application
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=2,
        )
    )
