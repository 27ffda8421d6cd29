"""The scan server: validates requests, keeps the queue, and has a worker process run the plans."""

from bec_bluesky.scan_server._accepts import write as accepted_in_words
from bec_bluesky.scan_server._patience import Patience
from bec_bluesky.scan_server._service import ScanServer

__all__ = ["Patience", "ScanServer", "accepted_in_words"]
