"""`python -m bec_bluesky.documents --process WORD`: host the callbacks and writers of one process of the profile."""

import argparse
import sys
from functools import partial

from bec_bluesky.documents._host import DocumentService
from bec_bluesky.service import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="documents")
    parser.add_argument("--process", required=True, help="the word that [[hosted]] entries of profile.toml share")
    parser.add_argument("--terminal", action="store_true", help="log to the terminal too")
    options = parser.parse_args()
    sys.exit(
        main(
            partial(DocumentService, process=options.process),
            name=f"documents-{options.process}",
            terminal=options.terminal,
        )
    )
