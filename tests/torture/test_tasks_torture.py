"""Tasks, ends and kills at random: every task ends, the queue goes on, and no process is left."""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bec_bluesky.messages.around_queue import EndTask, GetTasks, RunFunction, RunScript, Task
from bec_bluesky.messages.queue import AddItem
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import make_profile
from tests.torture.live_scan_server import LiveScanServer, live_scan_server

STARTUP = """
import os, time

def nap(seconds):
    print("napping", seconds)
    time.sleep(seconds)
    return os.getpid()

def stubborn():
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
SCRIPTS = (
    "print('x' * 100_000)\n",
    "def reef_{n}():\n    yield from ()\n",
    "raise RuntimeError('{n}')\n",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n",
    "import os; os._exit(3)\n",
    "import sys; sys.stdout.close()\n",
    "import os; os.closerange(0, 3)\n",
    "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()\n",
)


@pytest.fixture
def live(redis_settings: Settings, tmp_path: Path) -> Iterator[LiveScanServer]:
    profile = make_profile(tmp_path / "profile", STARTUP)
    settings = redis_settings.with_(beamline=tmp_path.name, data_dir=tmp_path / "data", profile=profile)
    with live_scan_server(settings) as live:
        yield live


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_every_task_ends_whatever_happens_to_it(live: LiveScanServer, seed: int) -> None:
    chance = random.Random(seed)
    begun: list[str] = []
    items = 0

    def shown(task_id: str) -> Task:
        return live.ask(GetTasks(task_ids=[task_id])).tasks[0]

    for number in range(20):
        what = chance.random()
        if what < 0.5:
            asked = RunScript(script=chance.choice(SCRIPTS).replace("{n}", str(number)))
            begun.append(live.ask(asked).task_id)
        elif what < 0.7:
            begun.append(live.ask(RunFunction(name="nap", args=[chance.uniform(0, 0.3)])).task_id)
        elif what < 0.75:
            begun.append(live.ask(RunFunction(name="stubborn")).task_id)
            live.ask(EndTask(task_id=begun[-1]))
        elif what < 0.9 and begun:
            live.ask(EndTask(task_id=chance.choice(begun)))
        else:
            live.ask(AddItem(plan="sleep", args=[0], start=True))
            items += 1
    with contextlib.suppress(TimeoutError):  # many processes start, one after the other: on a busy machine that takes
        live.until(lambda: all(shown(task_id).state != "running" for task_id in begun))
    live.until(lambda: all(shown(task_id).state != "running" for task_id in begun))
    assert live.status().tasks == 0
    live.until(lambda: len(live.ended(100)) == items)
    assert {item.result.exit_status for item in live.ended(100) if item.result is not None} <= {"completed"}
    last = live.ask(RunFunction(name="nap", args=[0])).task_id
    live.until(lambda: shown(last).state != "running")
    assert shown(last).reason == ""
    process = shown(last).value
    os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGKILL)
    again = live.ask(RunFunction(name="nap", args=[0])).task_id
    live.until(lambda: shown(again).state != "running")
