"""Who holds which device: a book without I/O and without a clock of its own (`now` is seconds on any steady clock).

Every name in it is that of a top-level device: its parts belong to it. Devices are claimed all or none.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from bec_bluesky.errors import DeviceHeld

__all__ = ["DEFAULT_LIFETIME", "Holder", "Holders", "Purpose"]

DEFAULT_LIFETIME = 30.0
"""Seconds after which what was claimed by its first use is free again, unless it is renewed."""


@dataclass(frozen=True)
class Purpose:
    """What a holder says of itself, for those who are refused."""

    text: str = ""
    item_id: str = ""
    user: str = ""
    scan_id: int | None = None

    def __str__(self) -> str:
        scan = "" if self.scan_id is None else f"scan {self.scan_id}"
        return ", ".join(part for part in (scan, self.text) if part) or "somebody who does not say who it is"

    @property
    def remedy(self) -> str:
        """What who is refused can do."""
        return "wait for it to end, or stop it" if self.item_id else "it is free when they let go of it"


@dataclass(eq=False)
class Holder:
    """Whoever knows a token, and what it holds."""

    token: str
    client: str
    purpose: Purpose
    lifetime: float
    expires: float
    devices: dict[str, float] = field(default_factory=dict[str, float])
    """{device: since when}"""


class Holders:
    """The book; `revision` grows with every change of what it says."""

    def __init__(self) -> None:
        self._by_token: dict[str, Holder] = {}
        self._by_device: dict[str, Holder] = {}
        self.revision = 0

    @property
    def devices(self) -> Mapping[str, Holder]:
        """Who holds each device."""
        return self._by_device

    def holder(self, token: str) -> Holder | None:
        """Give what a token holds; None: nothing."""
        return self._by_token.get(token)

    def claim(
        self,
        devices: Iterable[str],
        token: str,
        client: str,
        purpose: Purpose,
        now: float,
        lifetime: float = DEFAULT_LIFETIME,
    ) -> Holder:
        """Hold these devices too, all or none; raises DeviceHeld. What the token held already is renewed.

        Without devices it only says who the token is, for what it will use.
        """
        wanted = list(devices)
        self.refuse_if_held(wanted, token, now)
        holder = self._by_token.get(token)
        if holder is None:
            holder = self._by_token[token] = Holder(token, client, purpose, lifetime, now + lifetime)
        holder.client, holder.purpose, holder.lifetime, holder.expires = client, purpose, lifetime, now + lifetime
        self._take(holder, wanted, now)
        return holder

    def use(self, devices: tuple[str, ...], token: str, client: str, now: float) -> None:
        """Allow a changing verb, which needs all these devices; raises DeviceHeld if another token holds one.

        Who has a token holds them from now on.
        """
        holder = self._by_token.get(token) if token else None
        if holder is None and token:
            self.claim(devices, token, client, Purpose(client), now)
            return
        by_device = self._by_device
        for device in devices:
            if by_device.get(device) is not holder:
                break
        else:
            return
        self.refuse_if_held(devices, token, now)
        if holder is not None:
            self._take(holder, devices, now)

    def renew(self, token: str, now: float, *, lifetime: float | None = None, purpose: Purpose | None = None) -> bool:
        """Hold for another lifetime what a token holds; False if nothing is known of it (any more)."""
        holder = self._by_token.get(token)
        if holder is None:
            return False
        holder.lifetime = holder.lifetime if lifetime is None else lifetime
        holder.expires = now + holder.lifetime
        if purpose is not None and purpose != holder.purpose:
            holder.purpose = purpose
            self.revision += 1
        return True

    def release(self, token: str, devices: Iterable[str] | None = None) -> None:
        """Let go of these devices, as far as the token holds them; None: of everything, and forget the token."""
        holder = self._by_token.get(token)
        if holder is None:
            return
        for device in list(holder.devices if devices is None else devices):
            if holder.devices.pop(device, None) is not None:
                del self._by_device[device]
        if devices is None:
            del self._by_token[token]
        self.revision += 1

    def release_client(self, client: str) -> list[str]:
        """Let go of all that a client's tokens hold; give the devices."""
        lost = [holder for holder in self._by_token.values() if holder.client == client]
        return self._drop(lost)

    def expire(self, now: float) -> list[str]:
        """Let go of what nobody renewed in time; give the devices."""
        return self._drop([holder for holder in self._by_token.values() if holder.expires <= now])

    def _drop(self, holders: Collection[Holder]) -> list[str]:
        devices = [device for holder in holders for device in holder.devices]
        for holder in holders:
            self.release(holder.token)
        return devices

    def _take(self, holder: Holder, devices: Iterable[str], now: float) -> None:
        for device in devices:
            holder.devices.setdefault(device, now)
            self._by_device[device] = holder
        self.revision += 1

    def refuse_if_held(self, devices: Iterable[str], token: str, now: float) -> None:
        """Raise DeviceHeld if another token holds one; whose time is over holds nothing."""
        over: set[Holder] = set()
        for device in devices:
            holder = self._by_device.get(device)
            if holder is None or holder.token == token:
                continue
            if holder.expires > now:
                raise DeviceHeld(device, str(holder.purpose), holder.purpose.remedy)
            over.add(holder)
        self._drop(over)
