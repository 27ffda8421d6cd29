"""Frames on the socket pair between the scan server and its worker: 4 bytes of length, big-endian, then msgpack."""

import asyncio
import contextlib
from typing import Any

import msgspec

from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.worker import FromWorker, ToWorker

__all__ = ["MOST_BYTES", "FrameReader", "FrameSender", "frame", "write"]

MOST_BYTES = 64 * 2**20
"""Largest frame that is accepted."""
_HEAD = 4


def frame(message: ToWorker | FromWorker) -> bytes:
    """Encode a message as a frame; raises ValueError if it is larger than MOST_BYTES."""
    data = encode(message)
    if len(data) > MOST_BYTES:
        raise ValueError(f"a {type(message).__name__} of {len(data)} bytes is not sent; the limit is {MOST_BYTES}")
    return len(data).to_bytes(_HEAD, "big") + data


async def write(writer: asyncio.StreamWriter, message: ToWorker | FromWorker) -> None:
    """Write a message; raises ConnectionError if the other side is gone."""
    writer.write(frame(message))
    await writer.drain()


class FrameReader:
    """Reads messages of one kind (`ToWorker` or `FromWorker`)."""

    def __init__(self, stream: asyncio.StreamReader, kind: Any) -> None:
        self._stream = stream
        self._decoder = decoder(kind)

    async def read(self) -> Any:
        """Give the next message, None at the end of the stream.

        Raises ConnectionError if what comes is no frame of ours: nothing after it can be trusted.
        """
        try:
            size = int.from_bytes(await self._stream.readexactly(_HEAD), "big")
            if size > MOST_BYTES:
                raise ConnectionError(f"a frame of {size} bytes is not accepted; the limit is {MOST_BYTES}")
            data = await self._stream.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ConnectionError(f"what the other side sent is no message: {error}") from error


class FrameSender:
    """Sends messages from any thread, each whole, in the order of the calls; never waits for the other side."""

    def __init__(self, writer: asyncio.StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop

    def send(self, message: ToWorker | FromWorker) -> None:
        """Send a message; dropped if the connection or the loop has ended."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._write, frame(message))

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def close(self) -> None:
        """Send what is left, then close; in the sender's loop."""
        await asyncio.sleep(0)  # what was sent before this call
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
