"""`python -m bec_bluesky.scan_server [--standby | --take-over]`."""

import argparse
import sys
from functools import partial

from bec_bluesky.scan_server._service import ScanServer
from bec_bluesky.service import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scan_server", description=ScanServer.__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--standby",
        dest="take_over",
        action="store_const",
        const="when_free",
        help="wait until the scan server that runs is gone, then take over",
    )
    what.add_argument(
        "--take-over",
        action="store_const",
        const="at_once",
        help="take over from the one that runs, which stops itself; what it runs is held",
    )
    parser.set_defaults(take_over="if_free")
    parser.add_argument("--terminal", action="store_true", help="log to the terminal too")
    options = parser.parse_args()
    make = partial(ScanServer, take_over=options.take_over)
    sys.exit(main(make, name=ScanServer.name, terminal=options.terminal))
