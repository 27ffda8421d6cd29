"""`python -m bec_bluesky.scan_server.task_process --fd N`: started by the scan server."""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path

from bec_bluesky import log
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.scan_server._output import write_lines_at_once
from bec_bluesky.settings import load

_NICE = 5
"""Scripts that calculate leave the processors to the beamline."""
_FIRST_TO_GO = "500"
"""Of -1000 to 1000: when memory runs out, the kernel ends what scripts filled, not a worker."""


def main() -> None:
    """Run the process; it exits with 0 unless it could not begin. What went wrong is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="bec_bluesky.scan_server.task_process")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the connection to the scan server")
    options = parser.parse_args()
    os.set_inheritable(options.fd, False)  # or what a script leaves running would hold the connection open
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # not on this operating system
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    write_lines_at_once()
    settings = load()
    log.set_up("task_process", level=settings.log_level)
    code = 0
    try:
        from bec_bluesky.scan_server.task_process._task_process import TaskProcess

        TaskProcess(settings, socket.socket(fileno=options.fd)).run()
    except (BecBlueskyError, OSError) as error:
        sys.stderr.write(f"task process: {error}\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # whatever threads scripts have left


if __name__ == "__main__":
    main()
