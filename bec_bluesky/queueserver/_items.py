"""Queue items as bluesky-queueserver writes them, and back."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages.queue import AddItem, ItemResult, QueueItem

__all__ = ["add_item_of", "item_of", "item_type_of"]

_GROUP = "user_group"
_CLIENT = "client_properties"
"""Key of our items' properties for what clients of this interface keep in theirs."""
_KNOWN = ("plan", "instruction")
_FORMAT = "Incorrect request format: "


def item_type_of(item: Any, known: tuple[str, ...] = _KNOWN) -> str:
    """Give the type of an item; raises BadArgumentError for what is none of those known."""
    if not isinstance(item, Mapping):
        raise BadArgumentError(
            f"{_FORMAT}incorrect type ('{type(item)}') of item parameter: item parameter must have type 'dict'"
        )
    kind = item.get("item_type")
    if kind is None:
        raise BadArgumentError(f"{_FORMAT}'item_type' key is not found")
    if kind not in known:
        raise BadArgumentError(f"{_FORMAT}unsupported 'item_type' value: '{kind}', supported item types {known}")
    return kind


def add_item_of(item: Any, user_group: str) -> AddItem:
    """Read an item; raises BadArgumentError that says what is wrong with its form."""
    kind = item_type_of(item)
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise BadArgumentError(f"{_FORMAT}'name' of the {kind} is {name!r}: give the name of a {kind}")
    arguments, keywords = item.get("args") or [], item.get("kwargs") or {}
    if not isinstance(arguments, list | tuple):
        raise BadArgumentError(f"Parameter 'args' is not a tuple or a list: {type(arguments)}")
    if not _has_text_keys(keywords):
        raise BadArgumentError(f"Parameter 'kwargs' is not a dictionary: {type(keywords)}")
    properties = item.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise BadArgumentError(f"Parameter 'properties' is not a dictionary: {type(properties)}")
    kept = {name: value for name, value in properties.items() if name not in ("time_start", "immediate_execution")}
    return AddItem(
        plan=name,
        args=list(arguments),
        kwargs=dict(keywords),
        metadata=_metadata(item.get("meta")),
        kind="plan" if kind == "plan" else "instruction",
        goes_back=kind == "plan",
        properties={_GROUP: user_group} | ({_CLIENT: kept} if kept else {}),
    )


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _metadata(meta: Any) -> dict[str, Any]:
    """Merge what stands under `meta`: a dictionary, or a list of them of which the first that has a key counts."""
    each = meta if isinstance(meta, list | tuple) else [meta or {}]
    merged: dict[str, Any] = {}
    for part in each:
        if not _has_text_keys(part):
            raise BadArgumentError(f"Plan parameter 'meta' must be a dictionary or a list of them, it is {meta!r}")
        merged = dict(part) | merged
    return merged


def item_of(item: QueueItem) -> dict[str, Any]:
    """Write an item."""
    written: dict[str, Any] = {"item_type": item.kind, "name": item.plan}
    if item.args:
        written["args"] = item.args
    if item.kwargs:
        written["kwargs"] = item.kwargs
    if item.metadata:
        written["meta"] = item.metadata
    written |= {
        "item_uid": item.item_id,
        "user": item.user,
        "user_group": item.properties.get(_GROUP, "primary"),
    }
    properties = dict(item.properties.get(_CLIENT, {}))
    if item.state == "running":
        properties["time_start"] = item.properties.get("time_start", item.added)
        if item.is_immediate:
            properties["immediate_execution"] = True
    if item.state == "held":
        properties["held"] = item.held
    if properties:
        written["properties"] = properties
    if item.result is not None:
        written["result"] = _result(item.result)
    return written


def _result(result: ItemResult) -> dict[str, Any]:
    return {
        "exit_status": result.exit_status,
        "run_uids": result.run_uids,
        "scan_ids": result.scan_ids,
        "time_start": result.time_start,
        "time_stop": result.time_stop,
        "msg": result.reason,
        "traceback": result.traceback,
    }
