"""bluesky-queueserver's interface to this system: its clients work with nothing but an address changed."""

from bec_bluesky.queueserver._feed import Feed
from bec_bluesky.queueserver._methods import Methods
from bec_bluesky.queueserver._service import QueueServer

__all__ = ["Feed", "Methods", "QueueServer"]
