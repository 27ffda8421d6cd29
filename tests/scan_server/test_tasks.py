"""Scripts and functions in a scan server with its real workers and task processes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bec_bluesky.channels import CONSOLE
from bec_bluesky.cli import main
from bec_bluesky.client import Client
from bec_bluesky.errors import NoReplyError, RefusedError, TaskFailedError
from bec_bluesky.messages.around_queue import (
    EndTask,
    GetTasks,
    RunFunction,
    RunScript,
    SetEnvironment,
    Task,
)
from bec_bluesky.messages.common import ConsoleText
from bec_bluesky.messages.queue import AddItem, QueueItem
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import make_profile
from tests.torture.live_scan_server import LiveScanServer, live_scan_server

STARTUP = """
import time
import bluesky.plan_stubs as bps

calls = []

def double(x):
    return 2 * x

def remember(x):
    calls.append(x)
    return list(calls)

def process():
    import os
    return os.getpid()

def touch_and_wait(path):
    open(path, "w").close()
    time.sleep(600)

def talkative(num: int = 3):
    import ctypes
    for number in range(num):
        print("point", number)
        yield from bps.null()
    if RE.state == "running":  # a check that nothing moves cannot silence C
        ctypes.CDLL(None).puts(b"said by C")
"""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Processes come and go in these tests; the end of the module's scan server ends them all."""


