"""One system a data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bec_bluesky.cli._lock import AlreadyUpError, SystemLock, read_record
from bec_bluesky.cli._processes import end, identify
from bec_bluesky.settings import load

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_second_system_is_told_who_has_the_directory(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, beamline="b1")
    with SystemLock(settings), pytest.raises(AlreadyUpError, match=rf"'b1' is already up .*pid {os.getpid()}.*down"):
        SystemLock(settings).__enter__()
    with SystemLock(settings):
        pass
    assert read_record(settings) is None


def test_remains_of_a_killed_system_are_named_and_refused(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    code = (
        "import os, signal, sys\n"
        "from bec_bluesky.cli._lock import SystemLock\n"
        "from bec_bluesky.cli._processes import identify\n"
        "from bec_bluesky.settings import load\n"
        "lock = SystemLock(load(data_dir=sys.argv[1])).__enter__()\n"
        "lock.write({'ioc': identify(int(sys.argv[2]))})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(process.pid)], check=False)
    with pytest.raises(AlreadyUpError, match=rf"ioc \(pid {process.pid}\).*bec-bluesky down"):
        SystemLock(settings).__enter__()
    record = read_record(settings)
    assert record is not None
    assert not record.is_up
    assert end(record.remains.values(), grace=5.0) == []
    process.wait()
    with SystemLock(settings):
        pass


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    identity = identify(process.pid)
    assert identity.is_alive
    assert not type(identity)(process.pid, "another birth").is_alive
    assert end([identity], grace=5.0) == []
    process.wait()
    assert not identity.is_alive
