"""`python -m bec_bluesky.scan_server.worker --fd N`: started by the scan server, with a socket pair's end as N."""

import argparse
import logging
import os
import signal
import socket
import sys

from bec_bluesky import log
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.scan_server._output import write_lines_at_once
from bec_bluesky.settings import load


def main() -> int:
    """Run the worker process; gives its exit code. What went wrong is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="bec_bluesky.scan_server.worker")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the connection to the scan server")
    options = parser.parse_args()
    os.set_inheritable(options.fd, False)  # or what a plan leaves running would hold the connection open
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal means the scan server, which then says so
    write_lines_at_once()
    settings = load()
    log.set_up("worker", level=settings.log_level)  # stderr: the scan server keeps it in a file, with what plans print
    logging.getLogger("bluesky").setLevel(logging.WARNING)
    connection = socket.socket(fileno=options.fd)
    try:
        from bec_bluesky.scan_server.worker._worker import Worker  # seconds of imports: say first what is wrong

        worker = Worker(settings, connection)
        signal.signal(signal.SIGTERM, lambda *_: worker.shut_down())
        worker.run()
    except (BecBlueskyError, OSError) as error:
        sys.stderr.write(f"worker: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
