"""`python -m bec_bluesky.scihub`."""

import sys

from bec_bluesky.scihub._service import SciHub
from bec_bluesky.service import main_of

if __name__ == "__main__":
    sys.exit(main_of(SciHub))