@pytest.fixture(scope="module")
def of_tasks(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("tasks")
    profile = make_profile(directory / "profile", STARTUP)
    return redis_settings.with_(beamline="tasks", data_dir=directory / "data", profile=profile)


@pytest.fixture(scope="module")
def live(of_tasks: Settings) -> Iterator[LiveScanServer]:
    with live_scan_server(of_tasks, has_spare=False) as live:
        yield live


def task(live: LiveScanServer, task_id: str) -> Task:
    return live.ask(GetTasks(task_ids=[task_id])).tasks[0]


def ended(live: LiveScanServer, begun: Task) -> Task:
    live.until(lambda: task(live, begun.task_id).state != "running")
    return task(live, begun.task_id)


def script(live: LiveScanServer, text: str, title: str = "") -> Task:
    return ended(live, live.ask(RunScript(script=text, title=title)))


def function(live: LiveScanServer, name: str, *args: Any, **kwargs: Any) -> Task:
    return ended(live, live.ask(RunFunction(name=name, args=list(args), kwargs=kwargs)))


def texts(live: LiveScanServer) -> list[ConsoleText]:
    return [message for _, message in live.call(live.server.bus.read(CONSOLE, count=100_000))]


def console(live: LiveScanServer, source: str) -> list[str]:
    """Give the lines that a source has printed so far."""
    return "".join(message.text for message in texts(live) if message.source == source).splitlines()


def run(live: LiveScanServer, plan: str, **kwargs: Any) -> QueueItem:
    item = live.ask(AddItem(plan=plan, kwargs=kwargs, start=True)).item
    live.until(lambda: any(each.item_id == item.item_id for each in live.ended(5)))
    return next(each for each in live.ended(5) if each.item_id == item.item_id)


def offers(live: LiveScanServer, plan: str) -> bool:
    return plan in live.server.plans


# ── functions ──


def test_a_function_gives_its_value_and_what_modules_remember_lasts(live: LiveScanServer) -> None:
    done = function(live, "double", x=21)
    assert (done.state, done.value, done.kind, done.title) == ("completed", 42, "function", "double")
    assert done.time_stop >= done.time_start > 0
    array = function(live, "double", np.arange(3))
    np.testing.assert_array_equal(array.value, [0, 2, 4])
    assert [function(live, "remember", each).value for each in "ab"] == [["a"], ["a", "b"]]


def test_a_function_that_fails_or_is_none_is_told_in_one_sentence(live: LiveScanServer) -> None:
    broken = function(live, "double")
    assert broken.state == "failed" and broken.reason.startswith("TypeError: double() missing")
    assert "Traceback" in broken.traceback
    assert "did you mean 'double'?" in function(live, "doubel").reason
    assert "is a plan, no function" in function(live, "talkative").reason
    assert function(live, "_hidden").reason.startswith("No function '_hidden'")
    with pytest.raises(RefusedError, match="is no name of a function"):
        live.ask(RunFunction(name="os.system"))


def test_a_value_that_cannot_cross_fails_nothing(live: LiveScanServer) -> None:
    assert script(live, "def odd():\n    return object()\n").state == "completed"
    done = function(live, "odd")
    assert done.state == "completed" and done.value.startswith("<object object at ")
    assert "of object, is given as text" in done.note


def test_a_group_may_call_only_what_its_rules_allow(live: LiveScanServer) -> None:
    asked = live.caller.ask(RunFunction(name="__import__"), user_group="primary")
    with pytest.raises(RefusedError, match="not allowed") as refused:
        live.call(asked)
    assert refused.value.code == "not_permitted"


# ── scripts ──


def test_what_a_script_prints_comes_in_order_whole_and_in_its_name(live: LiveScanServer) -> None:
    text = """
import os, sys
for number in range(50):
    print("line", number)
os.system("echo a child")
os.write(1, b"written to the descriptor\\n")
print("an end without newline", end="")
"""
    done = script(live, text)
    wanted = [*(f"line {n}" for n in range(50)), "a child", "written to the descriptor", "an end without newline"]
    assert done.state == "completed", done.reason
    assert done.output.splitlines() == wanted
    live.until(lambda: len(console(live, done.task_id)) >= len(wanted))
    assert console(live, done.task_id) == wanted


@pytest.mark.slow
def test_two_thousand_lines_in_two_seconds_all_come(live: LiveScanServer) -> None:
    text = "import time\nfor n in range(2000):\n    print('line', n)\n    time.sleep(0.001)\n"
    done = script(live, text)
    live.until(lambda: len(console(live, done.task_id)) >= 2000)
    assert console(live, done.task_id) == [f"line {n}" for n in range(2000)]


def test_a_script_that_fails_says_where_and_leaves_nothing(live: LiveScanServer) -> None:
    done = script(live, "def half():\n    yield\n\nfull = 1\nraise ValueError('no sample')\n", "half.py")
    assert done.state == "failed"
    assert done.reason == "ValueError: no sample (<module> in half.py, line 5)"
    assert "raise ValueError('no sample')" in done.traceback
    assert not offers(live, "half")
    assert "no name" not in script(live, "def nothing(: pass").reason
    assert script(live, "full").reason.startswith("NameError")


def test_a_script_that_exits_is_not_its_process(live: LiveScanServer) -> None:
    pid = function(live, "process").value
    assert script(live, "import sys; sys.exit(3)").reason == "it exited with 3"
    assert script(live, "import sys; sys.exit()").state == "completed"
    assert function(live, "process").value == pid


@pytest.mark.slow
@pytest.mark.parametrize("text", ["import sys; sys.stdout.close()", "import os; os.close(1)"])
def test_a_script_that_closes_its_output_does_not_spoil_that_of_the_next(live: LiveScanServer, text: str) -> None:
    assert script(live, text).state == "completed"
    assert script(live, "print('here')").output == "here\n"
    assert script(live, "import io, sys; sys.stdout = io.StringIO()").state == "completed"
    assert script(live, "print('there')").output == "there\n"


def test_a_script_cannot_run_plans_itself(live: LiveScanServer) -> None:
    assert "add them to the queue" in script(live, "RE(talkative())").reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import ctypes; print('now', flush=True); ctypes.string_at(0)", "SIGSEGV"),
        pytest.param("import os; os._exit(7)", "exited with code 7", marks=pytest.mark.slow),
    ],
)
def test_a_script_that_takes_its_process_along_harms_nothing_else(live: LiveScanServer, text: str, reason: str) -> None:
    workers = live.server.pool.pids
    done = script(live, text)
    assert done.state == "failed" and reason in done.reason, done.reason
    assert function(live, "double", 4).value == 8
    assert live.server.pool.pids == workers
    assert run(live, "talkative").result.exit_status == "completed"


@pytest.mark.slow
def test_killing_the_process_from_outside_fails_its_task_only(live: LiveScanServer, tmp_path: Path) -> None:
    pid = function(live, "process").value
    flag = tmp_path / "begun"
    begun = live.ask(RunFunction(name="touch_and_wait", args=[str(flag)]))
    live.until(flag.exists)
    os.kill(pid, signal.SIGKILL)
    assert "killed by signal 9" in ended(live, begun).reason
    assert function(live, "process").value != pid


# ── ends ──


def test_a_task_that_is_ended_cleans_up_and_its_process_goes(live: LiveScanServer, tmp_path: Path) -> None:
    flag = tmp_path / "begun"
    pid = function(live, "process").value
    text = f"try:\n    touch_and_wait({str(flag)!r})\nfinally:\n    print('cleaned up')\n"
    begun = live.ask(RunScript(script=text))
    live.until(flag.exists)
    live.ask(EndTask(task_id=begun.task_id))
    done = task(live, begun.task_id)
    assert done.state == "failed" and done.reason.startswith("ended by ")
    assert "cleaned up" in done.output
    assert function(live, "process").value != pid
    live.ask(EndTask(task_id=begun.task_id))  # it has ended: nothing happens
    with pytest.raises(RefusedError) as refused:
        live.ask(EndTask(task_id="no such task"))
    assert refused.value.code == "unknown_task"


