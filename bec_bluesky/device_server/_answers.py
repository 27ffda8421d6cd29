"""Answers on their way to clients: those of one loop iteration travel together."""

import asyncio
import functools
from typing import Any

from bec_bluesky.bus import Wire
from bec_bluesky.channels import ANSWERS
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages import pack
from bec_bluesky.messages.devices import Answer, Answers
from bec_bluesky.messages.failures import tell

__all__ = ["Outbox"]

_log = logger(__name__)


class Outbox:
    """Collects answers by client and publishes them; in the service's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, beamline: str, server: str, epoch: str) -> None:
        self._loop = loop
        self._beamline = beamline
        self._where = f"device server {server}"
        self._epoch = epoch
        self._waiting: dict[str, list[Answer]] = {}
        self.wire: Wire | None = None

    def say(self, client: str, answer: Answer) -> None:
        """Answer one operation; an id of 0 asked for no answer."""
        if not answer.id:
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.setdefault(client, []).append(answer)

    def fail(self, client: str, number: int, error: BaseException, device: str) -> None:
        """Answer that an operation failed."""
        self.say(client, Answer(number, "failed", tell(error, device=device or None, where=self._where)))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for client, answers in waiting.items():
            try:
                self._publish(client, answers)
            except (TypeError, ValueError, OverflowError):
                for answer in answers:
                    self._publish_one(client, answer)

    def _publish_one(self, client: str, answer: Answer) -> None:
        """Let only that answer fail which cannot cross."""
        try:
            self._publish(client, [answer])
        except (TypeError, ValueError, OverflowError) as error:
            failure = tell(TypeError(f"what the device gave cannot cross the bus: {error}"), where=self._where)
            self._publish(client, [Answer(answer.id, "failed", failure)])

    def _publish(self, client: str, answers: list[Answer]) -> None:
        data = pack(Answers(self._epoch, answers))
        if self.wire is None:
            return  # Redis is away: proxies have noticed that too, and nothing is said twice
        try:
            future = self.wire.send("PUBLISH", _key(self._beamline, client), data)
        except BusError as error:
            _log.debug("an answer is lost: %s", error)
            return
        future.add_done_callback(_seen)


@functools.lru_cache(256)
def _key(beamline: str, client: str) -> str:
    return ANSWERS.key(beamline, client=client)


def _seen(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
