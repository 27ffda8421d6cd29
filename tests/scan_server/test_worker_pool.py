"""Workers die, freeze and hang, scan servers die and are replaced: the queue knows what became of each item.

A scripted peer stands in the worker's place; Redis and the manager are real.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DEVICES, EPOCH, INSTRUCTIONS, RUNS, SERVICES, document_stream
from bec_bluesky.errors import FencedError, RefusedError
from bec_bluesky.messages import encode, pack, unpack
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.messages.queue import (
    AddItem,
    ControlRun,
    ItemAccepted,
    ReleaseItem,
    RemoveItem,
    ScanServerStatus,
    StartQueue,
)
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server.worker import _append
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED, Client, process, serving, until


async def open_run(bus: Bus, item_id: str, uid: str) -> None:
    """Write what a worker writes when its plan opens a run."""
    token = int(await bus.get(EPOCH) or 0)
    opened = encode(RunOpened(run_uid=uid, scan_id=1, time=time.time(), item_id=item_id))
    arguments = _append.arguments(token, 0, opened, b"", [("start", pack({"uid": uid, "time": time.time()}))])
    assert (await bus.evaluate(_append.SCRIPT, _append.keys(bus.beamline, uid), arguments))[0] == _append.APPENDED


async def documents(bus: Bus, uid: str) -> list[tuple[str, dict[str, object]]]:
    entries = await bus.redis.xrange(document_stream(bus.beamline, uid))
    return [(fields[b"n"].decode(), unpack(fields[b"d"])) for _, fields in entries]


async def test_a_killed_worker_fails_its_item_closes_its_run_and_the_queue_goes_on(
    server: ScanServer, client: Client, bus: Bus
) -> None:
    await bus.put_fields(
        DEVICES, {"x": DeviceInfo(name="x", path="x", server="main", state="connected")}, server="main"
    )
    await server.devices.load(bus)
    heard: list[object] = []
    listening = asyncio.create_task(_listen(bus, heard))
    accepted: ItemAccepted = await client.ask(AddItem(plan="wait"))
    await client.ask(AddItem(plan="quick"))
    await client.ask(StartQueue())
    await client.until_status(scan_id=1)
    await open_run(bus, accepted.item.item_id, "lost-run")
    assert server.pool.running_pid is not None
    client_id = f"client-{server.pool.running_pid}"
    os.kill(server.pool.running_pid, signal.SIGKILL)
    after, lost = await client.until_ended(2)
    assert lost.result is not None
    assert after.result is not None
    assert (lost.item_id, lost.result.exit_status) == (accepted.item.item_id, "failed")
    assert "the worker process was killed by signal 9 (SIGKILL)" in lost.result.reason
    assert len(lost.result.run_uids) == 1
    assert after.result.exit_status == "completed"
    (name, stop) = (await documents(bus, "lost-run"))[-1]
    assert (name, stop["exit_status"]) == ("stop", "fail")
    assert "killed by signal 9" in str(stop["reason"])
    assert [message.run_uid for _, message in await bus.read(RUNS) if isinstance(message, RunClosed)] == ["lost-run"]
    await until(lambda: _true(bool(heard)))
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
    instruction = heard[0]
    assert [(op.device, op.verb, op.args) for op in instruction.ops] == [("", "client_lost", [client_id])]  # pyright: ignore[reportAttributeAccessIssue]


async def _true(value: bool) -> bool:
    return value


async def _listen(bus: Bus, heard: list[object]) -> None:
    async for message in bus.listen(INSTRUCTIONS, server="main"):
        heard.append(message)


async def test_the_spare_takes_over_at_once_and_checks_meanwhile(settings: Settings, client: Client) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED)) as server:
        await until(lambda: _true(len(server.pool.pids) == 2))
        await client.ask(AddItem(plan="wait", start=True))
        await client.until_status(scan_id=1)
        accepted: ItemAccepted = await client.ask(AddItem(plan="wait"))
        assert accepted.warnings == [], "the spare has checked it while the other one ran"
        with pytest.raises(RefusedError, match="beyond 10"):
            await client.ask(AddItem(plan="far"))
        first = server.pool.running_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: _true(server.pool.running_pid not in (None, first)))
        await client.until_status(history=1, run_state="running")
        await until(lambda: _true(len(server.pool.pids) == 2))
        await client.ask(ControlRun(action="stop"))
        await client.until_ended(2)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("die", "the worker process was killed by signal 9"),
        ("exits", "the worker process exited with code 3; it said last: the last thing it said"),
        ("freeze", "the worker process was ended: it did not answer for 2 s"),
        (
            "crash",
            "the worker process was killed by signal 11 (SIGSEGV); Segmentation fault (act in scripted_worker.py",
        ),
        ("leak", "the worker process was ended: it had "),
    ],
)
async def test_a_worker_that_is_gone_is_said_with_its_reason_and_replaced(
    settings: Settings, client: Client, bus: Bus, plan: str, reason: str
) -> None:
    server = ScanServer(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT)
    async with serving(server):
        await client.ask(AddItem(plan=plan))
        await client.ask(AddItem(plan="quick"))
        await client.ask(StartQueue())
        after, lost = await client.until_ended(2)
        assert lost.result is not None
        assert after.result is not None
        assert (lost.result.exit_status, after.result.exit_status) == ("failed", "completed")
        assert lost.result.reason.startswith(reason)
        assert any(alarm.text.startswith(reason) for _, alarm in await bus.read(ALARMS))


async def test_a_plan_that_ignores_a_halt_is_ended_with_its_worker(server: ScanServer, client: Client) -> None:
    await client.ask(AddItem(plan="deaf", start=True))
    await client.until_status(run_state="running")
    await client.ask(ControlRun(action="halt"))
    (done,) = await client.until_ended(1)
    assert done.result is not None
    assert done.result.exit_status == "failed"
    assert "did not end within 1 s of being halted" in done.result.reason


async def test_a_plan_whose_check_hangs_is_accepted_and_its_worker_replaced(server: ScanServer, client: Client) -> None:
    await client.until_status(run_state="idle")
    pids = server.pool.pids
    accepted: ItemAccepted = await client.ask(AddItem(plan="slow_check"), timeout=1.0)
    assert accepted.warnings
    assert server.pool.pids == pids, "a client's impatience ends no worker"
    await until(lambda: _true(server.pool.pids not in (pids, [])))
    assert (await client.ask(AddItem(plan="quick"), timeout=10.0)).item.plan == "quick"


async def test_an_ordered_stop_aborts_what_runs_and_keeps_what_waits(settings: Settings, client: Client) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        await client.ask(AddItem(plan="wait", title="first"))
        await client.ask(AddItem(plan="quick", title="second"))
        await client.ask(StartQueue())
        await client.until_status(run_state="running")
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        status = await client.status()
        assert (status.queue_state, status.waiting, status.history, status.running) == ("stopped", 1, 1, None)
        (done,) = await client.history()
        assert done.result is not None
        assert (done.title, done.result.exit_status) == ("first", "aborted")
        (waiting,) = (await client.queue()).waiting
        assert (waiting.title, waiting.state) == ("second", "waiting")


async def test_a_worker_that_is_just_being_started_ends_in_order_when_the_server_stops(settings: Settings) -> None:
    server = ScanServer(settings, worker_command=SCRIPTED, has_spare=False)
    async with serving(server):
        await until(lambda: _true(server.pool.is_alive))
    assert server.pool.last_words == "the worker process exited"


async def test_after_kill_9_of_the_scan_server_its_item_is_held_until_a_person_decides(
    settings: Settings, client: Client, bus: Bus
) -> None:
    async with process(settings) as first:
        running: ItemAccepted = await client.ask(AddItem(plan="wait"))
        await client.ask(AddItem(plan="quick"))
        await client.ask(StartQueue())
        await client.until_status(scan_id=1)
        await open_run(bus, running.item.item_id, "lost-run")
        first.kill()
        await first.wait()
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        status = await client.status()
        assert (status.queue_state, status.waiting, status.history, status.running) == ("stopped", 2, 0, None)
        held, _ = (await client.queue()).waiting
        assert (held.item_id, held.state) == (running.item.item_id, "held")
        assert held.held.startswith("the scan server ended while it was running")
        assert (await documents(bus, "lost-run"))[-1][0] == "stop"
        for asked in (StartQueue(), AddItem(plan="quick", start=True)):
            with pytest.raises(RefusedError, match=rf"Item {held.item_id} \(wait\) in front is held") as refused:
                await client.ask(asked)
            assert refused.value.code == "item_held"
        assert (await client.status()).waiting == 2
        assert (await client.ask(ReleaseItem(item_id=held.item_id))).state == "waiting"
        with pytest.raises(RefusedError, match="is not held"):
            await client.ask(ReleaseItem(item_id=held.item_id))
        await client.ask(RemoveItem(item_id=held.item_id))
        await client.ask(StartQueue())
        assert [item.plan for item in await client.until_ended(1)] == ["quick"]


async def test_a_second_scan_server_takes_over_and_the_first_stops_itself(settings: Settings, client: Client) -> None:
    first = ScanServer(settings, worker_command=SCRIPTED, has_spare=False)
    task = asyncio.create_task(first.run())
    await client.ask(AddItem(plan="wait", start=True))
    await client.until_status(scan_id=1)
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False, take_over="at_once")):
        with pytest.raises(ExceptionGroup) as ended:
            await task
        assert ended.group_contains(FencedError, match="another scan server took over the queue")
        held, *_ = (await client.queue()).waiting
        assert (held.plan, held.state) == ("wait", "held")


async def test_status_is_announced_at_every_change_and_starting_waits_for_no_worker(
    settings: Settings, client: Client, bus: Bus
) -> None:
    never = (sys.executable, "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[2])).recv(1)")
    async with serving(ScanServer(settings, worker_command=never, has_spare=False)):
        status: ScanServerStatus = await client.status()
        assert status.run_state in ("no_worker", "starting")
        await until(lambda: _is_running(bus))


async def _is_running(bus: Bus) -> bool:
    beat = await bus.get(SERVICES, service="scan_server")
    return beat is not None and beat.state == "running"


def test_the_manager_imports_neither_bluesky_nor_ophyd() -> None:
    import subprocess

    code = "import sys, bec_bluesky.scan_server; print(sorted({'bluesky', 'ophyd', 'ophyd_async'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_what_workers_print_is_kept_and_old_output_is_dropped(settings: Settings) -> None:
    from bec_bluesky.scan_server._worker_process import WorkerProcess

    directory = settings.log_dir / "workers"
    for number in range(40):
        made = WorkerProcess(settings, on_message=lambda *_: None, number=number)
        os.close(made._open_output())
    kept = sorted(Path(directory).glob("*.out"))
    assert len(kept) == 20
    assert kept[-1].name.endswith("-0039.out")
