"""The same plan on both benches, and everything compared that anybody can see of it."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bluesky import RunEngine

from tests.proxy.conftest import Bench, Outcome

__all__ = ["Act", "Devices", "Pair", "Plan", "acting", "differences", "seen"]

Devices = Mapping[str, Any]
Plan = Callable[[Devices], Any]
Act = Callable[[Any], Any]
"""Gives the coroutine of a RunEngine that does something to a running plan, as its own methods do it in the loop."""


@dataclass
class Pair:
    """A bench at home and a remote one."""

    local: Bench
    remote: Bench

    def compare(
        self, plan: Plan, *, when_paused: str = "resume", at: int | None = None, act: Act | None = None
    ) -> Outcome:
        """Run a plan on both, `act` on it once `at` messages are done, and assert that there is no difference."""
        at_home, far_away = (
            self.run(bench, plan, when_paused=when_paused, at=at, act=act) for bench in (self.local, self.remote)
        )
        found = "\n".join(differences("", asdict(at_home), asdict(far_away)))
        assert not found, f"(at home, remotely)\n{found}"
        return at_home

    @staticmethod
    def run(
        bench: Bench, plan: Plan, *, when_paused: str = "resume", at: int | None = None, act: Act | None = None
    ) -> Outcome:
        """Run a plan on one of the benches."""
        bench.RE.md["scan_id"] = 0
        if at is None or act is None:
            return bench.run(plan(bench.devices), when_paused=when_paused)
        with acting(bench.RE, at, act):
            return bench.run(plan(bench.devices), when_paused=when_paused)


@contextlib.contextmanager
def acting(RE: RunEngine, at: int, act: Act) -> Iterator[list[str]]:
    """Act when the message number `at` (from 0) is done, before the next one; gives the list of commands done.

    It happens in the RunEngine's loop: nothing depends on time. The next moment at which the RunEngine lets others run,
    which is the one where it learns of such a request, is just there.
    """
    stock = dict(RE._command_registry)
    done: list[str] = []

    def surrounded(command: str) -> Any:
        async def run(msg: Any) -> Any:
            try:
                return await stock[command](msg)
            finally:
                done.append(msg.command)
                if len(done) == at + 1:
                    _do(act(RE))

        return run

    for command in stock:
        RE.register_command(command, surrounded(command))
    try:
        yield done
    finally:
        RE._command_registry.update(stock)


def _do(coroutine: Any) -> None:
    """Run a coroutine that waits for nothing."""
    if inspect.iscoroutine(coroutine):
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
            raise AssertionError("it waits")


def differences(place: str, one: Any, other: Any) -> Iterator[str]:
    """Say where two canonical things differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(f"{place}.{key}", one[key], other[key])
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            yield from differences(f"{place}[{number}]", mine, yours)
    elif one != other or type(one) is not type(other):
        yield f"{place}: {_short(one)} != {_short(other)}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(str(each[0]) if isinstance(each, list) and each else _short(each) for each in value)}]"
    return repr(value)


def seen(error: BaseException) -> list[Any]:
    """What a plan can see of an error and of its cause."""
    cause = error.__cause__
    return [type(error).__name__, str(error), None if cause is None else [type(cause).__name__, str(cause)]]
