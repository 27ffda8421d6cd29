"""A whole system from the command line: real processes, a real Redis, simulated devices."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bec_bluesky import connect
from bec_bluesky.cli._lock import read_record
from bec_bluesky.cli._processes import identify
from bec_bluesky.errors import DeviceHeld, PlanFailedError, RefusedError, UnknownItemError
from bec_bluesky.messages.products import Point
from bec_bluesky.messages.queue import ScanServerStatus
from bec_bluesky.settings import load
from tests.live_system import System, make_system, until
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the tests that leave it as it is."""
    system = make_system(tmp_path_factory.mktemp("cli"))
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield system
    finally:
        system.call("down")


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process says up to a line with these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was never said: {said}")


def test_a_second_up_says_that_the_system_is_up_already(system: System) -> None:
    record = read_record(load(data_dir=system.data))
    assert record is not None
    for arguments in (["up"], ["up", "--detach"]):
        again = system.call(*arguments)
        assert again.returncode == 1
        assert "already up" in again.stderr
        assert f"pid {record.supervisor.pid}" in again.stderr
        assert again.stderr.count("\n") == 1
    assert record.supervisor.is_alive


def test_status_lists_every_service_for_people_and_for_programs(system: System) -> None:
    facts = system.status()
    assert facts["missing"] == []
    assert {"api", "device_server", "documents-live", "scan_server", "scihub"} <= facts["services"].keys()
    text = system.call("status")
    assert text.returncode == 0
    assert "documents-live" in text.stdout
    assert f"supervisor pid {facts['supervisor']}" in text.stdout


