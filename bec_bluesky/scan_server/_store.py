"""The queues on Redis: each change is one script, refused once a newer scan server took over."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import (
    EPOCH,
    ITEMS,
    ITEMS_DONE,
    NAMED_ORDER,
    NAMED_QUEUE,
    NAMED_STATUS,
    NAMED_STATUS_CHANGED,
    ORDER,
    QUEUE,
    REQUESTS,
    REQUESTS_READ,
    SCAN_STATUS,
    SCAN_STATUS_CHANGED,
)
from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.queue import ItemDone, QueueItem, ScanServerStatus
from bec_bluesky.scan_server._ownership import fenced_text
from bec_bluesky.scan_server._queue import QueueState
from bec_bluesky.scan_server._queue_events import Change, Facts, Finish, Forget, Insert, Put, Take

__all__ = ["Loaded", "QueueStore"]

_log = logger(__name__)
_KEEP_READ: Final = 600
"""Seconds that requests are kept after they were read."""

# `allow-oom`: a full Redis must not stop the queue from being emptied; what is written here is small
_HEAD = """#!lua flags=allow-oom
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return redis.error_reply('FENCED by ' .. tostring(epoch))
end
"""
_WRITE = (
    _HEAD
    + """
local items, order, done, facts = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('HGET', facts, 'write') == ARGV[2] then
  return 0
end
for at = 3, #ARGV, 3 do
  local verb, id, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if verb == 'put' then
    redis.call('HSET', items, id, value)
  elseif verb == 'append' then
    redis.call('RPUSH', order, id)
  elseif verb == 'insert' then
    if redis.call('LINSERT', order, 'BEFORE', value, id) < 1 then
      redis.call('RPUSH', order, id)
    end
  elseif verb == 'take' then
    redis.call('LREM', order, 1, id)
  elseif verb == 'forget' then
    redis.call('HDEL', items, id)
  elseif verb == 'finish' then
    redis.call('XADD', done, '*', 'm', value)
    redis.call('HDEL', items, id)
  else
    redis.call('HSET', facts, id, value)
  end
end
redis.call('HSET', facts, 'write', ARGV[2])
return 1
"""
)
_READ = (
    _HEAD
    + """
redis.call('SET', KEYS[2], ARGV[2])
redis.call('XTRIM', KEYS[3], 'MINID', '~', ARGV[3])
return 1
"""
)
_SAY = (
    _HEAD
    + """
redis.call('SET', KEYS[2], ARGV[2])
return redis.call('PUBLISH', KEYS[3], ARGV[2])
"""
)


@dataclass(frozen=True)
class Loaded:
    """The queues as they stand on Redis."""

    states: dict[str, QueueState]
    """By name; that of the main one is empty."""
    history: int
    problems: list[str] = field(default_factory=list[str])
    """Records that can't be read, one sentence each; they stay where they are."""


