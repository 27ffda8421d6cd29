"""Waiting items by place or uid, with the words in which bluesky-queueserver says that there is no such item."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError, UnknownItemError
from bec_bluesky.messages.queue import Queue, QueueItem

__all__ = ["check_uids", "find_end", "find_item", "refuse_missing"]


def find_item(queue: Queue, pos: Any, uid: Any, running: str = "The item is currently running.") -> QueueItem:
    """Give a waiting item by its place or its uid."""
    if pos is not None and uid is not None:
        raise BadArgumentError("Ambiguous parameters: plan position and UID is specified")
    if uid is not None:
        if queue.running is not None and queue.running.item_id == uid:
            raise RefusedError(running, "item_running")
        for item in queue.waiting:
            if item.item_id == uid:
                return item
        raise UnknownItemError(f"Item with UID '{uid}' is not in the queue.")
    index = {"front": 0, "back": -1, None: -1}.get(pos, pos) if isinstance(pos, str | None) else pos
    if isinstance(index, bool) or not isinstance(index, int):
        raise BadArgumentError(f"Parameter 'pos' has incorrect type: pos={pos} (type={type(pos)})")
    try:
        return queue.waiting[index]
    except IndexError:
        shown = "back" if pos is None else pos
        raise UnknownItemError(f"Index '{index}' is out of range (parameter pos = '{shown}')") from None


def find_end(end: str, words: str, queue: Queue, pos: Any, uid: Any) -> QueueItem:
    """Give the item at one end of a move, `Source` or `Destination`."""
    try:
        return find_item(queue, pos, uid)
    except RefusedError as error:
        raise UnknownItemError(f"{end} plan ({words}) was not found: {error}.") from None


def check_uids(uids: Any) -> None:
    """Refuse what is no list of uids."""
    if uids is None:
        raise BadArgumentError("Request does not contain the list of UIDs")
    if not isinstance(uids, list | tuple) or not all(isinstance(uid, str) for uid in uids):
        raise BadArgumentError(f"Parameter 'uids' must be a list: type(uids) = {type(uids)}")


def refuse_missing(uids: Any, waiting: Mapping[str, QueueItem]) -> None:
    """Refuse uids that do not wait."""
    missing = [uid for uid in uids if uid not in waiting]
    if missing:
        raise UnknownItemError(f"The queue does not contain items with the following UIDs: {missing}")