def test_run_shows_the_points_and_the_centre_and_ends_with_0(system: System) -> None:
    done = system.call("run", "scan", "[det]", "motor", "-4", "6", "num=21")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    numbers = [row[0] for row in rows if row and row[0].isdigit()]
    assert numbers == [str(number) for number in range(1, 22)]
    assert "center 1" in done.stdout
    assert "scan completed" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["grdi", "[det]"], "'grdi'"),
        (["count", "[dett]"], "'dett'"),
        (["count", "[det]", "numm=3"], "numm"),
        (["count", "[det]", "num=many"], "many"),
        (["scan", "[det]", "motor", "-5", "50", "num=3"], "limits are -10 to 10"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_nothing_is_queued(
    system: System, arguments: list[str], named: str
) -> None:
    before = system.status()["scan_server"]
    refused = system.call("run", *arguments)
    assert refused.returncode == 1
    assert named in refused.stderr
    assert refused.stderr.startswith("bec-bluesky: ")
    assert refused.stderr.count("\n") == 1
    after = system.status()["scan_server"]
    assert (after["waiting"], after["history"]) == (before["waiting"], before["history"])


def test_the_queue_is_filled_listed_and_cleared_without_starting(system: System) -> None:
    first = system.call("queue", "add", "count", "[det]", "num=2").stdout.strip()
    second = system.call("queue", "add", "--front", "count", "[det]", "num=3").stdout.strip()
    listed = system.call("queue", "list").stdout
    assert listed.index(second[:8]) < listed.index(first[:8])
    assert system.call("queue", "rm", first[:8]).returncode == 0
    assert first[:8] not in system.call("queue", "list").stdout
    assert system.call("queue", "clear").returncode == 0
    assert "nothing waits" in system.call("queue", "list").stdout
    nothing = system.call("queue", "abort")
    assert nothing.returncode == 1
    assert nothing.stderr.count("\n") == 1
    log = system.call("log", "-n", "5").stdout
    assert re.search(r"bec.bluesky on \S+ +control_run abort +refused: Nothing runs", " ".join(log.split()))
    assert log.index(first[:8]) < log.index("clear_queue")
    refused = system.call("log", "--refused", "--verb", "abort", "--json").stdout.splitlines()
    assert json.loads(refused[-1])["code"] == "nothing_runs"


def test_items_are_edited_moved_held_and_put_before_others_by_people(system: System) -> None:
    first = system.call("queue", "add", "count", "[det]", "num=2").stdout.strip()
    second = system.call("queue", "add", "--before", first[:8], "--sample", "CuO", "count", "[det]").stdout.strip()
    assert system.call("queue", "mv", first[:8], "0").returncode == 0
    edited = system.call("queue", "edit", second[:8], "num=7")
    assert edited.stdout.strip() == "count(['det'], num=7)", edited.stderr
    assert system.call("queue", "hold", first[:8], "--reason", "no sample yet").returncode == 0
    listed = system.call("queue", "list").stdout
    assert listed.index(first[:8]) < listed.index(second[:8])
    assert "no sample yet" in listed
    refused = system.call("queue", "start")
    assert refused.returncode == 1
    assert "no sample yet" in refused.stderr
    wrong = system.call("queue", "edit", second[:8], "nmu=7")
    assert wrong.returncode == 1
    assert "did you mean 'num'" in wrong.stderr
    assert "num=7" in system.call("queue", "list").stdout, "a refused edit changes nothing"
    assert system.call("queue", "rm", first[:8], second[:8]).returncode == 0
    assert "loop: on" in system.call("queue", "mode", "--loop").stdout
    assert "loop: off" in system.call("queue", "mode", "--no-loop").stdout


def test_a_lock_keeps_others_out_and_tells_them_why(system: System) -> None:
    locked = system.call("lock", "aligning the mirror")
    assert locked.returncode == 0, locked.stderr
    name, key = locked.stdout.strip().removeprefix("export ").split("=")
    refused = system.call("queue", "add", "count", "[det]")
    assert refused.returncode == 1
    assert "aligning the mirror" in refused.stderr
    assert "queue and environment locked by" in system.call("lock", "--show").stdout
    system.extra[name] = key
    try:
        assert system.call("queue", "add", "count", "[det]").returncode == 0
        assert system.call("queue", "clear").returncode == 0
    finally:
        del system.extra[name]
    assert "Invalid lock key" in system.call("unlock", "--key", "guess").stderr
    assert system.call("unlock", "--key", key).returncode == 0
    with system.connect() as bl, bl.lock("a short look", environment=False), system.connect() as other:
        assert repr(other.lock).startswith("queue locked by ")
        with pytest.raises(RefusedError, match="a short look"):
            other.queue.add("count", ["det"])
        bl.queue.add("count", ["det"])
        bl.queue.clear()
    assert system.call("lock", "--show").stdout == "nothing is locked\n"


def test_several_are_added_together_or_none_and_an_item_is_repeated_with_changes(system: System) -> None:
    with system.connect() as bl:
        with pytest.raises(RefusedError, match=r"item 2 of 2: .*scna"):
            bl.queue.add_all([("count", [["det"]]), ("scna", [])])
        assert len(bl.queue) == 0
        one, two = bl.queue.add_all([("count", [["det"]], {"num": 2}), ("mv", ["motor", 1])])
        stop = bl.queue.stop_here(position=1)
        bl.queue.start()
        assert one.wait(PATIENCE).result.exit_status == "completed"
        until(lambda: bl.status.queue_state == "stopped", "the instruction did not stop the queue")
        assert [item.item_id for item in bl.queue.items] == [two.item_id]
        assert bl.queue.find(stop.item_id) is None
        two.cancel()
        again = one.again(num=3, start=True)
        assert len([event for event in again.follow() if isinstance(event, Point)]) == 3


def test_what_ended_is_found_and_run_again_with_changes(system: System) -> None:
    with system.connect() as bl:
        run = bl.queue.put("count", [["det"], 2], sample="LaB6", title="Reference of the day", start=True)
        done = run.wait(PATIENCE)
        assert done.result is not None
        (scan_id,) = done.result.scan_ids
        other = bl.queue("align").put("mv", ["motor", 0], title="Reference", start=True)
        other.wait(PATIENCE)
        assert [item.item_id for item in bl.history("reference")] == [other.item_id, run.item_id]
        assert [item.item_id for item in bl.history("REFERENCE day", plan="count", since="2020-01-01")] == [run.item_id]
        assert [item.item_id for item in bl.queue("align").history(10, "reference")] == [other.item_id]
        assert [item.item_id for item in bl.queue.history(10, "reference")] == [run.item_id]
        assert bl.history("reference")[1].item_id == run.item_id
        assert "count(['det'], 2)" in repr(bl.history(sample="LaB6"))
        assert repr(bl.history(user="nobody")) == "nothing like that has ended"
        for which in (scan_id, run.item_id[:8], done.result.run_uids[0][:8]):
            again = bl.rerun(which, num=3)
            assert (again.accepted.args, again.accepted.sample) == ([["det"], 3], "LaB6")
            assert again.accepted.repeats == run.item_id
            again.cancel()
        repeated = bl.again()
        assert (repeated.plan, repeated.queue) == ("mv", "align")
        repeated.cancel()
        with pytest.raises(UnknownItemError, match="'nothing'"):
            bl.rerun("nothing")
        with pytest.raises(RefusedError, match="did you mean 'num'"):
            bl.rerun(scan_id, nmu=3)
    found = system.call("history", "reference", "day", "--json").stdout.splitlines()
    assert [json.loads(line)["item_id"] for line in found] == [run.item_id]
    assert system.call("queue", "-q", "align", "history", "reference").stdout.count("mv(motor, 0)") == 1
    told = system.call("rerun", str(scan_id), "num=4", "--start")
    assert told.stdout.split("  ")[1] == "count(['det'], 4)\n", told.stderr
    wanted = told.stdout.split()[0]
    until(lambda: wanted[:8] in system.call("history", "--sample", "LaB6", "-n", "1").stdout, "it never ran")
    assert system.call("rerun", "zzz").returncode == 1
    assert "failed" in system.call("history", "--status", "complete").stderr


def test_a_file_of_plans_is_added_all_or_none_and_an_item_once_more_with_changes(system: System) -> None:
    plans = system.directory / "plans.txt"
    plans.write_text("# to warm up\ncount [det] num=2\n\nmv motor 1\n")
    ids = system.call("queue", "add-all", str(plans)).stdout.split()
    copy = system.call("queue", "again", ids[0][:8], "num=5").stdout.strip()
    listed = system.call("queue", "list").stdout
    assert "count(['det'], num=2)" in listed
    assert f"{copy[:8]}  count(['det'], num=5)" in listed
    plans.write_text("mv motor 2\nmv motor 99\n")
    refused = system.call("queue", "add-all", str(plans))
    assert refused.returncode == 1
    assert "item 2 of 2" in refused.stderr
    assert system.call("queue", "list").stdout == listed
    assert system.call("queue", "again", ids[0][:8], "nmu=5").returncode == 1
    executed = system.call("queue", "execute", "mv", "motor", "0").stdout.strip()
    until(lambda: executed[:8] in system.call("queue", "history", "-n", "1").stdout, "it never ran")
    assert system.call("queue", "list").stdout.count("count(") == 2, "what waits waits"
    system.call("queue", "clear")


def test_two_queues_work_side_by_side_from_the_command_line(system: System) -> None:
    main = system.start("run", "count", "[det]", "num=100", "delay=0.2")
    read_until(main, "     2  ")
    waits = system.call("queue", "--queue", "align", "wait", "--device", "motor", "--above", "-100", "--timeout", "5")
    assert waits.returncode == 0, waits.stderr
    moved = system.call("run", "--queue", "align", "mv", "motor", "1")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    blocked = system.start("run", "--queue", "align", "count", "[det]")
    assert "waits: det is held by count (item " in read_until(blocked, "waits: ")
    status = system.call("status").stdout
    assert "queue align running: 1 waiting" in status
    assert re.search(r"det is held by scan \d+, count \(item ", status)
    facts = system.status()
    assert facts["holders"]["det"]["text"].startswith("scan ")
    assert facts["queues"]["align"]["waits_for"].startswith("det is held by count")
    key = (system.data / "api.key").read_text().strip()
    told = httpx.get(f"{facts['services']['api']['facts']['url']}/api/v1/status", params={"api_key": key}).json()
    assert told["holders"]["det"]["item_id"] == told["scan_server"]["running"]["item_id"]
    assert told["queues"]["align"]["waits_for"] == facts["queues"]["align"]["waits_for"]
    blocked.send_signal(signal.SIGINT)
    assert blocked.stdin is not None
    blocked.stdin.write("cancel\n")
    blocked.stdin.flush()
    assert "was taken out of the queue" in blocked.communicate(timeout=PATIENCE)[0]
    assert main.poll() is None, "Ctrl-C is about one's own item"
    wrong = system.call("queue", "--queue", "algin", "list")
    assert (wrong.returncode, "did you mean 'align'" in wrong.stderr) == (1, True)
    assert system.call("queue", "abort").returncode == 0
    assert "count aborted" in main.communicate(timeout=PATIENCE)[0]


def test_an_item_runs_past_the_queue_and_autostart_runs_what_is_added(system: System) -> None:
    with system.connect() as bl:
        waiting = bl.queue.add("mv", "motor", 2)
        assert bl.queue.execute("mv", "motor", 3).wait(PATIENCE).result.exit_status == "completed"
        assert waiting.state == "waiting"
        bl.queue.mode(autostart=True)
        assert waiting.wait(PATIENCE).result.exit_status == "completed"
        failed = bl.queue.put("mv", ["motor", 4], goes_back=True, sample="CuO").wait(PATIENCE)
        assert failed.metadata == {"sample": "CuO"}
        bl.queue.mode(autostart=False)


def test_a_person_can_look_at_and_stop_what_a_scan_holds_but_not_move_it(system: System) -> None:
    with system.connect() as bl:
        item = bl.queue.add("scan", ["det"], "motor", 0, 1, num=400)
        bl.queue.start()
        next(event for event in item.follow() if isinstance(event, Point))
        with pytest.raises(DeviceHeld, match=r"motor is held by .*scan .*item"):
            bl.dev.motor.move(5)
        assert 0 <= bl.dev.motor.get() <= 1
        until(lambda: bl.dev.motor.holder, "nobody is said to hold it")
        key = (system.data / "api.key").read_text().strip()
        url = bl.services["api"].facts["url"]
        answer = httpx.post(f"{url}/api/v1/devices/motor/move", params={"api_key": key}, json={"value": 5})
        assert (answer.status_code, answer.json()["code"]) == (409, "device_held")
        bl.abort("a test")
        item.wait(PATIENCE)
        assert bl.dev.motor.move(5) == 5


def test_ctrl_c_pauses_and_the_answer_resumes_to_the_end(system: System) -> None:
    process = system.start("run", "count", "[det]", "num=8", "delay=0.3")
    before = read_until(process, "     2  ")
    process.send_signal(signal.SIGINT)
    before += read_until(process, "pausing")
    assert process.stdin is not None
    until(lambda: system.status()["scan_server"]["run_state"] == "paused", "it never paused")
    process.stdin.write("resume\n")
    process.stdin.flush()
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, rest
    assert "count completed" in rest
    assert "8 points" in rest, before + rest


def test_ctrl_c_twice_aborts_and_the_exit_code_is_1(system: System) -> None:
    process = system.start("run", "count", "[det]", "num=200", "delay=0.3")
    read_until(process, "     2  ")
    process.send_signal(signal.SIGINT)
    read_until(process, "pausing")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, rest
    assert "aborted" in rest


def test_a_person_runs_plans_looks_at_points_and_results(system: System) -> None:
    with system.connect() as bl:
        assert "scan" in dir(bl.run)
        assert {"det", "motor"} <= bl.devices.keys()
        item = bl.run.scan([bl.dev.det], bl.dev.motor, -4, 6, num=21)
        assert item.result.exit_status == "completed"
        (uid,) = item.result.run_uids
        points = list(bl.points(uid))
        assert [point.index for point in points] == list(range(1, 22))
        assert points[0].data["motor"] == pytest.approx(-4)
        (result,) = [result for result in bl.results(uid) if result.y == "det" and result.final]
        assert result.values["center"] == pytest.approx(1.0, abs=0.05)
        with pytest.raises(RefusedError, match="did you mean"):
            bl.queue.add("scna", ["det"])


def test_points_are_given_while_the_run_goes_on_and_it_can_be_stopped(system: System) -> None:
    with system.connect() as bl:
        item = bl.queue.put("count", [["det"]], {"num": 100, "delay": 0.2}, start=True)
        seen = 0
        for event in item.follow():
            if isinstance(event, Point):
                seen += 1
                if seen == 3:
                    bl.stop("enough")
        finished = item.message
        assert finished.result is not None
        assert finished.result.exit_status == "stopped"
        assert 3 <= seen < 20
        with pytest.raises(PlanFailedError, match="aborted"):
            _abort_when_running(bl)


def _abort_when_running(bl: Any) -> None:
    import threading

    def abort() -> None:
        with connect(bl.settings.beamline, data_dir=bl.settings.data_dir) as other:
            for status in other.statuses():
                assert isinstance(status, ScanServerStatus)
                if status.run_state == "running" and status.run_uid:
                    other.abort("test")
                    return

    thread = threading.Thread(target=abort)
    thread.start()
    try:
        bl.run.count(["det"], num=100, delay=0.2)
    finally:
        thread.join()


def test_a_service_that_is_killed_is_started_again(system: System) -> None:
    pid = system.status()["services"]["scihub"]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: system.status()["services"].get("scihub", {}).get("pid") not in (None, pid), "it never came back")
    until(lambda: system.status()["missing"] == [], "something is missing")


