"""Asynchronous Redis in the shapes of `channels`, with a client policy that never writes anything twice."""

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bec_bluesky.bus._address import Address, parse
from bec_bluesky.bus._wire import Wire
from bec_bluesky.channels import Channel
from bec_bluesky.errors import BusError, StreamGapError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder, encode, pack

__all__ = ["Bus"]

_log = logger(__name__)
_TIMEOUT = 3.0
"""Seconds that one command may take."""
BLOCK = 1.0
"""Seconds that one blocking read waits; well below the former."""
_FIELD = b"m"
_MARK = "PLACEHOLDER"
_decoders: dict[Any, Any] = {}
_APPEND_AT = """
local new, taken = 0, 0
for i = 2, #ARGV do
  local id = string.format('%d-0', ARGV[1] + i - 2)
  local reply = redis.pcall('XADD', KEYS[1], id, 'm', ARGV[i])
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, 'equal or smaller', 1, true) then return reply end
    local there = redis.call('XRANGE', KEYS[1], id, id)[1]
    if not there or there[2][2] ~= ARGV[i] then taken = ARGV[1] + i - 2 end
  else
    new = new + 1
  end
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[#ARGV]) end
return {new, taken}
"""
"""Gives how many entries were appended, and the last number that another entry has; 0 for none."""


def _decode(channel: Channel, data: bytes) -> Any:
    kind = channel.message
    if kind is None:
        return data
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = decoder(kind)
    return found.decode(data)