class QueueStore:
    """The one writer of the queues' keys. Items and history are in one place for all queues."""

    def __init__(self, bus: Bus, token: int) -> None:
        """Write with a fencing token of `Ownership`; once there is a newer one, whatever this one writes is refused."""
        self._bus = bus
        self._token = token
        self._item_decoder = decoder(QueueItem)
        self._writes = 0
        self._write_lock = asyncio.Lock()

    async def load(self, declared: Iterable[str] = ()) -> Loaded:
        """Read the main queue, those that are declared, and any other one that has items."""
        names = list(dict.fromkeys(["", *declared, *await self._bus.find_tables(NAMED_QUEUE, "queue")]))
        async with self._bus.translated():
            pipeline: Any = self._bus.redis.pipeline(transaction=True)
            pipeline.hgetall(self._bus.key(ITEMS))
            pipeline.xlen(self._bus.key(ITEMS_DONE))
            for name in names:
                order, facts = self._keys(name)
                pipeline.lrange(order, 0, -1)
                pipeline.hgetall(facts)
            raw_items, history, *of_queues = await pipeline.execute()
        problems: list[str] = []
        items: dict[str, QueueItem] = {}
        for item_id, data in raw_items.items():
            try:
                items[item_id.decode()] = self._item_decoder.decode(data)
            except msgspec.MsgspecError as error:
                problems.append(f"queue item {item_id.decode()} cannot be read and is left out: {error}")
        states: dict[str, QueueState] = {}
        for name, order, facts in zip(names, of_queues[::2], of_queues[1::2], strict=True):
            state = _state(items, order, facts)
            is_known = name == "" or name in declared
            if is_known or state.waiting or state.running:
                states[name] = state
            if not is_known and name in states:
                problems.append(f"queue {name} is declared no more and has items: it is kept until a restart without")
        problems += [f"queue item {item_id} ({item.plan}) has no place in the queue" for item_id, item in items.items()]
        return Loaded(states, int(history), problems)

    def _keys(self, queue: str) -> tuple[str, str]:
        """Give the keys of the order and the facts of a queue."""
        if not queue:
            return self._bus.key(ORDER), self._bus.key(QUEUE)
        return self._bus.key(NAMED_ORDER, queue=queue), self._bus.key(NAMED_QUEUE, queue=queue)

    async def write(self, changes: tuple[Change, ...], queue: str = "") -> None:
        """Make changes of one queue durable, all or none.

        Repeated until Redis confirms, which is harmless (they are numbered).

        Raises FencedError if another scan server took over.
        """
        async with self._write_lock:
            self._writes += 1
            order, facts = self._keys(queue)
            keys = [self._bus.key(EPOCH), self._bus.key(ITEMS), order, self._bus.key(ITEMS_DONE), facts]
            arguments: list[str | bytes | int] = [self._token, f"{self._token}:{self._writes}"]
            for change in changes:
                arguments += _verbs(change)
            delay = 0.02
            while True:
                try:
                    await self._fenced(_WRITE, keys, arguments)
                    return
                except FencedError:
                    raise
                except BusError as error:
                    _log.warning("the queue is not written yet: %s; trying again", error)
                    await asyncio.sleep(random.uniform(0.0, delay))
                    delay = min(2 * delay, 1.0)

    async def requests_read(self) -> str:
        """Give the id of the last request that was taken up."""
        data = await self._bus.get(REQUESTS_READ)
        return "0-0" if data is None else data.decode()

    async def take_up(self, request_id: str) -> None:
        """Note that requests up to this id are taken up, before they are carried out: none is carried out twice."""
        keys = [self._bus.key(channel) for channel in (EPOCH, REQUESTS_READ, REQUESTS)]
        oldest = max(0, int(request_id.partition("-")[0]) - _KEEP_READ * 1000)
        await self._fenced(_READ, keys, [self._token, request_id, oldest])

    async def say(self, status: ScanServerStatus) -> None:
        """Put the status of a queue and announce it."""
        if status.queue:
            named = (NAMED_STATUS, NAMED_STATUS_CHANGED)
            keys = [self._bus.key(channel, queue=status.queue) for channel in named]
        else:
            keys = [self._bus.key(SCAN_STATUS), self._bus.key(SCAN_STATUS_CHANGED)]
        await self._fenced(_SAY, [self._bus.key(EPOCH), *keys], [self._token, encode(status)])

    async def _fenced(self, script: str, keys: list[str], arguments: list[str | bytes | int]) -> Any:
        try:
            return await self._bus.evaluate(script, keys, arguments)
        except BusError as error:
            if "FENCED by" in str(error):
                raise FencedError(fenced_text(self._token, str(error).rpartition(" ")[2])) from None
            raise


def _state(items: dict[str, QueueItem], order: list[bytes], facts: dict[bytes, bytes]) -> QueueState:
    """Make the state of one queue; what it has is taken out of `items`."""
    running = items.pop(facts.get(b"running", b"").decode(), None)
    mode: Any = facts.get(b"mode", b"stopped").decode()
    return QueueState(
        waiting=tuple(items.pop(item_id) for raw in order if (item_id := raw.decode()) in items),
        running=running,
        mode=mode,
        revision=int(facts.get(b"revision", 0)),
        loop=facts.get(b"loop") == b"1",
        ignore_failures=facts.get(b"ignore_failures") == b"1",
        autostart=facts.get(b"autostart") == b"1",
    )


def _verbs(change: Change) -> list[str | bytes | int]:
    """Write a change as the verbs of the script, three words each."""
    match change:
        case Put(item):
            return ["put", item.item_id, encode(item)]
        case Insert(item_id, None):
            return ["append", item_id, ""]
        case Insert(item_id, before):
            return ["insert", item_id, before or ""]
        case Take(item_id):
            return ["take", item_id, ""]
        case Forget(item_id):
            return ["forget", item_id, ""]
        case Finish(item):
            return ["finish", item.item_id, encode(ItemDone(item=item))]
        case Facts():
            return [word for name, value in vars(change).items() for word in ("fact", name, _fact(value))]


def _fact(value: str | int) -> str | int:
    return int(value) if isinstance(value, bool) else value
