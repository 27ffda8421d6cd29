"""The edge to logbooks and catalogues: a run log that is always written, an outbox that is delivered when it can."""

from bec_bluesky.scihub._connectors import Connector, LogbookFile
from bec_bluesky.scihub._journal import Entry, Journal
from bec_bluesky.scihub._service import SciHub

__all__ = ["Connector", "Entry", "Journal", "LogbookFile", "SciHub"]
