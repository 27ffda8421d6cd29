"""`python -m bec_bluesky.queueserver`: serve bluesky-queueserver's interface."""

import sys

from bec_bluesky.queueserver._service import QueueServer
from bec_bluesky.service import main_of

if __name__ == "__main__":
    sys.exit(main_of(QueueServer))