def test_a_service_is_restarted_by_its_name_but_none_that_a_plan_needs(system: System) -> None:
    pids = {name: beat["pid"] for name, beat in system.status()["services"].items()}
    with system.connect() as bl:
        item = bl.queue.put("count", [["det"]], {"num": 10_000, "delay": 0.2}, start=True)
        until(lambda: bl.status.run_uid is not None, "it never ran")
        refused = system.call("restart", "documents-live", "device_server")
        assert refused.returncode == 1
        assert "count runs in queue 'main', and may need device_server" in refused.stderr
        done = system.call("restart", "documents-live")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert done.stdout.startswith("documents-live runs again after ")
        bl.abort("enough")
        item.wait(PATIENCE)
        points = list(bl.points(item.result.run_uids[0]))
        assert [point.index for point in points] == list(range(1, len(points) + 1))
    now = {name: beat["pid"] for name, beat in system.status()["services"].items()}
    assert {name for name in pids if now[name] != pids[name]} == {"documents-live"}
    unknown = system.call("restart", "documents-life")
    assert unknown.returncode == 1
    assert "did you mean 'documents-live'" in unknown.stderr


def test_a_redis_that_is_killed_is_started_again_and_the_beamline_goes_on(system: System) -> None:
    facts = system.data / "redis" / "bus.json"
    pid = json.loads(facts.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: json.loads(facts.read_text())["pid"] != pid, "it never came back")
    until(lambda: system.status().get("missing") == [], "something is missing")
    done = system.call("run", "count", "[det]", "num=2")
    assert done.returncode == 0, done.stdout + done.stderr


