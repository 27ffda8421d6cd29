"""Methods about the queue, its items, and the history."""

import re
from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, BecBlueskyError, RefusedError, UnknownItemError
from bec_bluesky.messages.queue import (
    AddItems,
    ClearQueue,
    EditItem,
    ExecuteItem,
    GetQueue,
    ItemAccepted,
    ItemsChanged,
    MoveItems,
    Queue,
    RemoveItems,
    SetQueueMode,
    StartQueue,
    StopQueue,
)
from bec_bluesky.queueserver._item_search import check_uids, find_end, find_item, refuse_missing
from bec_bluesky.queueserver._items import add_item_of, item_of, item_type_of
from bec_bluesky.queueserver._scan_server import ScanServerAccess

__all__ = ["QueueMethods"]

_MODES = {"loop": bool, "ignore_failures": bool}
_OF_BATCH = re.compile(r"item (\d+) of \d+: (.*)", re.S)
_ENDS = ("front", "back")
_ADDING = 1.5
"""Seconds for which an item is checked: clients wait 2 s. One that no worker could check is checked before it runs."""
_ADDING_EACH = 0.01
"""Seconds for each more item of a batch."""


class QueueMethods:
    """`queue_…` and `history_…`."""

    def __init__(self, access: ScanServerAccess) -> None:
        self._access = access

    # ── looking ──

    async def get(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the waiting and the running items."""
        queue, uid = await self._queue()
        running = {} if queue.running is None else item_of(queue.running)
        return {"items": [item_of(item) for item in queue.waiting], "running_item": running, "plan_queue_uid": uid}

    async def _queue(self) -> tuple[Queue, str]:
        """Give the queue and an id that is no newer than it."""
        uid = self._access.mirror.queue_uid
        return await self._access.ask(GetQueue()), uid

    async def get_item(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give one waiting item, by place or uid."""
        queue, _ = await self._queue()
        return {"item": item_of(find_item(queue, params.get("pos"), params.get("uid")))}

    async def history(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the finished items, oldest first."""
        items, uid = await self._access.mirror.history()
        return {"items": items, "plan_history_uid": uid}

    async def clear_history(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Hide finished items from clients of this interface; the scan server's history keeps them."""
        size, item_uid = params.get("size"), params.get("item_uid")
        if size is not None and item_uid is not None:
            raise BadArgumentError("Parameters 'size' and 'item_uid' are mutually exclusive.")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
            raise BadArgumentError(f"The 'size' parameter must be an integer: size={size!r}")
        if item_uid is not None and not isinstance(item_uid, str):
            raise BadArgumentError(f"The 'item_uid' parameter must be a string: item_uid={item_uid!r}")
        await self._access.check_key(params, "queue")
        await self._access.mirror.hide_history(size=size, item_uid=item_uid)
        return {}

    # ── adding ──

    async def add(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Add an item at its place."""
        if "item" not in params:
            raise BadArgumentError("Incorrect request format: request contains no item info")
        item_type_of(params["item"])
        _, group = self._access.user_of(params)
        try:
            asked = add_item_of(params["item"], group)
            place = await self._place(params, "pos")
            changed: ItemsChanged = await self._access.change(
                AddItems(items=[asked], **place), params, answer_within=_ADDING
            )
        except BecBlueskyError as error:
            self._tell_added("Item added", False, params["item"], None)
            found = _OF_BATCH.fullmatch(str(error))
            raise (RefusedError(found.group(2), getattr(error, "code", None)) if found else error) from None
        written = item_of(changed.items[0])
        self._tell_added("Item added", True, written, self._size())
        return {"qsize": self._size(), "item": written}

    async def add_all(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Add several items together, all or none; `results` says what is wrong with each that is."""
        items = params.get("items")
        if "items" not in params:
            raise BadArgumentError("Invalid request format: the list of items is not found")
        if not isinstance(items, list | tuple):
            raise BadArgumentError(f"Invalid request format: 'items' must be a list, it is {type(items)}")
        _, group = self._access.user_of(params)
        place = await self._place(params, "pos")
        if not items:
            return {"items": [], "results": [], "qsize": self._size()}
        wrong: dict[int, str] = {}
        asked: list[Any] = []
        for number, item in enumerate(items):
            try:
                asked.append(add_item_of(item, group))
            except BadArgumentError as error:
                wrong[number] = str(error)
        written: list[Any] = []
        if not wrong:
            try:
                changed: ItemsChanged = await self._access.change(
                    AddItems(items=asked, **place), params, answer_within=_ADDING + _ADDING_EACH * len(asked)
                )
                written = [item_of(item) for item in changed.items]
            except RefusedError as error:
                wrong = _wrong_ones(str(error))
                if not wrong:
                    raise
        self._tell_added("Batch of items added", not wrong, None, self._size())
        if wrong:
            results = [
                {"success": n not in wrong, "msg": f"Failed to add a plan: {wrong[n]}" if n in wrong else ""}
                for n in range(len(items))
            ]
            text = f"Failed to add all items: validation of {len(wrong)} out of {len(items)} submitted items failed"
            return {
                "success": False,
                "msg": text,
                "items": list(items),
                "results": results,
                "qsize": self._size(),
            }
        return {"items": written, "results": [{"success": True, "msg": ""} for _ in written], "qsize": self._size()}

    async def update(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Replace a waiting item where it stands."""
        if "item" not in params:
            raise BadArgumentError("Incorrect request format: request contains no item info")
        item = params["item"]
        item_type_of(item)
        _, group = self._access.user_of(params)
        uid = item.get("item_uid")
        if not isinstance(uid, str):
            raise BadArgumentError("Item description contains no UID and UID generation is skipped")
        asked = EditItem(item_id=uid, item=add_item_of(item, group), has_new_id=bool(params.get("replace", False)))
        try:
            accepted: ItemAccepted = await self._access.change(asked, params, answer_within=_ADDING)
        except UnknownItemError:
            text = f"Failed to replace item: Item with UID '{uid}' is not in the queue"
            raise UnknownItemError(text) from None
        except RefusedError as error:
            if error.code == "item_running":
                text = f"Failed to replace item: Item with UID '{uid}' is currently running"
                raise RefusedError(text, error.code) from None
            raise
        return {"qsize": self._size(), "item": item_of(accepted.item)}

    async def execute(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Run an item at once, past the queue."""
        if "item" not in params:
            raise BadArgumentError("Incorrect request format: request contains no item info")
        kind = item_type_of(params["item"])
        _, group = self._access.user_of(params)
        asked = add_item_of(params["item"], group)
        self._access.require_environment()
        self._access.require_idle()
        if kind == "instruction":
            raise RefusedError("an instruction to the queue does nothing outside of it: add it to the queue")
        accepted: ItemAccepted = await self._access.change(ExecuteItem(item=asked), params, answer_within=_ADDING)
        self._access.feed.say("Starting the plan")
        return {"qsize": self._size(), "item": item_of(accepted.item)}

    # ── moving and removing ──

    async def move(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Move one item."""
        pos, uid, target = params.get("pos"), params.get("uid"), params.get("pos_dest")
        before, after = params.get("before_uid"), params.get("after_uid")
        if pos is None and uid is None:
            raise BadArgumentError("Source position or UID is not specified.")
        if target is None and before is None and after is None:
            raise BadArgumentError("Destination position or UID is not specified.")
        if pos is not None and uid is not None:
            raise BadArgumentError("Ambiguous parameters: Both position and uid is specified for the source plan.")
        if target is not None and (before is not None or after is not None):
            text = "Ambiguous parameters: Both position and uid is specified for the destination plan."
            raise BadArgumentError(text)
        if before is not None and after is not None:
            text = "Ambiguous parameters: source should be moved 'before' and 'after' the destination."
            raise BadArgumentError(text)
        queue, _ = await self._queue()
        source = find_end("Source", f"UID '{uid}'" if uid is not None else f"position {pos}", queue, pos, uid)
        known = before if before is not None else after
        words = f"UID '{known}'" if known is not None else f"position {target}"
        destination = find_end("Destination", words, queue, target, known)
        if source.item_id != destination.item_id:
            waiting = [item.item_id for item in queue.waiting]
            is_before = before is not None
            if target is not None:
                is_before = target == "front" or (
                    target != "back" and waiting.index(source.item_id) > waiting.index(destination.item_id)
                )
            moved = MoveItems(
                item_ids=[source.item_id],
                before=destination.item_id if is_before else "",
                after="" if is_before else destination.item_id,
            )
            await self._access.change(moved, params)
        return {"item": item_of(source), "qsize": self._size()}

    async def move_all(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Move several items together."""
        uids, target = params.get("uids"), params.get("pos_dest")
        before, after = params.get("before_uid"), params.get("after_uid")
        check_uids(uids)
        if sum(each is not None for each in (target, before, after)) != 1:
            raise BadArgumentError("Destination for the batch: give one of 'pos_dest', 'before_uid' and 'after_uid'")
        if target is not None and target not in _ENDS:
            raise BadArgumentError(f"Parameter 'pos_dest' has incorrect value: {target!r}: it is one of {_ENDS}")
        if len(set(uids)) != len(uids):  # pyright: ignore[reportArgumentType]  # a list, as checked
            raise BadArgumentError(f"The list of contains repeated UIDs ({len(uids) - len(set(uids))} UIDs)")  # pyright: ignore[reportArgumentType]
        for name, uid in (("before_uid", before), ("after_uid", after)):
            if uid is not None and uid in uids:  # pyright: ignore[reportOperatorIssue]
                raise BadArgumentError(f"Parameter '{name}': item with UID '{uid}' is in the batch")
        queue, _ = await self._queue()
        waiting = {item.item_id: item for item in queue.waiting}
        refuse_missing(uids, waiting)
        if params.get("reorder", False):
            uids = [uid for uid in waiting if uid in set(uids)]  # pyright: ignore[reportArgumentType]
        if not uids:
            return {"items": [], "qsize": self._size()}
        place: dict[str, Any] = {"position": 0} if target == "front" else {}
        place |= {"before": before} if before is not None else {"after": after} if after is not None else {}
        await self._access.change(MoveItems(item_ids=list(uids), **place), params)
        return {"items": [item_of(waiting[uid]) for uid in uids], "qsize": self._size()}

    async def remove(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Take one item out, the last one unless another is named."""
        self._access.feed.say("Removing item from the queue ...")
        pos, uid = params.get("pos"), params.get("uid")
        queue, _ = await self._queue()
        if uid is None and pos in (None, *_ENDS) and not queue.waiting:
            raise UnknownItemError("Queue is empty")
        item = find_item(queue, pos, uid, "Can not remove an item which is currently running.")
        await self._access.change(RemoveItems(item_ids=[item.item_id]), params)
        return {"item": item_of(item), "qsize": self._size()}

    async def remove_all(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Take several items out."""
        self._access.feed.say("Removing a batch of items from the queue ...")
        uids = params.get("uids")
        check_uids(uids)
        is_lenient = bool(params.get("ignore_missing", True))
        if not is_lenient:
            if len(set(uids)) != len(uids):  # pyright: ignore[reportArgumentType]  # a list, as checked
                raise BadArgumentError(f"The list of contains repeated UIDs ({len(uids) - len(set(uids))} UIDs)")  # pyright: ignore[reportArgumentType]
            queue, _ = await self._queue()
            refuse_missing(uids, {item.item_id: item for item in queue.waiting})
        asked = RemoveItems(item_ids=list(uids), ignore_missing=is_lenient)  # pyright: ignore[reportArgumentType]
        changed: ItemsChanged = await self._access.change(asked, params)
        return {"items": [item_of(item) for item in changed.items], "qsize": self._size()}

    async def clear(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Take all waiting items out."""
        self._access.feed.say("Clearing the queue ...")
        await self._access.change(ClearQueue(), params)
        return {}

    # ── the queue as a whole ──

    async def start(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start the queue; an empty one is no error."""
        self._access.require_environment()
        await self._access.mirror.refresh()
        self._access.require_idle()
        self._access.feed.say("Starting queue processing ...")
        try:
            await self._access.change(StartQueue(), params)
        except RefusedError as error:
            if error.code != "queue_empty":
                raise
            self._access.feed.say("Queue is empty.")
        return {}

    async def stop(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stop the queue after the running item."""
        if self._access.state not in ("executing_queue", "paused", "starting_queue"):
            state = self._access.state
            text = f"Failed to pause the queue. Queue is not running. Manager state: {state}"
            raise RefusedError(text, "queue_stopped")
        self._access.feed.say("Activating 'stop queue' sequence ...")
        await self._access.change(StopQueue(), params)
        return {}

    async def cancel_stop(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Take back that the queue is to stop; that it does not run is no error."""
        try:
            await self._access.change(StopQueue(cancel=True), params)
        except RefusedError as error:
            if error.code != "queue_stopped":
                raise
        return {}

    async def set_autostart(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Have the queue start by itself, or not."""
        if "enable" not in params:
            raise BadArgumentError("Required 'enable' parameter is missing in 'queue_autostart' API call.")
        enable = params["enable"]
        if not isinstance(enable, bool):
            raise BadArgumentError(f"Required 'enable' parameter must be boolean: type(enable)={type(enable)}.")
        await self._access.change(SetQueueMode(autostart=enable), params)
        return {}

    async def set_mode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Set loop and ignore_failures."""
        if "mode" not in params:
            raise BadArgumentError(f"Parameter 'mode' is not found in request {dict(params)}")
        mode = params["mode"]
        if mode == "default":
            mode = dict.fromkeys(_MODES, False)
        if not isinstance(mode, Mapping):
            raise BadArgumentError(
                f"Queue mode is passed using object of unsupported type '{type(mode)}': mode={mode!r}. "
                "Supported types: ('dict', 'str')"
            )
        for name, value in mode.items():
            if name not in _MODES:
                raise BadArgumentError(
                    f"Unsupported plan queue mode parameter '{name}': supported parameters {list(_MODES)}"
                )
            if not isinstance(value, bool):
                raise BadArgumentError(
                    f"Unsupported type '{type(value)}' of the parameter '{name}': expected type '{bool}'"
                )
        await self._access.change(SetQueueMode(**mode), params)
        return {}

    # ── parts ──

    def _size(self) -> int:
        status = self._access.mirror.status
        return 0 if status is None else status.waiting

    def _tell_added(self, prefix: str, success: bool, item: Any, size: int | None) -> None:
        facts = item if isinstance(item, Mapping) else {}
        told = {key: facts[key] for key in ("item_type", "name", "item_uid") if key in facts}
        words = "".join(f" {key}={value!r}" for key, value in told.items())
        self._access.feed.say(f"{prefix}: success={success}{words} qsize={size}.")

    async def _place(self, params: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Read where items go."""
        pos, before, after = params.get(name), params.get("before_uid"), params.get("after_uid")
        if pos is not None and (before is not None or after is not None):
            raise BadArgumentError("Ambiguous parameters: plan position and UID is specified")
        if before is not None and after is not None:
            raise BadArgumentError(
                "Ambiguous parameters: request to insert the plan before and after the reference plan"
            )
        if before is None and after is None:
            if pos in (None, "back"):
                return {}
            if pos == "front":
                return {"position": 0}
            if isinstance(pos, bool) or not isinstance(pos, int):
                raise BadArgumentError(f"Parameter 'pos' has incorrect value: pos='{pos}' (type={type(pos)})")
            return {"position": pos}
        uid = str(before if before is not None else after)
        queue, _ = await self._queue()
        is_running = queue.running is not None and queue.running.item_id == uid
        if not is_running and all(item.item_id != uid for item in queue.waiting):
            raise UnknownItemError(f"Plan with UID '{uid}' is not in the queue.")
        if is_running and before is not None:
            raise RefusedError("Can not insert a plan in the queue before a currently running plan.", "bad_place")
        return {"before": uid} if before is not None else {"after": uid}


def _wrong_ones(text: str) -> dict[int, str]:
    """Read which items of a batch were refused, by index from 0."""
    lines = re.split(r"\n(?=item \d+ of \d+: )", text)
    found = [_OF_BATCH.fullmatch(line) for line in lines]
    return {int(each.group(1)) - 1: each.group(2) for each in found if each is not None}
