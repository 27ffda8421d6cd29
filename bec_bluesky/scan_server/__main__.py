"""`python -m bec_bluesky.scan_server`."""

import sys

from bec_bluesky.scan_server._service import ScanServer
from bec_bluesky.service import main_of

if __name__ == "__main__":
    sys.exit(main_of(ScanServer))
