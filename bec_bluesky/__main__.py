"""`python -m bec_bluesky` is `bec-bluesky`."""

import sys

from bec_bluesky.cli import main

if __name__ == "__main__":
    sys.exit(main())