@contextlib.asynccontextmanager
async def _translated(address: Address) -> AsyncIterator[None]:
    """Bound a call in time and make its errors ours.

    The bound is set here and not by redis-py's `socket_timeout`, which is kept by `asyncio.wait_for`: before Python
    3.12 that swallows a cancellation which comes when the command was just sent, and a service would never end.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            yield
    except BusError:  # the plain connection has said it
        raise
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise BusError(f"no answer from Redis at {address}: {str(error) or 'time is up'}") from error
    except RedisError as error:
        raise BusError(f"Redis at {address} refused: {error}") from error


class Bus:
    """A connection pool to one Redis, in the shapes that `channels` names.

    redis-py's own retries are off: they stored entries twice and lost popped items. What may be repeated safely is
    repeated here (`follow`); everything else raises BusError and its caller decides.
    """

    def __init__(self, url: str, beamline: str) -> None:
        self.address = parse(url)
        self.beamline = beamline
        self._redis: aioredis.Redis | None = None
        self._is_lost = False
        self._wires: list[Wire] = []
        """Connections for reading streams and for scripts, which scans wait for; those that nobody uses just now."""

    async def __aenter__(self) -> Self:
        self._redis = aioredis.Redis.from_url(
            self.address.url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=_TIMEOUT,
            driver_info=None,
            protocol=2,
        )
        try:
            async with _translated(self.address):
                await self._redis.ping()
        except BaseException:
            await self._redis.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        while self._wires:
            self._wires.pop().close()
        if self._redis is not None:
            await self._redis.aclose()
            self._redis = None

    @property
    def redis(self) -> aioredis.Redis:
        """The client itself, for scripts and transactions of the one service that owns the keys."""
        if self._redis is None:
            raise BusError("the bus is not connected: use `async with Bus(…)`")
        return self._redis

    def translated(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Turn what redis-py raises into BusError, around direct use of `redis`."""
        return _translated(self.address)

    def key(self, channel: Channel, **words: str) -> str:
        """Give the Redis key of a channel of this beamline."""
        return channel.key(self.beamline, **words)

    # ── stream, log ──

    async def append(self, channel: Channel, message: Any, /, **words: str) -> str:
        """Append; give the id. For entries that may be there twice without harm (requests carry ids of their own)."""
        key = self.key(channel, **words)
        entry: Any = {_FIELD: (encode if channel.shape == "ask" else pack)(message)}
        async with _translated(self.address):
            if channel.lifetime is None:
                stream_id: Any = await self.redis.xadd(key, entry, maxlen=channel.length, approximate=True)
            else:
                pipeline: Any = self.redis.pipeline(transaction=False)
                pipeline.xadd(key, entry, maxlen=channel.length, approximate=True)
                pipeline.pexpire(key, int(channel.lifetime * 1000))
                stream_id, _ = await pipeline.execute()
        return stream_id.decode()

    async def append_all(self, channel: Channel, messages: Iterable[Any], /, **words: str) -> None:
        """Append several messages to a log in one round trip."""
        key = self.key(channel, **words)
        async with _translated(self.address), self.redis.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.xadd(key, {_FIELD: encode(message)}, maxlen=channel.length, approximate=True)
            if channel.lifetime is not None:
                pipeline.pexpire(key, int(channel.lifetime * 1000))
            await pipeline.execute()

    async def append_at(
        self, channel: Channel, number: int, *messages: Any, latest: Channel | None = None, **words: str
    ) -> int:
        """Append as entries `<number>-0` and those that follow, in one go, so that repeating it is harmless.

        The last of them becomes the value of `latest` in the same go. Gives how many were not there yet; raises
        StreamGapError, once all others are written, if other entries took the places of some.
        """
        key = self.key(channel, **words)
        keys = [key] if latest is None else [key, self.key(latest)]
        new, taken = await self.evaluate(_APPEND_AT, keys, [number, *map(pack, messages)])
        if taken:
            last = await self.last_id(channel, **words)
            raise StreamGapError(
                f"{key}: entry {taken} cannot be written, the stream is at {last}", int(last.partition("-")[0])
            )
        return int(new)

    async def read(
        self,
        channel: Channel,
        after: str = "0-0",
        *,
        count: int = 500,
        block: float | None = None,
        **words: str,
    ) -> list[tuple[str, Any]]:
        """Read entries after an id, waiting up to `block` seconds (1 at most) for the first; [] if there is none."""
        key = self.key(channel, **words)
        entries = (await self.read_keys({key: after}, count=count, block=block)).get(key, [])
        return [(stream_id, _decode(channel, fields[_FIELD])) for stream_id, fields in entries]

    async def read_keys(
        self, cursors: dict[str, str], *, count: int = 500, block: float | None = None
    ) -> dict[str, list[tuple[str, dict[bytes, bytes]]]]:
        """Read raw entries of several streams, each after its own id."""
        block_ms = None if block is None else max(1, int(min(block, BLOCK) * 1000))
        blocking = () if block_ms is None else ("BLOCK", block_ms)
        reply = await self._call("XREAD", "COUNT", count, *blocking, "STREAMS", *cursors.keys(), *cursors.values())
        return {
            key.decode(): [
                (stream_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for stream_id, flat in entries
            ]
            for key, entries in (reply or {}).items()
        }

    async def newest(self, channel: Channel, count: int = 1, **words: str) -> list[tuple[str, Any]]:
        """Read the newest entries, newest first."""
        async with _translated(self.address):
            entries: Any = await self.redis.xrevrange(self.key(channel, **words), count=count)
        return [(stream_id.decode(), _decode(channel, fields[_FIELD])) for stream_id, fields in entries]

    async def last_id(self, channel: Channel, **words: str) -> str:
        """Give the id of the newest entry; "0-0" if there is none. Read it *before* asking for what will follow."""
        async with _translated(self.address):
            entries: Any = await self.redis.xrevrange(self.key(channel, **words), count=1)
        return entries[0][0].decode() if entries else "0-0"

    async def follow(self, channel: Channel, after: str = "0-0", **words: str) -> AsyncIterator[tuple[str, Any]]:
        """Give every entry after an id, for ever; a lost Redis is waited for."""
        delay = 0.02
        while True:
            try:
                entries = await self.read(channel, after, count=500, block=BLOCK, **words)
                delay, self._is_lost = 0.02, False
            except BusError as error:
                self._say_lost(error, "trying again", channel)
                await asyncio.sleep(random.uniform(0.0, delay))
                delay = min(2 * delay, 1.0)
                continue
            for stream_id, message in entries:
                yield stream_id, message
                after = stream_id

    def _say_lost(self, error: BusError, what: str, channel: Channel) -> None:
        """Warn once of a Redis that is away, however many wait for it, and however often they look."""
        level = logging.DEBUG if self._is_lost else logging.WARNING
        self._is_lost = True
        _log.log(level, "%s; %s", error, what, extra={"channel": channel.name})

    # ── latest ──

    async def put(self, channel: Channel, message: Any, **words: str) -> None:
        """Replace the latest value."""
        lifetime = None if channel.lifetime is None else int(channel.lifetime * 1000)
        async with _translated(self.address):
            await self.redis.set(self.key(channel, **words), pack(message), px=lifetime)

    async def get(self, channel: Channel, **words: str) -> Any | None:
        """Give the latest value, None if there is none."""
        async with _translated(self.address):
            data: Any = await self.redis.get(self.key(channel, **words))
        return None if data is None else _decode(channel, data)

    async def delete(self, channel: Channel, **words: str) -> None:
        """Take the whole key away."""
        async with _translated(self.address):
            await self.redis.delete(self.key(channel, **words))

    async def expire(self, channel: Channel, seconds: float, *, only_if_lasting: bool = False, **words: str) -> None:
        """Let the whole key vanish after that many seconds; `only_if_lasting` leaves one that will vanish anyway."""
        async with _translated(self.address):
            await self.redis.pexpire(self.key(channel, **words), int(seconds * 1000), nx=only_if_lasting)

    async def find(self, channel: Channel, word: str) -> dict[str, Any]:
        """Give the latest values of all keys of a channel with one placeholder, by what stands in its place."""
        prefix, _, suffix = self.key(channel, **{word: _MARK}).partition(_MARK)
        found: dict[str, Any] = {}
        async with _translated(self.address):
            async for raw in self.redis.scan_iter(match=_literal(prefix) + "*" + _literal(suffix), count=500):
                data: Any = await self.redis.get(raw)
                if data is not None:
                    found[raw.decode()[len(prefix) :].removesuffix(suffix)] = _decode(channel, data)
        return found

    # ── table ──

    async def put_fields(self, channel: Channel, fields: dict[str, Any], **words: str) -> None:
        """Set fields of a table."""
        if fields:
            mapping: Any = {field: encode(message) for field, message in fields.items()}
            async with _translated(self.address):
                await self.redis.hset(self.key(channel, **words), mapping=mapping)

    async def fields(self, channel: Channel, **words: str) -> dict[str, Any]:
        """Give the whole table."""
        async with _translated(self.address):
            table: Any = await self.redis.hgetall(self.key(channel, **words))
        return {field.decode(): _decode(channel, data) for field, data in table.items()}

    async def field(self, channel: Channel, field: str, **words: str) -> Any | None:
        """Give one field, None if there is none."""
        async with _translated(self.address):
            data: Any = await self.redis.hget(self.key(channel, **words), field)
        return None if data is None else _decode(channel, data)

    async def find_tables(self, channel: Channel, word: str) -> dict[str, dict[str, Any]]:
        """Give all tables of a channel with one placeholder, by what stands in its place."""
        prefix, _, suffix = self.key(channel, **{word: _MARK}).partition(_MARK)
        found: dict[str, dict[str, Any]] = {}
        async with _translated(self.address):
            async for raw in self.redis.scan_iter(match=_literal(prefix) + "*" + _literal(suffix), count=500):
                name = raw.decode()[len(prefix) :].removesuffix(suffix)
                found[name] = await self.fields(channel, **{word: name})
        return found

    async def put_raw_field(self, channel: Channel, field: str, value: str | bytes, **words: str) -> None:
        """Set one field of a table that carries plain text."""
        async with _translated(self.address):
            await self.redis.hset(self.key(channel, **words), field, value)  # pyright: ignore[reportArgumentType]  # bytes too

    async def delete_fields(self, channel: Channel, *fields: str, **words: str) -> None:
        """Take fields away."""
        if fields:
            async with _translated(self.address):
                await self.redis.hdel(self.key(channel, **words), *fields)

    # ── scripts ──

    async def evaluate(self, script: str, keys: list[str], arguments: list[str | bytes | int]) -> Any:
        """Run a Lua script of the one service that owns the keys; what it refuses comes as BusError."""
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._call("EVALSHA", digest, len(keys), *keys, *arguments)
        except BusError as error:
            if "NOSCRIPT" not in str(error):
                raise
        return await self._call("EVAL", script, len(keys), *keys, *arguments)

    async def _call(self, *command: str | bytes | int) -> Any:
        """Send one command at a third of redis-py's cost; after an error its connection is not used again."""
        if self._redis is None:
            raise BusError("the bus is not connected: use `async with Bus(…)`")
        wire = None
        while self._wires and (wire is None or not wire.is_open):
            wire = self._wires.pop()
        async with _translated(self.address):
            if wire is None or not wire.is_open:
                wire = await Wire.connect(self.address, timeout=_TIMEOUT)
            try:
                reply = await wire.call(*command)
            except BaseException:
                wire.close()  # its reply may still come
                raise
        if self._redis is None:  # the bus was closed meanwhile
            wire.close()
        else:
            self._wires.append(wire)
        return reply

    # ── fan-out ──

    async def publish(self, channel: Channel, message: Any, **words: str) -> int:
        """Tell whoever listens; give how many did."""
        async with _translated(self.address):
            heard: Any = await self.redis.publish(self.key(channel, **words), encode(message))
        return int(heard)

    async def listen(self, channel: Channel, **words: str) -> AsyncIterator[Any]:
        """Give messages as they come, for ever; what is said while Redis is away is lost."""
        while True:
            pubsub = self.redis.pubsub(ignore_subscribe_messages=True)
            try:
                async with _translated(self.address):
                    await pubsub.subscribe(self.key(channel, **words))
                self._is_lost = False
                while True:
                    async with _translated(self.address):
                        message: Any = await pubsub.get_message(timeout=BLOCK)
                    if message is not None:
                        yield _decode(channel, message["data"])
            except BusError as error:
                self._say_lost(error, "listening again", channel)
                await asyncio.sleep(0.2)
            finally:
                await pubsub.aclose()


def _literal(text: str) -> str:
    """Quote what SCAN's pattern language would read as a wildcard."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in text)
