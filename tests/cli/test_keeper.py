"""Keeping one process: started, started again, stopped; with real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bec_bluesky.cli._keeper import Keeper, StartFailedError
from bec_bluesky.cli._parts import Part
from bec_bluesky.cli._processes import identify

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


def keeper_of(code: str, directory: Path, said: list[str], *, grace: float = 5.0) -> Keeper:
    part = Part("part", (sys.executable, "-c", code), True, 0, has_heartbeat=False, grace=grace)
    return Keeper(part, dict(os.environ), directory, said.append)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_crashed_process_is_started_again_and_said_so(tmp_path: Path) -> None:
    said: list[str] = []
    pids: list[int | None] = []
    keeper = keeper_of("import time; time.sleep(60)", tmp_path, said)
    await keeper.start()
    keeper.is_ready = True
    first = keeper.pid
    task = asyncio.create_task(keeper.keep(lambda: pids.append(keeper.pid)))
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: pids)
    assert pids[0] not in (None, first)
    assert "SIGKILL" in said[0]
    assert "started again" in said[0]
    await keeper.stop(hurry=asyncio.Event())
    await task
    assert not identify(pids[0] or 0).is_alive


async def test_a_process_that_ends_before_it_was_ready_gives_its_last_words(tmp_path: Path) -> None:
    keeper = keeper_of("import sys; sys.exit('part: the port is taken')", tmp_path, [])
    await keeper.start()
    with pytest.raises(StartFailedError, match=r"part did not start \(ended with code 1\): the port is taken"):
        await keeper.keep(lambda: None)


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    part = Part("ioc", ("/no/such/program",), True, 0, has_heartbeat=False)
    with pytest.raises(StartFailedError, match="ioc: '/no/such/program' cannot be run"):
        await Keeper(part, {}, tmp_path, print).start()


async def test_what_no_point_waits_for_goes_after_other_sessions(tmp_path: Path) -> None:
    part = Part("part", (sys.executable, "-c", "import time; time.sleep(60)"), False, 0, False, niceness=10)
    keeper = Keeper(part, dict(os.environ), tmp_path, print)
    await keeper.start()
    assert keeper.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, keeper.pid) == os.getpriority(os.PRIO_PROCESS, 0), "it starts like any other"
    keeper.step_back()
    assert os.getpriority(os.PRIO_PROCESS, keeper.pid) == 10
    autogroup = Path(f"/proc/{keeper.pid}/autogroup")
    if autogroup.exists():  # noqa: ASYNC240  # /proc does not block; else niceness counts between sessions, too
        assert autogroup.read_text().split()[-1] == "10"  # noqa: ASYNC240
    await keeper.stop(hurry=asyncio.Event())


async def test_what_ignores_the_stop_is_killed_after_its_grace_time(tmp_path: Path) -> None:
    said: list[str] = []
    keeper = keeper_of(STUBBORN, tmp_path, said, grace=0.2)
    await keeper.start()
    keeper.is_ready = True
    task = asyncio.create_task(keeper.keep(lambda: None))
    await until(lambda: keeper.output.read_text())
    await keeper.stop(hurry=asyncio.Event())
    await task
    assert said == ["part did not stop: killed"]
    assert keeper.pid is None


async def test_the_children_of_a_process_end_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    keeper = keeper_of(code, tmp_path, [])
    await keeper.start()
    keeper.is_ready = True
    task = asyncio.create_task(keeper.keep(lambda: None))
    await until(lambda: keeper.output.read_text().endswith("\n"))
    child = identify(int(keeper.output.read_text()))
    assert child.is_alive
    await keeper.stop(hurry=asyncio.Event())
    await task
    await until(lambda: not child.is_alive)
