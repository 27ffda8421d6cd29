"""`python -m bec_bluesky.device_server [--server NAME]`."""

import argparse
import sys
from functools import partial

from bec_bluesky.device_server._servers import MAIN, service_name
from bec_bluesky.device_server._service import DeviceServer
from bec_bluesky.service import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="device_server")
    parser.add_argument("--server", default=MAIN, help="its name, as in `server:` of the device file")
    parser.add_argument("--terminal", action="store_true", help="log to the terminal too")
    options = parser.parse_args()
    name = service_name(options.server)
    sys.exit(main(partial(DeviceServer, server=options.server), name=name, terminal=options.terminal))
