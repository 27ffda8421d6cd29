"""`python -m bec_bluesky.api`: serve HTTP and Tiled."""

import sys

from bec_bluesky.api._server import ApiServer
from bec_bluesky.service import main_of

if __name__ == "__main__":
    sys.exit(main_of(ApiServer))
