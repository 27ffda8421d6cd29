"""A real worker process at the other end of a socket pair, with a profile of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from bec_bluesky.bus import Bus
from bec_bluesky.channels import EPOCH, RUNS, document_stream
from bec_bluesky.messages import unpack
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.messages.worker import Control, FromWorker, RunItem, RunState, ToWorker, WorkerItemDone, WorkerReady
from bec_bluesky.scan_server._frames import FrameReader, write
from bec_bluesky.settings import Settings

DEADLINE = 30.0
T = TypeVar("T")

STARTUP = '''
import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
from ophyd.sim import SynGauss, SynAxis, noisy_det
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import SimMotor


x = SynAxis(name="x")
det = SynGauss("det", x, "x", center=0, Imax=1, sigma=1)
slow = SimMotor("slow", instant=False)  # 1 mm/s


def sim_scan(num: int = 5):
    """Scan a simulated motor."""
    return (yield from bp.scan([det], x, -1, 1, num))


def long_count(num: int = 1000, delay: float = 0.01):
    """Count for long."""
    yield from bp.count([det], num, delay)


def long_move(target: float = 60.0):
    """Move slowly within a run; says whether it could clean up."""
    @bpp.run_decorator(md={"purpose": "move"})
    def inner():
        yield from bps.checkpoint()
        yield from bps.mv(slow, target)
    yield from ensure_connected(slow)
    return (yield from bpp.finalize_wrapper(inner(), bps.abs_set(x, 42, wait=True)))


def stubborn_clean_up():
    """Take for ever to clean up."""
    def clean_up():
        yield from bps.sleep(600)
    yield from bpp.finalize_wrapper(bps.sleep(600), clean_up())


def no_checkpoint():
    """Sleep where no pause is allowed."""
    yield from bps.clear_checkpoint()
    yield from bps.sleep(600)


def relative_scan(num: int = 1000):
    """Scan about where x is, and go back there."""
    def slowly(detectors, step, pos_cache):
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from bps.sleep(0.01)
    yield from bp.rel_scan([det], x, -1, 1, num, per_step=slowly)


def wait_between_points():
    """Take a point, then wait for ever before the next."""
    yield from bp.count([det], 2, 600)


def nested():
    """Open a run within a run."""
    yield from bpp.set_run_key_wrapper(bps.open_run(md={"purpose": "outer"}), "outer")
    for _ in range(3):
        yield from bpp.set_run_key_wrapper(bps.trigger_and_read([det]), "outer")
        yield from bpp.set_run_key_wrapper(bp.count([noisy_det], 2), "inner")
    yield from bpp.set_run_key_wrapper(bps.close_run(), "outer")


def broken(value):
    """Fail in the middle of a run."""
    @bpp.run_decorator()
    def inner():
        yield from bps.trigger_and_read([det])
        raise RuntimeError("the sample fell off")
    yield from inner()


def refused_move():
    """Ask a device for what it refuses later, in its status."""
    from ophyd.status import Status

    class Refusing(SynAxis):
        def set(self, value):
            status = Status(obj=self)
            status.set_exception(ValueError("the drive is disabled"))
            return status

    @bpp.run_decorator()
    def inner():
        yield from bps.mv(Refusing(name="refusing"), 3)
    yield from inner()


def put_x(value):
    """Put x somewhere."""
    yield from bps.mv(x, value)


def where_is_x():
    """Tell where x is."""
    yield from bps.null()
    return x.position


def die():
    """Take the process along, in the middle of a run."""
    import os, signal
    @bpp.run_decorator()
    def inner():
        for _ in range(20):
            yield from bps.trigger_and_read([det])
        yield from bps.sleep(600)
    yield from inner()
'''


class Worker:
    """A worker process, as its scan server sees it."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self.settings = settings
        self.process = process
        self.connection = connection
        self.heard: list[FromWorker] = []
        self._changed = asyncio.Condition()
        self._hearing: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self.connection)
        self._hearing = asyncio.create_task(self._hear(FrameReader(reader, FromWorker)))

    async def close(self) -> None:
        self._writer.close()
        if self._hearing is not None:
            self._hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._hearing
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def forget(self) -> None:
        """Forget what was heard, but for its being ready."""
        async with self._changed:
            self.heard = [message for message in self.heard if isinstance(message, WorkerReady)]

    def hang_up(self) -> None:
        """Be gone, as a scan server that died."""
        self._writer.close()

    async def _hear(self, reader: FrameReader) -> None:
        while (message := await reader.read()) is not None:
            async with self._changed:
                self.heard.append(message)
                self._changed.notify_all()

    async def send(self, message: ToWorker) -> None:
        await write(self._writer, message)

    async def wait(self, kind: type[T], condition: Callable[[T], bool] = lambda _: True) -> T:
        """Wait for a message of this kind, among those that came already too."""

        def find() -> T | None:
            return next((each for each in self.heard if isinstance(each, kind) and condition(each)), None)

        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    async def run(
        self, plan: str, *args: Any, token: int = 1, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> str:
        """Have it run an item; gives the item's id."""
        item = QueueItem(
            item_id=uuid.uuid4().hex, plan=plan, args=list(args), kwargs=kwargs, metadata=metadata or {}, user="eve"
        )
        await self.send(RunItem(item=item, token=token))
        return item.item_id

    async def done(self, item_id: str) -> WorkerItemDone:
        return await self.wait(WorkerItemDone, lambda message: message.item_id == item_id)

    async def state(self, state: str) -> None:
        """Wait until the engine is in this state now."""

        def newest() -> str:
            return next((each.state for each in reversed(self.heard) if isinstance(each, RunState)), "idle")

        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: newest() == state)

    async def control(self, action: Any, reason: str = "") -> None:
        await self.send(Control(action=action, reason=reason))

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


def make_profile(directory: Path, startup: str = STARTUP) -> Path:
    collection = directory / "profile_collection"
    (collection / "startup").mkdir(parents=True)
    (collection / "profile.toml").write_text('title = "test"\n[metadata]\nfacility = "the test bench"\n')
    (collection / "startup" / "10-sim.py").write_text(startup)
    return directory


@contextlib.asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[Worker]:
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bec_bluesky.scan_server.worker",
        "--fd",
        str(theirs.fileno()),
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        env=os.environ | settings.environment(),
    )
    theirs.close()
    worker = Worker(settings, process, ours)
    await worker.open()
    try:
        yield worker
    finally:
        await worker.close()


async def documents(bus: Bus, run_uid: str) -> list[tuple[str, dict[str, Any]]]:
    """Read the documents of a run; their ids must be dense."""
    entries: Any = await bus.redis.xrange(document_stream(bus.beamline, run_uid))
    assert [stream_id.decode() for stream_id, _ in entries] == [f"{number}-0" for number in range(1, len(entries) + 1)]
    return [(fields[b"n"].decode(), unpack(fields[b"d"])) for _, fields in entries]


async def announced(bus: Bus) -> list[Any]:
    """Read the announcements of runs."""
    return [message for _, message in await bus.read(RUNS)]


async def set_epoch(bus: Bus, token: int) -> None:
    await bus.redis.set(bus.key(EPOCH), token)


async def eventually(condition: Callable[[], Awaitable[bool]], *, within: float = DEADLINE) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.01)
