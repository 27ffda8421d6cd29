"""kill -9 of the workers in mid-run, in a whole system: nothing that was emitted is lost, and the queue goes on."""

import os
import signal
from pathlib import Path

import h5py

from bec_bluesky.messages.products import Point
from tests.live_system import NEXUS, System, make_system, until


def children_of(pid: int) -> list[int]:
    """Give the processes that a process started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_killed_worker_costs_its_run_only_and_the_file_has_every_point(tmp_path: Path) -> None:
    system = make_system(tmp_path, hosted=NEXUS)
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        kill_in_mid_run(system)
    finally:
        system.call("down")


def kill_workers(scan_server: int) -> None:
    """Kill the one that runs and the spare; the scan server is stopped meanwhile, or the next item is on the spare."""
    os.kill(scan_server, signal.SIGSTOP)
    try:
        for worker in children_of(scan_server):
            os.kill(worker, signal.SIGKILL)
    finally:
        os.kill(scan_server, signal.SIGCONT)


def kill_in_mid_run(system: System) -> None:
    scan_server = system.status()["services"]["scan_server"]["pid"]
    seen: list[Point] = []
    with system.connect() as bl:
        doomed = bl.queue.add("count", ["det"], num=200, delay=0.02)
        bl.queue.start()
        for event in doomed.follow():
            if isinstance(event, Point):
                seen.append(event)
                if len(seen) == 5:
                    kill_workers(scan_server)
        failed = doomed.result
        following = bl.queue.add("count", ["det"], num=3)  # not before: the spare worker is killed, too
        bl.queue.start()
        done = following.wait(60.0).result
    assert failed.exit_status == "failed"
    assert "killed by signal 9" in failed.reason
    assert (done.exit_status, done.reason) == ("completed", "")
    lost, good = files_of(system)
    with h5py.File(lost) as file:
        assert file["entry/run/exit_status"].asstr()[()] == "fail"
        assert 5 <= len(seen) < 200
        assert file["entry/streams/primary/seq_num"][:].tolist() == [point.index for point in seen]
        assert file["entry/streams/primary/det"][:].tolist() == [point.data["det"] for point in seen]
    with h5py.File(good) as file:
        assert len(file["entry/streams/primary/det"]) == 3


def files_of(system: System) -> list[Path]:
    """Give the files of both runs when they are there, oldest first."""

    def found() -> list[Path]:
        return sorted((system.data / "files").rglob("*.nxs"))

    until(lambda: len(found()) == 2, "the files did not come")
    return found()
