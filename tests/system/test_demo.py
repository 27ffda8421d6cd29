"""The demo as a person runs it: a soft IOC, three scans through the whole chain, each read back in three ways."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bec_bluesky.cli._lock import read_record
from bec_bluesky.settings import load

COMMAND = [sys.executable, "-m", "bec_bluesky"]
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose home is empty; whatever a failed test leaves is taken down."""
    environment = os.environ | {"HOME": str(tmp_path / "home"), "TILED_PROFILES": str(tmp_path / "tiled")}
    environment = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
    yield environment
    down(tmp_path, environment)


def demo(directory: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "demo", "--data", str(directory / "data"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def down(directory: Path, environment: dict[str, str]) -> None:
    command = [*COMMAND, "down", "--data", str(directory / "data"), "--beamline", "demo"]
    subprocess.run(command, env=environment, capture_output=True, timeout=100, check=True)


def scans(text: str) -> list[tuple[int, str, int]]:
    """Give (scan number, plan, points) of each run in the summary."""
    found = re.findall(r"^scan (\d+): (\w+), (\d+) points$", text, re.MULTILINE)
    return [(int(number), plan, int(points)) for number, plan, points in found]


def test_the_demo_scans_a_soft_ioc_and_every_way_of_reading_gives_the_same(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = demo(tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All three ways give the same numbers" in done.stdout
    assert scans(done.stdout) == [(1, "scan", 16), (2, "grid_scan", 21), (3, "fly_scan", 20)]
    centre = re.search(r"ph_det against ph_mtr: .*fit: center (\S+), sigma (\S+),", done.stdout)
    assert centre is not None
    assert float(centre[1]) == pytest.approx(0.0, abs=1.0)
    assert float(centre[2]) == pytest.approx(5.0, abs=1.0)
    hump = re.findall(r"blob-sum against stage_x: center (\S+),", done.stdout)
    assert [float(position) for position in hump] == pytest.approx([1.6, 1.6], abs=0.3)
    for way in ("Tiled", "databroker", "h5py"):
        assert len(re.findall(rf"^  {way} +.* -c ", done.stdout, re.MULTILINE)) == 3
    assert float(re.findall(r"first live point (\S+) s", done.stdout)[0]) < 60.0  # 5 s on an idle laptop
    assert read_record(load(data_dir=tmp_path / "data")) is None


@pytest.mark.slow
def test_a_second_demo_goes_on_with_the_numbers_and_stays_up_when_asked(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert demo(tmp_path, environment).returncode == 0
    again = demo(tmp_path, environment, "--keep")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [number for number, _, _ in scans(again.stdout)] == [4, 5, 6]
    record = read_record(load(data_dir=tmp_path / "data"))
    assert record is not None
    assert record.is_up
    there = ["--data", str(tmp_path / "data"), "--beamline", "demo"]
    for command in (["status"], ["run", "count", "[slit_det]", "num=2"]):
        used = subprocess.run(
            [*COMMAND, *there, *command], env=environment, capture_output=True, text=True, check=False
        )
        assert used.returncode == 0, used.stdout + used.stderr
    down(tmp_path, environment)
    assert not record.is_up
    assert not record.remains


def test_ctrl_c_in_the_demo_takes_everything_down(tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "demo", "--data", str(tmp_path / "data")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    record = None
    for line in process.stdout:
        if "first live point" in line:
            record = read_record(load(data_dir=tmp_path / "data"))
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=100)
    assert process.returncode == 130, rest
    assert record is not None
    assert record.processes
    assert not record.is_up
    assert not record.remains
    assert "killed" not in rest
    assert "Traceback" not in rest


def test_the_demo_says_which_port_is_in_use(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 50641)):
        done = demo(tmp_path, environment)
    assert done.returncode == 1
    assert "port 50641" in done.stderr
    assert done.stderr.count("\n") == 1
    assert read_record(load(data_dir=tmp_path / "data")) is None
