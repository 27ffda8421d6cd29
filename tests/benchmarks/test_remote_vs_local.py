"""The benchmark runs, and finds the same documents on both sides."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_each_cell_is_measured_and_its_documents_are_the_same() -> None:
    command = [
        sys.executable,
        "benchmarks/remote_vs_local.py",
        "--points",
        "10",
        "--repeats",
        "1",
        "--devices",
        "1",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    cells = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith(("count", "scan"))]
    assert cells == [
        [plan, layer, number]
        for plan in ("count", "scan")
        for layer in ("ophyd", "ophyd-async")
        for number in ("1", "2")
    ], done.stderr
    assert "median ratio" in done.stdout
