"""The benchmark of what storing costs runs with real services, and measures each quantity on both sides."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_quantity_is_measured_here_and_there() -> None:
    options = "--events 400 --peer-events 5 --seconds 1 --points 20 --devices 1 --repeats 1"
    command = [sys.executable, "benchmarks/data.py", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    lines = [line for line in done.stdout.splitlines()[1:] if not line.startswith("  ")]
    assert len(lines) == 7, done.stdout + done.stderr
    here, there = (float(number) for number in lines[0].split()[3:5])
    assert 0 < here < there, "rows written together cost less than one by one"
