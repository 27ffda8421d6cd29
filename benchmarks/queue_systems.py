"""The two queues that `against_queueserver` compares, each with processes and a Redis of its own, and the same verbs.

Both load the same start-up file, which notes when each run opens (the start document), and in which process.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import zmq
import zmq.asyncio

from bec_bluesky import embedded
from bec_bluesky.bus import Bus, Caller
from bec_bluesky.messages.queue import (
    AddItem,
    AddItems,
    ClearQueue,
    ExecuteItem,
    GetStatus,
    ScanServerStatus,
    StartQueue,
)
from bec_bluesky.settings import Settings
from bec_bluesky.testing import settings_in

__all__ = ["Client", "Ours", "Peer", "Run", "System"]

ROOT = Path(__file__).resolve().parent.parent
LOG = "QUEUE_BENCHMARK_LOG"
_READY_WITHIN = 90.0
_STARTUP = f"""
import os, time

def note_the_start(name, document):
    line = f"{{document['number']}} {{time.monotonic()}} {{os.getpid()}}\\n"
    with open(os.environ["{LOG}"], "a") as log:
        log.write(line)

RE.subscribe(note_the_start, "start")
"""
_PEERS_OWN = """
from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det

RE = RunEngine({})
"""
_DEVICES = """
version: 1
devices:
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: motor}, motor_field: motor, center: 0, Imax: 1, sigma: 1}}
  motor: {class: "ophyd.sim:SynAxis"}
"""
_PERMISSIONS = """
user_groups:
  root: {allowed_plans: [null], allowed_devices: [null]}
  primary: {allowed_plans: [null], allowed_devices: [null]}