@pytest.mark.slow
def test_a_loop_that_will_not_be_interrupted_is_killed(live: LiveScanServer, tmp_path: Path) -> None:
    flag = tmp_path / "begun"
    text = f"""
open({str(flag)!r}, "w").close()
while True:
    try:
        while True:
            pass
    except KeyboardInterrupt:
        pass
"""
    begun = live.ask(RunScript(script=text))
    live.until(flag.exists)
    live.ask(EndTask(task_id=begun.task_id))
    assert task(live, begun.task_id).reason.startswith("ended by ")
    assert function(live, "double", 1).value == 2


@pytest.mark.slow
def test_tasks_run_side_by_side_and_those_that_wait_can_be_ended(live: LiveScanServer, tmp_path: Path) -> None:
    flags = [tmp_path / str(number) for number in range(4)]
    begun = [live.ask(RunFunction(name="touch_and_wait", args=[str(flag)])) for flag in flags]
    live.until(lambda: all(flag.exists() for flag in flags))
    assert live.status().tasks == 4
    fifth = live.ask(RunFunction(name="double", args=[1]))
    live.ask(EndTask(task_id=fifth.task_id))
    assert "before it began" in task(live, fifth.task_id).reason
    sixth = live.ask(RunFunction(name="double", args=[3]))
    for each in begun:
        live.ask(EndTask(task_id=each.task_id))
    assert ended(live, sixth).value == 6
    assert live.status().tasks == 0


# ── what scripts define ──

DUNE = """
import bluesky.plan_stubs as bps

print("not again")
heights = []
heights.append({height})

def dune(num: int = 1):
    "Look at a dune."
    print("the dune is", heights[-1])
    yield from bps.null()
"""


def test_a_plan_that_a_script_defines_is_run_until_the_environment_is_closed(live: LiveScanServer) -> None:
    assert not offers(live, "dune")
    assert script(live, DUNE.format(height=7)).state == "completed"
    assert offers(live, "dune")
    assert live.server.plans["dune"].summary == "Look at a dune."
    assert run(live, "dune").result.exit_status == "completed"
    live.until(lambda: "the dune is 7" in console(live, "worker"))
    assert script(live, DUNE.format(height=8)).state == "completed"
    before = set(live.server.pool.pids)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    live.until(lambda: live.server.pool.ready == 1 and not before.intersection(live.server.pool.pids))
    assert run(live, "dune").result.exit_status == "completed"
    live.until(lambda: "the dune is 8" in console(live, "worker"))
    assert "not again" not in console(live, "worker")
    live.ask(SetEnvironment(action="open"))
    live.until(lambda: live.status().environment == "open")
    live.ask(SetEnvironment(action="close"))
    live.until(lambda: live.status().environment == "closed" and live.server.pool.ready == 1)
    assert not offers(live, "dune")
    assert script(live, "dune").reason.startswith("NameError")


@pytest.mark.slow
def test_an_item_that_comes_while_workers_take_up_a_script_runs_then(live: LiveScanServer, tmp_path: Path) -> None:
    flag, go = tmp_path / "seen", tmp_path / "go"
    text = f"""
import os, time
def cove():
    yield
def wait():
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
seen = open({str(flag)!r}, "a").write("x")
waited = seen if open({str(flag)!r}).read() == "x" else wait()  # workers wait
"""
    begun = live.ask(RunScript(script=text))
    live.until(lambda: flag.exists() and flag.read_text() == "xx")
    item = live.ask(AddItem(plan="talkative", start=True)).item
    assert live.status().running is None
    go.touch()
    live.until(lambda: [each.item_id for each in live.ended()] == [item.item_id])
    assert ended(live, begun).state == "completed"


@pytest.mark.slow
def test_what_a_script_defines_that_ran_while_the_environment_was_closed_is_not_kept(
    live: LiveScanServer, tmp_path: Path
) -> None:
    flag, go = tmp_path / "begun", tmp_path / "go"
    text = f"""
import os, time
def reef():
    yield
open({str(flag)!r}, "w").close()
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
"""
    begun = live.ask(RunScript(script=text))
    live.until(flag.exists)
    live.ask(SetEnvironment(action="close"))
    live.until(lambda: live.status().environment == "closed" and live.server.pool.ready == 1)
    go.touch()
    assert "the environment was closed" in ended(live, begun).reason
    assert not offers(live, "reef")


