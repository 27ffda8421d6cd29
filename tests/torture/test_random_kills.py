"""Everything is killed and stopped at random times: no item is lost, none runs twice, what was running is held."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky import embedded
from bec_bluesky.bus import Bus, Caller
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages.queue import AddItem, GetHistory, GetQueue, QueueItem, RemoveItem, StartQueue
from bec_bluesky.scan_server._history import HistoryReader
from bec_bluesky.scan_server._ownership import Ownership
from bec_bluesky.scan_server._store import QueueStore
from bec_bluesky.settings import Settings
from bec_bluesky.testing import settings_in
from tests.scan_server.scan_server_harness import SCRIPTED
from tests.scan_server.worker.worker_bench import make_profile

LEAST_ACCEPTED = 30
ASK_TIMEOUT = 3.0
HARM = [*["kill worker"] * 2, *["kill manager"] * 2, "kill redis", "replace manager", *["stop"] * 3]
REAL_PLAN = """
import os
import bluesky.plan_stubs as bps

def note_it(name):
    async def write():
        log = os.open(os.environ["SCRIPTED_WORKER_LOG"], os.O_WRONLY | os.O_APPEND)
        os.write(log, f"{name}\\n".encode())
        os.fsync(log)
        os.close(log)
    return write

def brief(name=""):
    yield from bps.open_run()
    yield from bps.wait_for([note_it(name)])
    yield from bps.sleep(0.02)
    yield from bps.close_run()
"""


class Victims:
    """Redis, and the scan server with its workers: processes that can be killed, stopped and started again."""

    def __init__(self, settings: Settings, log: Path, *, is_real: bool) -> None:
        self.settings = settings
        self._log = log
        self._worker = "" if is_real else f"worker_command={SCRIPTED!r}"
        self._managers: list[asyncio.subprocess.Process] = []
        self._stopped: set[int] = set()

    async def start_redis(self) -> None:
        server = await asyncio.to_thread(embedded.find_or_start, self.settings, with_parent=True)
        assert server.pid is not None
        self.redis = server.pid
        self.url = server.url

    async def start_manager(self, take_over: str = "if_free") -> None:
        code = (
            "from bec_bluesky.scan_server import ScanServer; from bec_bluesky.service import main; "
            f"make = lambda settings: ScanServer(settings, take_over={take_over!r}, {self._worker}); "
            "raise SystemExit(main(make, name='scan_server'))"
        )
        environment = os.environ | self.settings.environment() | {"SCRIPTED_WORKER_LOG": str(self._log)}
        with (self.settings.data_dir / "managers.out").open("ab") as output:
            self._managers.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-c", code, env=environment, stdout=output, stderr=output
                )
            )

    @property
    def manager(self) -> asyncio.subprocess.Process:
        return self._managers[-1]

    def workers(self) -> list[int]:
        try:
            return [
                int(pid)
                for pid in Path(f"/proc/{self.manager.pid}/task/{self.manager.pid}/children").read_text().split()
            ]
        except OSError:
            return []

    async def harm(self, chance: random.Random) -> None:
        """Do one thing to one of them, and what an operator's supervisor would do then."""
        what = chance.choice(
            ["kill worker", "kill worker", "kill manager", "kill manager", "kill redis", "replace"] + ["stop"] * 3
        )
        match what:
            case "kill worker":
                for pid in self.workers()[:1]:
                    _signal(pid, signal.SIGKILL)
            case "kill manager":
                with contextlib.suppress(ProcessLookupError):  # it may have given up by itself, without a Redis
                    self.manager.kill()
                await self.manager.wait()
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                await self.start_manager()
            case "kill redis":
                _signal(self.redis, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    await asyncio.to_thread(os.waitpid, self.redis, 0)
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                await self.start_redis()
            case "stop":
                pid = chance.choice([self.manager.pid, self.redis, *self.workers()[:1]])
                _signal(pid, signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(0.1, 4.0))
                _signal(pid, signal.SIGCONT)
            case _:
                await self.replace_manager(chance)

    async def replace_manager(self, chance: random.Random) -> None:
        """Have a second scan server take over from one that hangs, which wakes up later."""
        first = self.manager
        _signal(first.pid, signal.SIGSTOP)
        await self.start_manager("at_once")
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        _signal(first.pid, signal.SIGCONT)

    async def stay_up(self) -> None:
        """Start a scan server whenever none is left, as a supervisor does."""
        while True:
            if all(process.returncode is not None for process in self._managers):
                await self.start_manager()
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        for process in self._managers:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.to_thread(embedded.stop, self.settings)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class People:
    """Add items, start the queue, and look after what is held."""

    def __init__(self, caller: Caller, *, is_real: bool) -> None:
        self._caller = caller
        self._is_real = is_real
        self.asked: list[str] = []
        self.accepted: dict[str, str] = {}
        """{title: item id}"""
        self.removed: list[QueueItem] = []

    async def add_items(self) -> None:
        for number in range(100_000):
            title = f"t{number}"
            self.asked.append(title)
            kwargs = {"name": title} if self._is_real else {}
            with contextlib.suppress(BecBlueskyError):
                answer = await self._caller.ask(AddItem(plan="brief", title=title, kwargs=kwargs), timeout=ASK_TIMEOUT)
                self.accepted[title] = answer.item.item_id
            await asyncio.sleep(0.02)

    async def keep_the_queue_going(self) -> None:
        """What is held is taken out, never released: then nothing may run twice."""
        while True:
            with contextlib.suppress(BecBlueskyError):
                queue = await self._caller.ask(GetQueue(), timeout=ASK_TIMEOUT)
                for item in queue.waiting:
                    if item.state == "held":
                        assert item.held, "what is held says why"
                        self.removed.append(
                            await self._caller.ask(RemoveItem(item_id=item.item_id), timeout=ASK_TIMEOUT)
                        )
            with contextlib.suppress(BecBlueskyError):
                await self._caller.ask(StartQueue(), timeout=ASK_TIMEOUT)
            await asyncio.sleep(0.03)


@contextlib.asynccontextmanager
async def at_work(victims: Victims, people: People) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(each) for each in (people.add_items(), people.keep_the_queue_going(), victims.stay_up())
    ]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def torment(directory: Path, seed: int, *, rounds: int, is_real: bool) -> None:
    chance = random.Random(seed)
    log = directory / "ran"
    log.touch()
    profile = make_profile(directory / "profile", startup=REAL_PLAN)
    victims = Victims(settings_in(directory / "data", profile=profile), log, is_real=is_real)
    try:
        await victims.start_redis()
        await victims.start_manager()
        async with Bus(victims.url, victims.settings.beamline) as bus, Caller(bus, user="ann") as caller:
            people = People(caller, is_real=is_real)
            async with at_work(victims, people):
                done = 0
                while done < rounds or len(people.accepted) < LEAST_ACCEPTED:  # more where the machine is busy
                    await asyncio.sleep(chance.uniform(0.2, 1.5))
                    await victims.harm(chance)
                    done += 1
                before = len(people.accepted)
                async with asyncio.timeout(60.0):  # it still lives after all of that
                    while len(people.accepted) < before + 3:
                        await asyncio.sleep(0.05)
            await judge(bus, people, log.read_text().split(), is_real=is_real)
    finally:
        await victims.end()


