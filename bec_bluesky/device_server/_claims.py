"""Claims on devices: the verbs `claim`, `renew` and `release`, what a verb on a held device may do, and the table.

They are carried out where the verbs of devices are, in the same order, so that nothing comes between a look at who
holds a device and what is done with it.

A device that moves others (it can be `set` or kicked off, and has a `$ref` to them in the device file: a pseudo
positioner, a flyer) is held together with these: who holds `hkl` holds its `theta`, and nobody else's `hkl` moves a
`theta` that is held. A detector that refers to a motor only looks at it.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_HOLDERS
from bec_bluesky.device_server._batch import Batch
from bec_bluesky.device_server._entry import Found
from bec_bluesky.device_server._holders import DEFAULT_LIFETIME, Holder, Holders, Purpose
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.errors import BusError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.devices import FREE_VERBS, DeviceHolder, Op

__all__ = ["CLAIM_VERBS", "Claims"]

_log = logger(__name__)
CLAIM_VERBS = frozenset({"claim", "renew", "release"})
_SWEEP_PERIOD = 1.0
"""Seconds between two looks at what has expired."""
_MOST_DEAD = 64
_PUBLISH_PERIOD = 0.05
"""Seconds between two publications, at least."""


class Claims:
    """Who holds the devices of this server; lives in the service's loop."""

    def __init__(self, registry: Registry, server: str) -> None:
        self._registry = registry
        self._server = server
        self._holders = Holders()
        self._since_epoch = time.time() - time.monotonic()
        self._published: dict[str, DeviceHolder] = {}
        self._published_revision = 0
        self._must_rewrite = True
        self._is_told = asyncio.Event()
        self._losses: set[asyncio.Future[Any]] = set()
        """Done when the devices of a client that is gone are stopped."""
        self._dead: dict[str, None] = {}
        """Clients that were said to be gone, the newest last."""

    # ── verbs ──

    def allow(self, batch: Batch, op: Op, found: Found) -> None:
        """Raise DeviceHeld if an operation would change what another token holds; else its token holds that now.

        What a dead client said last can come after the news of its end: RefusedError, or nobody would stop it again.
        """
        if op.verb in FREE_VERBS or (op.verb == "trigger" and found.entry.spec.readout == "baseline"):
            return  # every run reads the baseline, also while others run: that alone must not keep them apart
        self._refuse_the_dead(batch.client, f"{op.device}.{op.verb}")
        holders = self._holders
        revision = holders.revision
        holders.use(found.moved, batch.token, batch.client, time.monotonic())
        if holders.revision != revision:
            self._is_told.set()

    def refuse_if_held(self, device: str) -> None:
        """Raise DeviceHeld if anybody holds a device that is to be built anew or removed."""
        self._holders.refuse_if_held([device], "", time.monotonic())

    def _refuse_the_dead(self, client: str, what: str) -> None:
        if client in self._dead:
            raise RefusedError(f"{what} is not carried out: who asked for it is gone", "client_gone")

    def must_wait(self, op: Op) -> bool:
        """Whether this is a claim, and what a lost client left behind is still being stopped."""
        return op.verb == "claim" and bool(self._losses)

    async def serve_later(self, batch: Batch, op: Op) -> list[str]:
        """Claim when the devices of lost clients are free."""
        while self._losses:
            await asyncio.wait(self._losses)
        return self.serve(batch, op)

    def serve(self, batch: Batch, op: Op) -> list[str]:
        """Claim, renew or release; give the devices that the token holds now.

        Raises DeviceHeld, UnknownDeviceError, or RefusedError if the arguments are wrong.
        """
        token = batch.token
        if not token:
            raise RefusedError(f"{op.verb} needs a token in its instruction: it names the holder", "bad_argument")
        now = time.monotonic()
        try:
            if op.verb == "claim":
                self._refuse_the_dead(batch.client, op.verb)
                devices, text, lifetime = _claimed(*op.args)
                purpose = Purpose(text, **op.kwargs)
                self._holders.claim(self._with_moved(devices), token, batch.client, purpose, now, lifetime)
            elif op.verb == "renew":
                text, lifetime = _renewed(*op.args)
                purpose = None if text is None else Purpose(text, **op.kwargs)
                self._holders.renew(token, now, lifetime=lifetime, purpose=purpose)
            else:
                self._holders.release(token, self._with_moved(op.args[0]) if op.args else None)
        except TypeError as error:
            raise RefusedError(
                f"{op.verb} was asked with {op.args} {op.kwargs}: it is claim([devices], text, seconds), "
                f"renew(text, seconds) or release([devices]), with item_id=, user= and scan_id=",
                "bad_argument",
            ) from error
        self._is_told.set()
        holder = self._holders.holder(token)
        return [] if holder is None else list(holder.devices)

    def _with_moved(self, paths: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(name for path in paths for name in self._registry.moved_with(path)))

    # ── lost clients ──

    def note_death(self, client: str) -> None:
        """Note that a client's process is gone for good."""
        self._dead[client] = None
        if len(self._dead) > _MOST_DEAD:
            del self._dead[next(iter(self._dead))]

    def lose_client(self, client: str, stopped: "asyncio.Future[Any]") -> None:
        """Let go of what a lost client holds as soon as it is stopped; claims wait until then."""
        self._losses.add(stopped)
        stopped.add_done_callback(lambda _: self._release_client(client, stopped))

    def _release_client(self, client: str, stopped: "asyncio.Future[Any]") -> None:
        self._losses.discard(stopped)
        free = self._holders.release_client(client)
        if free:
            _log.info("client %s is gone: nobody holds %s any more", client, ", ".join(free))
        self._is_told.set()

    def clients(self) -> set[str]:
        """Give the clients that hold something."""
        return {holder.client for holder in self._holders.devices.values()}

    def token_of(self, client: str, path: str) -> str:
        """Give the token by which a client holds a device; empty: it does not."""
        holder = self._holders.devices.get(path.partition(".")[0])
        return holder.token if holder is not None and holder.client == client else ""

    # ── the table ──

    async def run(self, bus: Bus) -> None:
        """Keep the table true and end what nobody renews, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_PERIOD):
                    await self._is_told.wait()
            self._is_told.clear()
            expired = self._holders.expire(time.monotonic())
            if expired:
                _log.warning("nobody renewed the claims on %s: they are free again", ", ".join(expired))
            if self._must_rewrite or self._holders.revision != self._published_revision:
                try:
                    await self._publish(bus)
                except BusError:
                    self._must_rewrite = True  # with the next sweep
                await asyncio.sleep(_PUBLISH_PERIOD)

    def publish_all(self) -> None:
        """Have the table written from nothing: it may be on another Redis, or one that lost its data."""
        self._must_rewrite = True
        self._is_told.set()

    async def _publish(self, bus: Bus) -> None:
        revision = self._holders.revision
        table = {device: self._row(device, holder) for device, holder in self._holders.devices.items()}
        if self._must_rewrite:
            self._must_rewrite = False
            await bus.delete(DEVICE_HOLDERS, server=self._server)
            self._published = {}
        new: dict[str, Any] = {device: row for device, row in table.items() if self._published.get(device) != row}
        gone = [device for device in self._published if device not in table]
        if new:
            await bus.put_fields(DEVICE_HOLDERS, new, server=self._server)
        if gone:
            await bus.delete_fields(DEVICE_HOLDERS, *gone, server=self._server)
        self._published = table
        self._published_revision = revision

    def _row(self, device: str, holder: Holder) -> DeviceHolder:
        purpose = holder.purpose
        return DeviceHolder(
            device=device,
            text=str(purpose),
            client=holder.client,
            since=holder.devices[device] + self._since_epoch,
            item_id=purpose.item_id,
            scan_id=purpose.scan_id,
            user=purpose.user,
        )


def _claimed(devices: Any, text: str = "", lifetime: float = DEFAULT_LIFETIME) -> tuple[list[str], str, float]:
    return [str(device) for device in devices], str(text), float(lifetime)


def _renewed(text: str | None = None, lifetime: float | None = None) -> tuple[str | None, float | None]:
    return text, lifetime
