"""Which device servers there are."""

from typing import Any

from bec_bluesky.bus import Wire
from bec_bluesky.channels import DEVICES, INSTRUCTIONS, Channel

__all__ = ["announced", "listening"]

_MARK = "PLACEHOLDER"


async def listening(wire: Wire, beamline: str) -> list[str]:
    """Give the servers that listen for instructions now, in one round trip whatever else is on Redis."""
    prefix, suffix = _around_name(INSTRUCTIONS, beamline)
    channels: list[bytes] = await wire.call("PUBSUB", "CHANNELS", f"{prefix}*{suffix}")
    return sorted(_name(channel, prefix, suffix) for channel in channels)


async def announced(wire: Wire, beamline: str) -> set[str]:
    """Give the servers that have said which devices they own, whether they run or not."""
    prefix, suffix = _around_name(DEVICES, beamline)
    cursor, found = b"0", set[str]()
    while True:
        reply: Any = await wire.call("SCAN", cursor, "MATCH", f"{prefix}*{suffix}", "COUNT", "1000")
        cursor = reply[0]
        found.update(_name(key, prefix, suffix) for key in reply[1])
        if cursor == b"0":
            return found


def _around_name(channel: Channel, beamline: str) -> tuple[str, str]:
    prefix, _, suffix = channel.key(beamline, server=_MARK).partition(_MARK)
    return prefix, suffix


def _name(key: bytes, prefix: str, suffix: str) -> str:
    return key.decode().removeprefix(prefix).removesuffix(suffix)