def test_a_script_that_workers_cannot_take_up_is_not_kept(live: LiveScanServer) -> None:
    only_here = "import sys\n\ndef marsh():\n    yield\n\nif 'main' in __name__:\n    here = 1\nthere = here\n"
    done = script(live, only_here, "marsh.py")
    assert done.state == "failed"
    assert "what it defines is not kept" in done.reason and "marsh.py, line 8" in done.reason
    loop = "def marsh():\n    yield from names\n\nfor names in 'ab':\n    print(names)\n"
    refused = script(live, loop)
    assert "needs names, and the block of line 4" in refused.reason and refused.output == ""
    assert not offers(live, "marsh")


def test_lines_of_plans_and_of_c_are_on_the_console(live: LiveScanServer) -> None:
    before = len(console(live, "worker"))
    item = run(live, "talkative", num=2)
    live.until(lambda: "said by C" in console(live, "worker")[before:])
    assert all(text.item_id == item.item_id for text in texts(live)[-1:])
    new = [line for line in console(live, "worker")[before:] if line.startswith(("point", "said"))]
    assert new == ["point 0", "point 1", "said by C"]


# ── from a client, and from the command line ──


def test_a_session_sees_what_is_printed_and_gets_the_value(
    live: LiveScanServer, of_tasks: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tides.py"
    file.write_text("print('high')\ndef tide(x): print('low', x); return [x]\n")
    with Client(of_tasks) as bl:
        bl.run_script(file)
        assert capsys.readouterr().out == "high\n"
        assert [each.title for each in bl.tasks.kept.scripts][-1] == "tides.py"
        assert bl.run_function("tide", 3) == [3]
        assert capsys.readouterr().out == "low 3\n"
        begun = bl.tasks.function("double", 4)
        assert begun.wait(30).value == begun.value == 8
        with pytest.raises(TaskFailedError, match="failed: ValueError: no moon") as failed:
            bl.run_script("raise ValueError('no moon')\n")
        assert isinstance(failed.value.task, Task) and "Traceback" in failed.value.task.traceback
        with pytest.raises(RefusedError, match="cannot be read"):
            bl.run_script("missing.py")
        assert bl.console(2).splitlines() == ["high", "low 3"]
        assert bl.console(source=begun.task_id) == ""
        long = bl.tasks.function("touch_and_wait", str(tmp_path / "begun"))
        with pytest.raises(NoReplyError, match="it goes on"):
            long.wait(0.1)
        long.end()
        assert bl.tasks[long.task_id[:10]].state == "failed"
        assert "tide" in repr(bl.tasks)


def test_commands_run_scripts_and_show_tasks_and_the_console(
    live: LiveScanServer, of_tasks: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        system = ("--data", str(of_tasks.data_dir), "--beamline", of_tasks.beamline, "--redis", of_tasks.redis_url)
        code = main([*map(str, system), *words])
        return code, *capsys.readouterr()

    file = tmp_path / "shells.py"
    file.write_text("print('a shell')\ndef shells(n, *, kind): return {kind: n}\n")
    assert call("script", "run", str(file)) == (0, "a shell\n", "")
    assert call("script", "call", "shells", "3", "kind=cockle") == (0, "{'cockle': 3}\n", "")
    code, out, _ = call("script", "call", "--detach", "shells")
    task_id = out.strip()
    live.until(lambda: task(live, task_id).state == "failed")
    code, out, _ = call("script", "show", task_id)
    assert code == 0 and "TypeError: shells() missing" in out and "Traceback" in out
    code, _, err = call("script", "call", "shells")
    assert code == 1 and "script show" in err
    code, out, _ = call("script", "list", "-n", "3")
    assert code == 0 and "shells" in out and "whose" not in out and "shells.py" in out
    assert call("script", "end", task_id) == (0, "", "")
    assert call("console", "-n", "1") == (0, "a shell\n", "")
    assert call("script", "end", "nonsense")[0] == 1


@pytest.mark.slow
def test_tasks_and_what_scripts_define_outlive_the_scan_server(
    redis_settings: Settings, of_tasks: Settings, tmp_path: Path
) -> None:
    settings = of_tasks.with_(beamline="tasks-again", data_dir=tmp_path)
    flag = tmp_path / "begun"
    with live_scan_server(settings) as first:
        kept = script(first, DUNE.format(height=9))
        running = first.ask(RunFunction(name="touch_and_wait", args=[str(flag)]))
        first.until(flag.exists)
    begin = time.time()
    with live_scan_server(settings) as second:
        assert task(second, kept.task_id).output == "not again\n"
        assert task(second, running.task_id).reason == "the scan server was stopped"
        assert task(second, running.task_id).time_stop < begin
        assert run(second, "dune").result.exit_status == "completed"
