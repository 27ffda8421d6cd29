"""Every command is in the log with who asked it and what became of it; looking is not, and no secret is."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from ophyd.utils import LimitError

from bec_bluesky.bus import Bus, Caller
from bec_bluesky.channels import ALARMS, COMMANDS
from bec_bluesky.client import keeping_notes
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import Command, LockAll, Unlock
from bec_bluesky.messages.queue import AddItem, AddItems, ControlRun, GetStatus, Request
from bec_bluesky.people import CommandFile
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._command_log import CommandLog, commands_of
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import SCRIPTED, Client, serving, until


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ScanServer]:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)) as server:
        yield server


async def logged(settings: Settings, count: int) -> list[Command]:
    """Give so many commands, oldest first, once they are there."""
    found: list[Command] = []

    async def are_there() -> bool:
        found[:] = reversed(list(CommandFile(settings.data_dir, settings.beamline).newest()))
        return len(found) >= count

    await until(are_there)
    assert len(found) == count
    return found


async def test_commands_are_logged_with_who_asked_and_what_became_of_them(
    settings: Settings, server: ScanServer, client: Client
) -> None:
    accepted = await client.ask(AddItem(plan="brief", title="one"), user="ann", host="b1-ctl", program="notebook")
    await client.ask(GetStatus(), user="ann")
    with pytest.raises(RefusedError):
        await client.ask(AddItem(plan="nosuch"), user="bob", user_group="primary")
    with pytest.raises(RefusedError):
        await client.ask(ControlRun(action="abort", reason="smoke"), user="eve")
    batch = await client.ask(AddItems(items=[AddItem(plan="brief"), AddItem(plan="brief")]), user="ann")
    one, refused, abort, two = await logged(settings, 4)
    assert (one.verb, one.user, one.host, one.program, one.outcome) == ("add_item", "ann", "b1-ctl", "notebook", "done")
    assert one.items == [accepted.item.item_id]
    assert (one.asked["plan"], one.asked["title"]) == ("brief", "one")
    assert (refused.user, refused.user_group, refused.outcome, refused.code) == (
        "bob",
        "primary",
        "refused",
        "unknown_plan",
    )
    assert "nosuch" in refused.answer
    assert (abort.verb, abort.asked["reason"], abort.code) == ("control_run abort", "smoke", "nothing_runs")
    assert two.items == [item.item_id for item in batch.items]
    assert abs(one.time - datetime.datetime.now().timestamp()) < 100


async def test_what_devices_were_told_past_the_queue_is_logged_by_who_told_them(
    settings: Settings, server: ScanServer, bus: Bus
) -> None:
    async with Caller(bus, user="ann", program="notebook") as caller, keeping_notes(caller) as notes:
        with notes.sending("samx", "set", [3.0], {"wait": True}):
            pass
        with notes.sending("samx", "read"):
            pass
        with pytest.raises(LimitError), notes.sending("samy", "set", [1e9], user="bob", user_group="primary"):
            raise LimitError("samy: 1e+09 is outside its limits")
        with notes.sending("slits", "put", [np.zeros((100, 100))]):
            pass
        with notes.sending("samx", "stop"):
            pass
    sent, tried, failed, large, stop = await logged(settings, 5)
    assert (sent.verb, sent.user, sent.program, sent.outcome) == ("device set", "ann", "notebook", "sent")
    assert sent.asked == {"device": "samx", "args": [3.0], "kwargs": {"wait": True}}
    assert (tried.user, tried.outcome) == ("bob", "sent")
    assert (failed.verb, failed.user, failed.user_group, failed.outcome) == ("device set", "bob", "primary", "failed")
    assert "outside its limits" in failed.answer
    assert large.asked["args"] == ["float64 array (100, 100)"]
    assert stop.verb == "device stop"


async def test_the_key_of_a_lock_is_not_in_the_log(settings: Settings, server: ScanServer, client: Client) -> None:
    await client.ask(LockAll(key="sesame", queue=True, note="alignment"), user="ann")
    with pytest.raises(RefusedError):
        await client.ask(Unlock(key="sesamo"))
    await client.ask(Unlock(key="sesame"))
    lock, *_ = await logged(settings, 3)
    assert lock.asked["note"] == "alignment"
    (file,) = settings.data_dir.glob("commands-*.jsonl")
    assert b"sesam" not in file.read_bytes()


async def test_commands_wait_in_memory_for_a_disk_that_refuses_them(
    settings: Settings, server: ScanServer, client: Client, bus: Bus
) -> None:
    year = datetime.date.today().year
    in_the_way = settings.data_dir / f"commands-{settings.beamline}-{year}.jsonl"
    in_the_way.mkdir(parents=True)
    for title in ("one", "two"):
        await client.ask(AddItem(plan="brief", title=title))

    async def alarmed() -> bool:
        return any("command log cannot be written" in alarm.text for _, alarm in await bus.newest(ALARMS, 20))

    await until(alarmed)
    in_the_way.rmdir()
    assert [command.asked["title"] for command in await logged(settings, 2)] == ["one", "two"]


async def test_the_last_commands_before_an_orderly_end_are_written(settings: Settings, client: Client) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):
        for number in range(50):
            await client.ask(AddItem(plan="brief", title=str(number)))
    assert len(await logged(settings, 50)) == 50


async def test_writes_at_the_same_moment_write_each_command_once(settings: Settings, bus: Bus) -> None:
    async def alarm(text: str) -> None:
        raise AssertionError(text)

    file = CommandFile(settings.data_dir, settings.beamline)
    log = CommandLog(bus, file, alarm)
    for number in range(20):
        body = AddItem(plan="count", title=str(number))
        log.note(Request(request_id=str(number), reply_to="c", deadline=0.0, user="ann", body=body), None, None)
    assert await asyncio.gather(*(log.write() for _ in range(5))) == [True] * 5
    assert [each.asked["title"] for each in file.newest()] == [str(number) for number in reversed(range(20))]
    assert [command for _, command in await bus.newest(COMMANDS, 100)] == list(file.newest())


def test_what_is_endless_is_cut_and_what_json_has_not_is_written_as_python_does(tmp_path: Path) -> None:
    def asking(**kwargs: object) -> Request:
        body = AddItem(plan="count", kwargs=kwargs)
        return Request(request_id="1", reply_to="c", deadline=0.0, user="ann", body=body)

    (long,) = commands_of(1.0, asking(text="x" * 10**6), None, None)
    assert long.verb == "add_item"
    assert len(long.asked["cut"]) < 20_000
    (odd,) = commands_of(1.0, asking(nothing=float("nan"), path=tmp_path, number=1 + 2j), None, None)
    assert odd.asked["kwargs"]["number"] == "(1+2j)"
    CommandFile(tmp_path, "b1").append([long, odd])
    assert len(list(CommandFile(tmp_path, "b1").newest())) == 2
