"""The book of holders against the simplest model of it: a dict of devices and a dict of deadlines."""

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bec_bluesky.device_server._holders import Holders, Purpose
from bec_bluesky.errors import DeviceHeld

DEVICES = ("x", "y", "z")
TOKENS = ("plan", "anna", "eve")
some_devices = strategies.lists(strategies.sampled_from(DEVICES), unique=True).map(tuple)
tokens = strategies.sampled_from(TOKENS)
lifetimes = strategies.integers(1, 5)


class Book(RuleBasedStateMachine):
    """Claims, uses, renewals, releases, losses and the passing of time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Holders()
        self.now = 0.0
        self.held: dict[str, str] = {}
        self.ends: dict[str, float] = {}
        self.lifetimes: dict[str, float] = {}

    # ── the model ──

    def is_free(self, device: str, token: str) -> bool:
        holder = self.held.get(device)
        return holder is None or holder == token or self.ends[holder] <= self.now

    def forget(self, token: str) -> None:
        self.ends.pop(token, None)
        self.held = {device: holder for device, holder in self.held.items() if holder != token}

    def take(self, devices: tuple[str, ...], token: str) -> None:
        for holder in {self.held[device] for device in devices if device in self.held} - {token}:
            self.forget(holder)  # it was over
        self.held |= dict.fromkeys(devices, token)

    # ── what may happen ──

    @rule(devices=some_devices, token=tokens, lifetime=lifetimes)
    def claim(self, devices: tuple[str, ...], token: str, lifetime: int) -> None:
        arguments = (devices, token, f"client of {token}", Purpose(token), self.now, lifetime)
        if all(self.is_free(device, token) for device in devices):
            self.book.claim(*arguments)
            self.take(devices, token)
            self.ends[token], self.lifetimes[token] = self.now + lifetime, lifetime
        else:
            with pytest.raises(DeviceHeld):
                self.book.claim(*arguments)

    @rule(devices=some_devices.filter(bool), token=strategies.sampled_from((*TOKENS, "")))
    def use(self, devices: tuple[str, ...], token: str) -> None:
        if not all(self.is_free(device, token) for device in devices):
            with pytest.raises(DeviceHeld):
                self.book.use(devices, token, f"client of {token}", self.now)
            return
        self.book.use(devices, token, f"client of {token}", self.now)
        if token:
            if token not in self.ends:
                self.ends[token], self.lifetimes[token] = self.now + 30.0, 30.0
            self.take(devices, token)
        else:
            for device in devices:
                self.forget(self.held.get(device, ""))  # it was over

    @rule(token=tokens, lifetime=strategies.none() | lifetimes)
    def renew(self, token: str, lifetime: int | None) -> None:
        assert self.book.renew(token, self.now, lifetime=lifetime) == (token in self.ends)
        if token in self.ends:
            self.lifetimes[token] = self.lifetimes[token] if lifetime is None else lifetime
            self.ends[token] = self.now + self.lifetimes[token]

    @rule(token=tokens, devices=strategies.none() | some_devices)
    def release(self, token: str, devices: tuple[str, ...] | None) -> None:
        self.book.release(token, devices)
        if devices is None:
            self.forget(token)
        else:
            self.held = {d: holder for d, holder in self.held.items() if not (holder == token and d in devices)}

    @rule(token=tokens)
    def lose_client(self, token: str) -> None:
        freed = self.book.release_client(f"client of {token}")
        assert sorted(freed) == sorted(device for device, holder in self.held.items() if holder == token)
        self.forget(token)

    @rule(seconds=strategies.integers(0, 6))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        over = [token for token, end in self.ends.items() if end <= self.now]
        freed = self.book.expire(self.now)
        assert sorted(freed) == sorted(device for device, holder in self.held.items() if holder in over)
        for token in over:
            self.forget(token)

    # ── what always holds ──

    @invariant()
    def says_what_the_model_says(self) -> None:
        assert {device: holder.token for device, holder in self.book.devices.items()} == self.held
        for token in TOKENS:
            holder = self.book.holder(token)
            assert (holder is not None) == (token in self.ends)
            if holder is not None:
                assert set(holder.devices) == {device for device, owner in self.held.items() if owner == token}
                assert holder.expires == self.ends[token]


Book.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_the_book_of_holders = Book.TestCase


def test_the_refusal_says_who_and_what_to_do() -> None:
    book = Holders()
    book.claim(["samx"], "a", "worker", Purpose("grid_scan (item 3f2a, anna)", "3f2a", "anna", 12), 0.0)
    book.claim(["samy"], "b", "eve's", Purpose("eve"), 0.0)
    book.use(("samz",), "c", "script", 0.0)
    for device, text in (
        ("samx", "samx is held by scan 12, grid_scan (item 3f2a, anna): wait for it to end, or stop it"),
        ("samy", "samy is held by eve: it is free when they let go of it"),
        ("samz", "samz is held by script: it is free when they let go of it"),
    ):
        with pytest.raises(DeviceHeld) as refused:
            book.use((device,), "", "tester", 1.0)
        assert str(refused.value) == text
