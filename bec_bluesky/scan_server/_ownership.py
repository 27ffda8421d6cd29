"""Who runs the queues: a lease that its owner renews, and a token that fences out whoever was it before.

The token alone keeps two scan servers from running one queue: whatever the one with the older token writes is refused.
The lease is there so that a second one does not take over from one that lives.
"""

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Final, Literal

from bec_bluesky.bus import Bus
from bec_bluesky.channels import EPOCH, LEASE
from bec_bluesky.errors import BusError, FencedError
from bec_bluesky.messages import encode
from bec_bluesky.messages.queue import Lease

__all__ = ["Ownership", "TakeOver", "fenced_text"]

TakeOver = Literal["if_free", "when_free", "at_once"]
"""What a new scan server does about another one:

if_free: start if the other one is dead, else refuse to start
when_free: stand by until the other one is dead
at_once: take over; the other one stops itself and what it ran is held
"""
_LOOKS: Final = 0.2
"""Seconds between two looks at a lease."""
_ABSENCE: Final = 2.5
"""Seconds for which a lease must be gone until a standby takes over: Redis may have been away, and the owner is not."""

_TAKE = """
local lease, epoch = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if ARGV[1] == 'same' and (lease or '') ~= ARGV[2] then return 0 end
if tonumber(epoch or '0') ~= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[2], string.format('%d', tonumber(ARGV[3]) + 1))
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
return 1
"""
_RENEW = """#!lua flags=allow-oom
local epoch = redis.call('GET', KEYS[2])
if epoch ~= ARGV[1] then return tostring(epoch) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ''
"""
_RELEASE = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class Ownership:
    """The right to run the queues of a beamline."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._keys = [bus.key(LEASE), bus.key(EPOCH)]
        self._lifetime = int(1000 * (LEASE.lifetime or 0.0))
        self._renewed = 0
        self.token = 0
        """Fencing token: whoever took the highest owns the queues."""

    async def take(self, how: TakeOver) -> int:
        """Become the owner and give the token; raises FencedError if another one lives and is not to be replaced."""
        first: Lease | None = None
        seen = time.monotonic()
        while True:
            lease: Lease | None = await self._bus.get(LEASE)
            if lease is not None:
                seen = time.monotonic()
            is_gone = lease is None and (how != "when_free" or time.monotonic() - seen > _ABSENCE)
            if how == "at_once" or is_gone or (lease is not None and _is_dead(lease)):
                if await self._try(lease, force=how == "at_once"):
                    return self.token
                continue
            if lease is None or first is None or first.token != lease.token:
                first = lease
            elif lease.renewed != first.renewed and how == "if_free":
                raise FencedError(
                    f"another scan server (pid {lease.pid} on {lease.host.partition('/')[0]}) runs the queues of "
                    f"{self._bus.beamline!r}: stop it first, or start this one with --standby, which waits for its end"
                )
            await asyncio.sleep(_LOOKS)

    async def _try(self, seen: Lease | None, *, force: bool) -> bool:
        epoch = int(await self._bus.get(EPOCH) or 0)
        lease = Lease(token=epoch + 1, host=_host(), pid=os.getpid())
        known = b"" if seen is None else encode(seen)
        arguments: list[str | bytes | int] = ["any" if force else "same", known, epoch, encode(lease), self._lifetime]
        is_taken = await self._bus.evaluate(_TAKE, self._keys, arguments) == 1
        self.token = epoch + 1 if is_taken else self.token
        return is_taken

    async def renew(self) -> None:
        """Say that the owner lives; raises FencedError if it is another one now."""
        self._renewed += 1
        lease = Lease(token=self.token, host=_host(), pid=os.getpid(), renewed=self._renewed)
        owner = await self._bus.evaluate(_RENEW, self._keys, [self.token, encode(lease), self._lifetime])
        if owner:
            raise FencedError(fenced_text(self.token, owner))

    async def release(self) -> None:
        """Let the next one take over at once."""
        with contextlib.suppress(BusError):  # the lease ends by itself
            await self._bus.evaluate(_RELEASE, self._keys, [self.token])


def fenced_text(mine: int, owner: object) -> str:
    """Say that another one is the owner."""
    shown = owner.decode() if isinstance(owner, bytes) else owner
    return f"another scan server took over the queue (its token is {shown}, this one's {mine}): this one stops"


def _host() -> str:
    """Name this machine, and the space in which its process ids mean something."""
    space = ""
    with contextlib.suppress(OSError):
        space = Path("/proc/self/ns/pid").readlink().name
    return f"{socket.gethostname()}/{space}"


def _is_dead(lease: Lease) -> bool:
    """Tell whether an owner on this machine is known to be gone; of others only the end of their lease tells."""
    if lease.host != _host():
        return False
    try:
        state = Path(f"/proc/{lease.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return Path("/proc/self").exists()
    except OSError:
        return False
    return state == "Z"
