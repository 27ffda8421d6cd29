"""The benchmark of the queues runs both, and finds what it measures."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_quantity_is_measured_on_both_sides() -> None:
    options = "--plans 10 --plans-peer 3 --submits 4 --submits-peer 4 --adds 50 --kills 1 --memory 20 --memory-peer 5"
    command = [sys.executable, "benchmarks/against_queueserver.py", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("missed", "every"))]
    assert len(lines) == 9, done.stdout + done.stderr
    rates = lines[1].split()[-3:]
    assert all(float(each) > 0 for each in rates)
    assert float(lines[1].split()[-1]) > 1, "ours runs more short plans a second"
