"""Panic stop: one instruction to every device server, over a connection of its own, whatever else is going on."""

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass

import msgspec

from bec_bluesky.bus import Address, Wire
from bec_bluesky.channels import ANSWERS, INSTRUCTIONS
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.devices import Answer, Answers, Instruction, Op
from bec_bluesky.proxy._failure import error_from
from bec_bluesky.proxy._servers import announced, listening

__all__ = ["StopReport", "stop_all"]

_answers = decoder(Answers)


@dataclass(frozen=True)
class StopReport:
    """What a panic stop reached, and what it did not."""

    servers: tuple[str, ...]
    """Device servers that stopped what they have."""
    not_stopped: dict[str, str]
    """{device: why it could not be stopped, or did not confirm it}"""
    silent: dict[str, str]
    """{device server: why it is not known to have stopped anything}"""
    duration: float
    """Seconds until the last answer."""

    @property
    def is_complete(self) -> bool:
        """Whether every device of every server confirmed that it stopped."""
        return bool(self.servers) and not self.not_stopped and not self.silent

    def __str__(self) -> str:
        lines = [f"stopped everything on {', '.join(self.servers)}"] if self.servers else ["nothing was stopped"]
        lines += [f"{device} is not known to have stopped: {why}" for device, why in sorted(self.not_stopped.items())]
        lines += [f"device server {server!r}: {why}" for server, why in sorted(self.silent.items())]
        if not self.servers and not self.silent:
            lines.append("no device server is running")
        return "\n".join(lines)


async def stop_all(address: Address, beamline: str, *, timeout: float = 1.5) -> StopReport:
    """Stop every movable on every device server of a beamline; give what is known after `timeout` seconds at most.

    Needs neither the scan server nor a link. Raises BusError if there is no Redis. Plans that were running fail at
    their next move.
    """
    return await _PanicStop(beamline).run(address, timeout)


class _PanicStop:
    """One panic stop and the answers to it."""

    def __init__(self, beamline: str) -> None:
        self._beamline = beamline
        self._client = uuid.uuid4().hex
        self._asked: list[str] = []
        """Servers by the ids of the operations, which count from 1."""
        self._answers: dict[int, Answer] = {}
        self._all_answered = asyncio.Event()

    async def run(self, address: Address, timeout: float) -> StopReport:
        began = time.monotonic()
        wire = await Wire.connect(address, self._hear)
        try:
            reached = await self._ask(wire)
            absent = await announced(wire, self._beamline) - set(self._asked)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout - (time.monotonic() - began)):
                    await self._until_answered()
        finally:
            wire.close()
        silent = dict.fromkeys(absent, "it is not running: nobody received the stop")
        for number, server in enumerate(self._asked, 1):
            if not reached[server]:
                silent[server] = "it is not running: nobody received the stop"
            elif number not in self._answers:
                silent[server] = f"it received the stop and did not answer within {timeout:g} s: it may hang"
        return self._report(silent, time.monotonic() - began)

    async def _ask(self, wire: Wire) -> dict[str, int]:
        """Send the stop to every server that listens; give how many received each."""
        heard = asyncio.ensure_future(wire.subscribe(ANSWERS.key(self._beamline, client=self._client)))
        self._asked = await listening(wire, self._beamline)
        sent = [
            wire.send(
                "PUBLISH",
                INSTRUCTIONS.key(self._beamline, server=server),
                encode(Instruction(self._client, "", [Op(number, "", "stop_all")])),
            )
            for number, server in enumerate(self._asked, 1)
        ]
        await heard
        return dict(zip(self._asked, await asyncio.gather(*sent), strict=True))

    async def _until_answered(self) -> None:
        while len(self._answers) < len(self._asked):
            self._all_answered.clear()
            await self._all_answered.wait()

    def _hear(self, _: bytes, data: bytes) -> None:
        with contextlib.suppress(msgspec.MsgspecError):  # then it did not answer
            self._answers |= {answer.id: answer for answer in _answers.decode(data).items}
        self._all_answered.set()

    def _report(self, silent: dict[str, str], duration: float) -> StopReport:
        servers: list[str] = []
        not_stopped: dict[str, str] = {}
        for number, answer in sorted(self._answers.items()):
            server = self._asked[number - 1]
            if answer.code == "failed":
                silent[server] = str(error_from(answer.payload))
            else:
                servers.append(server)
                not_stopped |= dict(answer.payload)
        return StopReport(tuple(servers), not_stopped, silent, duration)