"""
Run = tuple[int, float, int]
"""Number of the item, when its run opened (monotonic), and the process that ran it."""


class Client(Protocol):
    """What is asked of both."""

    async def add(self, numbers: list[int], delay: float = 0.0) -> None:
        """Queue a `count` of one reading for each number, in one request; the plan takes `delay` seconds more."""

    async def execute(self, number: int) -> None:
        """Run one at once, past the queue."""

    async def start(self) -> None: ...

    async def is_idle(self) -> bool:
        """Ask for the status, whether nothing runs and the next item could."""
        ...

    async def recover(self) -> None:
        """Do what a person has to do after the worker was killed, for the queue to go on."""

    async def is_whole(self) -> bool:
        """Whether everything is there that keeps a queue going when its worker dies."""
        ...

    async def clear(self) -> None:
        """Take all waiting items out."""


Connect = Callable[..., contextlib.AbstractAsyncContextManager[Client]]


class System(Protocol):
    """A queue that runs."""

    name: str

    @property
    def door(self) -> tuple[Connect, Any]:
        """What another process can call, with its argument, to become a client."""
        ...

    def resident(self) -> int:
        """Give the bytes that its processes keep in memory, Redis left out."""
        ...

    def runs(self) -> list[Run]:
        """Give the runs so far."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Processes:
    """What both have: a directory with the log of runs, and processes that end with the block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._log = directory / "runs"
        self._log.touch()
        self._stack = contextlib.ExitStack()
        self._pids: list[int] = []

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def runs(self) -> list[Run]:
        whole, _, _ = self._log.read_text().rpartition("\n")  # the last line may be in the middle of its writing
        lines = [line.split() for line in whole.splitlines()]
        return [(int(number), float(when), int(pid)) for number, when, pid in lines]

    def resident(self) -> int:
        return sum(_resident(pid) for pid in _with_children(self._pids))

    def _spawn(self, *command: str, environment: dict[str, str]) -> None:
        output = self._stack.enter_context((self.directory / "output").open("ab"))
        process = subprocess.Popen(
            command,
            env=os.environ | {LOG: str(self._log), "PYTHONPATH": str(ROOT)} | environment,
            stdout=output,
            stderr=output,
        )
        self._stack.callback(_end, process)
        self._pids.append(process.pid)


# ── ours ──────────────────────────────────────────────────────────────────────────────────────────


class Ours(_Processes):
    """A scan server with its workers, and a device server."""

    name = "bec-bluesky"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        profile = directory / "profile"
        (profile / "startup").mkdir(parents=True)
        (profile / "profile.toml").write_text('title = "benchmark"\n')
        (profile / "devices.yaml").write_text(_DEVICES)
        (profile / "startup" / "00-log.py").write_text(_STARTUP)
        self._settings = settings_in(directory / "data", profile=profile)

    def __enter__(self) -> Self:
        server = embedded.find_or_start(self._settings, with_parent=True)
        self._stack.callback(embedded.stop, self._settings)
        self._settings = self._settings.with_(redis_url=server.url)
        for service in ("device_server", "scan_server"):
            command = (sys.executable, "-m", f"bec_bluesky.{service}")
            self._spawn(*command, environment=self._settings.environment())
        return self

    @property
    def door(self) -> tuple[Connect, Settings]:
        return our_client, self._settings


class OurClient:
    def __init__(self, caller: Caller) -> None:
        self._ask = caller.ask

    async def add(self, numbers: list[int], delay: float = 0.0) -> None:
        items = [_our_item(number, delay) for number in numbers]
        await self._ask(items[0] if len(items) == 1 else AddItems(items=items), timeout=60.0)

    async def execute(self, number: int) -> None:
        await self._ask(ExecuteItem(item=_our_item(number)))

    async def start(self) -> None:
        await self._ask(StartQueue())

    async def is_idle(self) -> bool:
        status: ScanServerStatus = await self._ask(GetStatus(), timeout=_READY_WITHIN)
        return status.running is None and status.run_state == "idle" and status.queue_state == "stopped"

    async def recover(self) -> None:
        """Nothing has to be done."""

    async def is_whole(self) -> bool:
        status: ScanServerStatus = await self._ask(GetStatus())
        return "is ready" in status.worker  # the last thing that happened: the spare came up

    async def clear(self) -> None:
        await self._ask(ClearQueue())


def _our_item(number: int, delay: float = 0.0) -> AddItem:
    kwargs: dict[str, Any] = {"num": 2, "delay": delay} if delay else {"num": 1}
    return AddItem(plan="count", args=[["det"]], kwargs=kwargs, metadata={"number": number})


@contextlib.asynccontextmanager
async def our_client(settings: Settings) -> AsyncIterator[Client]:
    async with (
        Bus(settings.redis_url or "", settings.beamline) as bus,
        Caller(bus, user="benchmark") as caller,
    ):
        yield OurClient(caller)


# ── the peer ──────────────────────────────────────────────────────────────────────────────────────


class Peer(_Processes):
    """bluesky-queueserver's RE Manager, asked by its 0MQ socket."""

    name = "queueserver"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        startup = directory / "startup"
        startup.mkdir()
        (startup / "00-log.py").write_text(_PEERS_OWN + _STARTUP)
        (startup / "user_group_permissions.yaml").write_text(_PERMISSIONS)
        self._startup = startup
        self._address = f"tcp://127.0.0.1:{_free_port()}"

    def __enter__(self) -> Self:
        redis = self._stack.enter_context(_redis_on_tcp(self.directory / "redis"))
        info = f"tcp://127.0.0.1:{_free_port()}"
        options = {
            "startup-dir": str(self._startup),
            "update-existing-plans-devices": "ENVIRONMENT_OPEN",
            "redis-addr": redis,
            "zmq-control-addr": self._address,
            "zmq-info-addr": info,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = str(Path(sys.executable).with_name("start-re-manager"))
        self._spawn(command, "--keep-re", *words, environment={"MPLBACKEND": "agg"})
        return self

    @property
    def door(self) -> tuple[Connect, str]:
        return peers_client, self._address


class PeersClient:
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket

    async def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        async with asyncio.timeout(_READY_WITHIN):
            await self._socket.send_json({"method": method, "params": params})
            reply: dict[str, Any] = await self._socket.recv_json()
        if not reply.get("success", True):
            raise ValueError(f"{method}: {reply['msg']}")
        return reply

    async def add(self, numbers: list[int], delay: float = 0.0) -> None:
        items = [_peers_item(number, delay) for number in numbers]
        if len(items) == 1:
            await self._ask("queue_item_add", item=items[0], user="benchmark", user_group="primary")
        else:
            await self._ask("queue_item_add_batch", items=items, user="benchmark", user_group="primary")

    async def execute(self, number: int) -> None:
        await self._ask("queue_item_execute", item=_peers_item(number), user="benchmark", user_group="primary")

    async def start(self) -> None:
        await self._ask("queue_start")

    async def is_idle(self) -> bool:
        status = await self._ask("status")
        if not status["worker_environment_exists"] and status["manager_state"] == "idle":
            await self._ask("environment_open")
            return False
        return status["manager_state"] == "idle" and status["worker_environment_state"] == "idle"

    async def recover(self) -> None:
        await self._ask("environment_destroy")
        while not await self.is_idle():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await self._ask("queue_start")

    async def is_whole(self) -> bool:
        return await self.is_idle()

    async def clear(self) -> None:
        await self._ask("queue_clear")


def _peers_item(number: int, delay: float = 0.0) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"num": 2, "delay": delay} if delay else {"num": 1}
    return {"item_type": "plan", "name": "count", "args": [["det"]], "kwargs": kwargs, "meta": {"number": number}}


@contextlib.asynccontextmanager
async def peers_client(address: str) -> AsyncIterator[Client]:
    with zmq.asyncio.Context() as context, context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect(address)
        yield PeersClient(asking)


@contextlib.contextmanager
def _redis_on_tcp(directory: Path) -> Iterator[str]:
    """Run the same Redis that we embed, set up alike, on a port, since the peer takes no socket's path."""
    directory.mkdir()
    port = _free_port()
    words = list(embedded._configuration(directory, directory / "bus.sock", directory / "log"))
    words[words.index("--port") + 1] = str(port)
    process = subprocess.Popen([str(embedded._find_binary()), *words, "--bind", "127.0.0.1"])
    try:
        deadline = time.monotonic() + 10.0
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the peer's Redis does not come up")
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        _end(process)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    children = _with_children([process.pid])
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20.0)
    for pid in children[1:] if process.poll() is not None else children:  # the peer may leave its worker
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait(10.0)


def _with_children(pids: list[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(each) for each in tasks.read_text().split()]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
