"""Which finished items are looked for."""

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages.queue import GetHistory, QueueItem

__all__ = ["bounds", "matches"]


def matches(asked: GetHistory, item: QueueItem) -> bool:
    """Tell whether an item is one of those that are asked for; bounds of time are applied elsewhere."""
    result = item.result
    exact = (
        (asked.plan, item.plan),
        (asked.user, item.user),
        (asked.sample, item.sample),
        (asked.status, "" if result is None else result.exit_status),
    )
    if any(wanted and wanted != found for wanted, found in exact):
        return False
    if not asked.text:
        return True
    reason = "" if result is None else result.reason
    texts = (item.plan, item.title, item.note, item.sample, item.user, reason, item.item_id)
    return any(asked.text.casefold() in text.casefold() for text in texts)


def bounds(asked: GetHistory) -> tuple[str, str]:
    """Give the oldest and the newest entry that the bounds of time allow, as ids of the stream of finished items."""
    since, until = asked.since, asked.until
    for name, value in (("since", since), ("until", until)):
        if value is not None and not 0 <= value < 1e11:
            raise BadArgumentError(f"{name}={value!r} is no time: give seconds since 1970")
    return "-" if since is None else str(int(since * 1000)), "+" if until is None else str(int(until * 1000))
