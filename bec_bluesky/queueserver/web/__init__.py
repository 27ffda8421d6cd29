"""bluesky-httpserver's interface, on `Methods` and `Feed`; and the sockets that Finch takes from elsewhere."""

from bec_bluesky.queueserver.web._app import create_app
from bec_bluesky.queueserver.web._device_sockets import device_socket_router
from bec_bluesky.queueserver.web._door import Door

__all__ = ["Door", "create_app", "device_socket_router"]
