"""A device server in this process, and a client that speaks the raw wire with it."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bec_bluesky.bus import Bus, Wire
from bec_bluesky.channels import ANSWERS, DEVICES, INSTRUCTIONS
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.devices import Answer, Answers, DeviceInfo, Instruction, Op
from bec_bluesky.messages.failures import raised
from bec_bluesky.settings import Settings

DEADLINE = 10.0
_answers = decoder(Answers)


async def until(condition: Callable[[], Any], what: str = "", timeout: float = DEADLINE) -> Any:
    """Wait until a condition (a function, perhaps a coroutine function) gives something true; give that."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        found = await found if isinstance(found, Awaitable) else found
        if found:
            return found
        assert time.monotonic() < deadline, f"{what or condition}: not within {timeout:g} s"
        await asyncio.sleep(0.01)


def with_devices(settings: Settings, directory: Path, devices: str) -> Settings:
    """Make a profile of one device file; `devices` are the lines below `devices:`."""
    collection = directory / "profile" / "profile_collection"
    collection.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"  {line}" for line in devices.strip("\n").splitlines())
    (collection / "devices.yaml").write_text(f"version: 1\ndevices:\n{lines}\n")
    return settings.with_(profile=directory / "profile")


@contextlib.asynccontextmanager
async def serving(settings: Settings, bus: Bus) -> AsyncIterator[DeviceServer]:
    """Run a device server as a task of this test."""
    server = DeviceServer(settings)
    task = asyncio.create_task(server.run(), name="the device server of a test")

    async def is_there() -> bool:
        if task.done():
            task.result()
        return server.facts.get("devices") == len(
            [info for info in (await bus.fields(DEVICES, server="main")).values() if info.parent is None]
        )

    try:
        await until(is_there, "a device server")
        yield server
    finally:
        server.stop()
        await task


class Client:
    """Sends instructions, keeps what is answered."""

    def __init__(self, bus: Bus, name: str = "tester") -> None:
        self.name = name
        self.answers: list[Answer] = []
        self.messages = 0
        """How many publications brought them."""
        self.epoch = ""
        self._bus = bus
        self._ids = itertools.count(1)
        self._wire: Wire | None = None

    async def connect(self) -> None:
        self._wire = await Wire.connect(self._bus.address, self._hear)
        await self._wire.subscribe(self._bus.key(ANSWERS, client=self.name))

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    def _hear(self, _: bytes, data: bytes) -> None:
        answers = _answers.decode(data)
        self.epoch = answers.epoch
        self.messages += 1
        self.answers += answers.items

    # ── sending ──

    def op(self, device: str, verb: str, *args: Any, **kwargs: Any) -> Op:
        return Op(next(self._ids), device, verb, list(args), kwargs)

    async def send(self, *ops: Op, **more: Any) -> int:
        """Send one instruction; give how many heard it."""
        assert self._wire is not None
        instruction = Instruction(self.name, more.pop("epoch", ""), list(ops), **more)
        return await self._wire.call("PUBLISH", self._bus.key(INSTRUCTIONS, server="main"), encode(instruction))

    async def start(self, device: str, verb: str, *args: Any, **kwargs: Any) -> int:
        """Send one operation; give its id."""
        op = self.op(device, verb, *args, **kwargs)
        assert await self.send(op) == 1
        return op.id

    async def ask(self, device: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Send one operation and wait for its end; give the payload, or raise the failure."""
        return await self.end(await self.start(device, verb, *args, **kwargs))

    # ── answers ──

    def of(self, number: int, *codes: str) -> list[Answer]:
        return [each for each in self.answers if each.id == number and (not codes or each.code in codes)]

    async def end(self, number: int, timeout: float = DEADLINE) -> Any:
        """Wait for the final answer to an operation; give the payload, or raise the failure."""
        found = await until(lambda: self.of(number, "result", "done", "failed"), f"answer to {number}", timeout)
        if found[0].code == "failed":
            raise raised(msgspec.convert(found[0].payload, Failure))
        return found[0].payload

    async def failure(self, device: str, verb: str, *args: Any, **kwargs: Any) -> Failure:
        """Send one operation and wait for its failure."""
        number = await self.start(device, verb, *args, **kwargs)
        found = await until(lambda: self.of(number, "result", "done", "failed"), f"answer to {number}")
        assert found[0].code == "failed", found
        return msgspec.convert(found[0].payload, Failure)


async def info(bus: Bus, path: str) -> DeviceInfo:
    """Give what the table says of a device."""
    found = await bus.field(DEVICES, path, server="main")
    assert isinstance(found, DeviceInfo), path
    return found