def test_up_in_the_foreground_stops_everything_on_ctrl_c(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    process = system.start("up")
    read_until(process, "is up after")
    record = read_record(load(data_dir=system.data))
    assert record is not None
    services = {"scan_server", "device_server", "documents-live", "api", "queueserver", "scihub"}
    assert {"sleeper", *services} == record.processes.keys()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, rest
    assert rest.index("stopping scan_server") < rest.index("stopping device_server") < rest.index("stopping sleeper")
    assert "killed" not in rest
    assert not any(part.is_alive for part in record.processes.values())
    assert read_record(load(data_dir=system.data)) is None


def test_down_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    assert system.call("up", "--detach").returncode == 0
    record = read_record(load(data_dir=system.data))
    assert record is not None
    os.kill(record.supervisor.pid, signal.SIGKILL)
    until(lambda: not record.supervisor.is_alive, "it cannot be killed")
    assert record.remains
    refused = system.call("up")
    assert refused.returncode == 1
    assert "bec-bluesky down" in refused.stderr
    done = system.call("down")
    assert done.returncode == 0, done.stderr
    assert not record.remains
    assert "nothing runs" in system.call("down").stdout


def test_a_malformed_device_file_stops_up_with_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    (system.directory / "profile" / "devices.yaml").write_text("devices: [this is, no mapping")
    refused = system.call("up", "--detach")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "devices.yaml" in refused.stderr
    assert read_record(load(data_dir=system.data)) is None


def test_a_system_on_a_leash_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    system = make_system(tmp_path)
    code = (
        "import os, signal\n"
        "from bec_bluesky.cli._launch import Background\n"
        "from bec_bluesky.settings import load\n"
        "background = Background.launch(load(), print, leash=True)\n"
        "background.wait_for('essential')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=system.environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    until(lambda: read_record(load(data_dir=system.data)) is None, "it runs on")
    assert identify(os.getpid()).is_alive
