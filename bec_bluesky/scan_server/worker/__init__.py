"""The worker process: it owns the RunEngine, runs one item after the other and writes the documents.

`python -m bec_bluesky.scan_server.worker --fd N` speaks frames on the socket N. Importing this package does not import
bluesky.
"""

from bec_bluesky.scan_server.worker._lost_run import close_lost_run

__all__ = ["close_lost_run"]
