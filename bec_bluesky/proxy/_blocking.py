"""Operations that must have their answer before the next line of plain code: `motor.position` in a plan."""

import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bec_bluesky.bus import Address
from bec_bluesky.channels import ANSWERS
from bec_bluesky.errors import DeviceServerLost, DeviceTimeout
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.devices import Answers, Instruction, Op
from bec_bluesky.proxy._failure import error_from, no_receiver
from bec_bluesky.proxy._operations import ServerState

__all__ = ["BlockingCaller"]

_answers = decoder(Answers)


class BlockingCaller:
    """Asks over connections of its own, so that it works in the very thread of the link's loop; one call at a time."""

    def __init__(self, address: Address, beamline: str, client: str) -> None:
        self._address = address
        self._client = f"{client}.now"
        self._channel = ANSWERS.key(beamline, client=self._client)
        self._lock = threading.Lock()
        self._redis: redis.Redis | None = None
        self._pubsub: Any = None
        self._last_id = 0

    def ask(
        self,
        server: ServerState,
        device: str,
        verb: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float,
        *,
        token: str = "",
    ) -> Any:
        """Give the result within `timeout` seconds; raises what the device raised, DeviceTimeout, DeviceServerLost."""
        with self._lock:
            try:
                return self._ask(server, device, verb, args, kwargs, timeout, token)
            except redis.RedisError as error:
                self._forget()
                raise DeviceServerLost(f"{device}.{verb}: no answer from Redis: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._forget()

    def _ask(
        self,
        server: ServerState,
        device: str,
        verb: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float,
        token: str,
    ) -> Any:
        client = self._connected()
        self._last_id += 1
        op = Op(self._last_id, device, verb, list(args), dict(kwargs))
        must_start_by = time.time() + server.clock_offset + timeout
        instruction = Instruction(self._client, server.epoch, [op], deadline=must_start_by, token=token)
        if not client.publish(server.channel, encode(instruction)):
            raise no_receiver(server.name)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            message = self._pubsub.get_message(timeout=left)
            if message is None or message["type"] != "message":
                continue
            for answer in _answers.decode(message["data"]).items:
                if answer.id == op.id and answer.code != "progress":
                    if answer.code == "failed":
                        raise error_from(answer.payload)
                    return answer.payload if answer.code == "result" else None
        raise DeviceTimeout(f"{device}.{verb}: device server {server.name!r} gave no answer within {timeout:g} s")

    def _connected(self) -> redis.Redis:
        if self._redis is None:
            self._redis = redis.Redis.from_url(
                self._address.url, retry=Retry(NoBackoff(), 0), socket_timeout=3.0, driver_info=None
            )
            self._pubsub = self._redis.pubsub()
            self._pubsub.subscribe(self._channel)
            while self._pubsub.get_message(timeout=3.0) is None:  # the confirmation: answers are heard from now on
                pass
        return self._redis

    def _forget(self) -> None:
        if self._redis is not None:
            self._pubsub.close()
            self._redis.close()
            self._redis = None
