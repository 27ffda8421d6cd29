"""What of a finished item can be searched for, and whether it is what is asked for."""

from collections.abc import Iterator
from typing import Any, get_args

from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.queue import MAIN_QUEUE, ExitStatus, GetHistory, ItemResult, QueueItem

__all__ = ["bounds", "check", "is_search", "matches", "queue_of", "status_of", "text_of", "words_of"]

_LONGEST_TEXT = 4_000
"""Letters of an item that are searched: beyond that are only arguments."""


def is_search(asked: GetHistory) -> bool:
    """Tell whether some items are left out other than by their time."""
    names = (asked.plan, asked.user, asked.sample, asked.status, asked.queue, asked.item_id, asked.run_uid)
    return any(names) or asked.scan_id is not None or bool(words_of(asked))


def check(asked: GetHistory) -> None:
    """Refuse what no item can be."""
    if asked.status and asked.status not in get_args(ExitStatus):
        known = ", ".join(get_args(ExitStatus))
        raise RefusedError(f"{asked.status!r} is no way to end: there are {known}", "bad_status")
    if asked.scan_id is not None and not 0 <= asked.scan_id < 2**63:
        raise RefusedError(f"{asked.scan_id} is no scan number", "bad_scan_id")
    bounds(asked)


def words_of(asked: GetHistory) -> list[str]:
    """Give the words that must all be found, as they are compared."""
    return asked.text.replace("\0", " ").casefold().split()


def text_of(item: QueueItem) -> str:
    """Give all that is searched for words, in one text, as it is compared."""
    result = item.result
    reason = "" if result is None else result.reason
    parts = (item.plan, item.title, item.note, item.sample, item.user, reason)
    text = "\n".join((*parts, *_strings(item.args), *_strings(item.kwargs)))
    return text[:_LONGEST_TEXT].replace("\0", " ").casefold()


def queue_of(item: QueueItem) -> str:
    """Give the queue in which it ran, as people call it."""
    return item.queue or MAIN_QUEUE


def status_of(item: QueueItem) -> str:
    """Give how it ended."""
    return "" if item.result is None else item.result.exit_status


def matches(asked: GetHistory, item: QueueItem) -> bool:
    """Tell whether an item is one of those that are asked for; bounds of time are applied elsewhere."""
    exact = (
        (asked.plan, item.plan),
        (asked.user, item.user),
        (asked.sample, item.sample),
        (asked.status, status_of(item)),
        (asked.queue, queue_of(item)),
    )
    if any(wanted and wanted != found for wanted, found in exact) or not item.item_id.startswith(asked.item_id):
        return False
    runs = ItemResult(exit_status="unknown") if item.result is None else item.result
    if asked.scan_id is not None and asked.scan_id not in runs.scan_ids:
        return False
    if asked.run_uid and not any(uid.startswith(asked.run_uid) for uid in runs.run_uids):
        return False
    words = words_of(asked)
    if not words:
        return True
    text = text_of(item)
    return all(word in text for word in words)


def bounds(asked: GetHistory) -> tuple[str, str]:
    """Give the oldest and the newest entry that the bounds of time allow, as ids of the stream of finished items."""
    since, until = asked.since, asked.until
    for name, value in (("since", since), ("until", until)):
        if value is not None and not 0 <= value < 1e11:
            raise BadArgumentError(f"{name}={value!r} is no time: give seconds since 1970")
    return "-" if since is None else str(int(since * 1000)), "+" if until is None else str(int(until * 1000))


def _strings(value: Any) -> Iterator[str]:
    """Give the words among arguments: names of devices and of parameters, texts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
