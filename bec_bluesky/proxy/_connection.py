"""The two connections of a link: one for instructions and answers, one that waits for news of devices."""

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import msgspec

from bec_bluesky.bus import Wire
from bec_bluesky.channels import ANSWERS, BEATS, DEVICE_CHANGES, DEVICES, INSTRUCTIONS
from bec_bluesky.errors import BusError
from bec_bluesky.log import logger
from bec_bluesky.messages import decoder
from bec_bluesky.messages.devices import Answers, Beat, DeviceInfo
from bec_bluesky.proxy._servers import announced

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["Connection"]

_log = logger(__name__)
_BLOCK_MS = 5000
_answers = decoder(Answers)
_beat = decoder(Beat)
_info = decoder(DeviceInfo)


class Connection:
    """Connects, connects again when Redis is back, and hands what comes to the link.

    News of devices are read from a log by blocking reads, which would delay answers on the same connection.
    """

    def __init__(self, link: "DeviceLink") -> None:
        self._link = link
        self._wire: Wire | None = None
        self._news_wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._meetings: set[asyncio.Task[None]] = set()
        self._met: set[str] = set()
        self._last_news = "0-0"
        self._answers_key = ANSWERS.key(link.beamline, client=link.client).encode()

    def instructions(self, server: str) -> str:
        """Give the channel on which a server listens."""
        return INSTRUCTIONS.key(self._link.beamline, server=server)

    async def open(self) -> None:
        """Connect and learn which devices there are; raises BusError."""
        await self._establish()
        self._task = asyncio.create_task(self._follow(), name="news of devices")

    async def close(self) -> None:
        """Close both connections."""
        tasks = [task for task in (self._task, *self._meetings) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None
        self._drop()

    def meet_again(self, server: str) -> None:
        """Read a server's table again, and have it push what it pushed before: it is another incarnation."""
        task = asyncio.create_task(self._meet_again(server), name=f"table of {server}")
        self._meetings.add(task)
        task.add_done_callback(self._meetings.discard)

    # ── connecting ──

    async def _establish(self) -> None:
        address = self._link.address
        self._met.clear()
        try:
            self._wire = await Wire.connect(address, self._on_push, self._on_lost)
            self._news_wire = await Wire.connect(address)
            await self._wire.subscribe(self._answers_key.decode())
            news_key = DEVICE_CHANGES.key(self._link.beamline)
            newest: Any = await self._wire.call("XREVRANGE", news_key, "+", "-", "COUNT", "1")
            self._last_news = newest[0][0].decode() if newest else "0-0"
            for server in sorted(await announced(self._wire, self._link.beamline)):
                await self._meet(server)
        except BaseException:
            self._drop()
            raise
        self._link.operations.wire = self._wire

    async def _meet(self, server: str) -> None:
        """Hear a server's beats and read its table."""
        if self._wire is None:
            return
        if server not in self._met:
            self._met.add(server)
            await self._wire.subscribe(BEATS.key(self._link.beamline, server=server))
        table: Any = await self._wire.call("HGETALL", DEVICES.key(self._link.beamline, server=server))
        self._link.directory.take_table(server, [_info.decode(data) for data in table.values()])

    async def _meet_again(self, server: str) -> None:
        with contextlib.suppress(BusError):  # the connection is made again, and the table read then
            await self._meet(server)
            self._link.resume_subscriptions(server)

    def _drop(self) -> None:
        self._link.operations.wire = None
        for wire in (self._wire, self._news_wire):
            if wire is not None:
                wire.close()
        self._wire = self._news_wire = None

    # ── what comes ──

    def _on_push(self, channel: bytes, payload: bytes) -> None:
        try:
            if channel == self._answers_key:
                self._link.hear_answers(_answers.decode(payload))
            elif self._link.operations.wire is not None:  # or whoever is met now would not be told what is held
                self._link.hear_beat(_beat.decode(payload))
        except (msgspec.MsgspecError, ValueError):  # one bad message must not cost the connection
            _log.exception("a message on %s cannot be read", channel.decode())

    def _on_lost(self, error: BusError) -> None:
        self._drop()
        self._link.lose_all(error)

    async def _follow(self) -> None:
        """Follow the news of devices; when the connections are lost, make them again."""
        delay = 0.02
        while True:
            try:
                if self._wire is None:
                    await self._establish()
                    _log.info("the link to the device servers is there again")
                delay = 0.02
                await self._read_news()
            except (BusError, TimeoutError) as error:
                _log.warning("%s; connecting again", error)
                self._drop()
                self._link.lose_all(error)
                await asyncio.sleep(random.uniform(0.0, delay))
                delay = min(2 * delay, 1.0)

    async def _read_news(self) -> None:
        key = DEVICE_CHANGES.key(self._link.beamline)
        while self._news_wire is not None:
            async with asyncio.timeout(_BLOCK_MS / 1000 + 5.0):
                reply: Any = await self._news_wire.call(
                    "XREAD", "COUNT", "500", "BLOCK", str(_BLOCK_MS), "STREAMS", key, self._last_news
                )
            for entries in (reply or {}).values():
                for stream_id, fields in entries:
                    self._last_news = stream_id.decode()
                    await self._take_news(_info.decode(fields[1]))

    async def _take_news(self, info: DeviceInfo) -> None:
        if info.server not in self._met:
            await self._meet(info.server)
        self._link.directory.take(info)