async def judge(bus: Bus, people: People, ran: list[str], *, is_real: bool) -> None:
    """Every accepted item is in one place, and what ran is in the history, running, or was held."""
    store = QueueStore(bus, await Ownership(bus).take("at_once"))
    loaded = await store.load()
    assert loaded.problems == []
    (state,) = loaded.states.values()
    ended = await _history(HistoryReader(bus, None))
    running = [] if state.running is None else [state.running]
    everywhere: list[QueueItem] = [*state.waiting, *running, *ended, *people.removed]
    places = Counter(item.title for item in everywhere)
    asked, accepted = set(people.asked), set(people.accepted)
    # a removal whose answer was lost took the item out all the same: at most as many as were held, and none that waits
    missing = {title for title in accepted if title not in places}
    held_and_gone = {title for title in missing if _key(people, title, is_real) in ran}
    assert missing == held_and_gone, "an accepted item is lost"
    assert set(places) <= asked
    assert [title for title, count in places.items() if count > 1] == []
    begun = Counter(ran)
    assert begun, "the test did something"
    assert [name for name, count in begun.items() if count > 1] == [], "an item ran twice"
    waiting = {(item.title if is_real else item.item_id) for item in state.waiting if item.state == "waiting"}
    assert waiting.isdisjoint(begun), "what has begun may not wait as if it had not"


def _key(people: People, title: str, is_real: bool) -> str:
    return title if is_real else people.accepted[title]


async def _history(history: HistoryReader) -> list[QueueItem]:
    items: list[QueueItem] = []
    before: Any = None
    while True:
        page = await history.page(GetHistory(limit=1000, before=before))
        items += page.items
        if page.next is None:
            return items
        before = page.next


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 21))])
async def test_kills_and_stops_lose_no_item_and_run_none_twice(tmp_path: Path, seed: int) -> None:
    await torment(tmp_path, seed, rounds=3 if seed == 1 else 12, is_real=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [101, 102, 103, 104])
async def test_real_workers_run_none_twice_either(tmp_path: Path, seed: int) -> None:
    await torment(tmp_path, seed, rounds=10, is_real=True)
