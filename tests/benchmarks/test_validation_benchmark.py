"""The benchmark of validation runs, and all that it adds is checked."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_batch_is_validated_whole_and_faster_than_plans_are_iterated_at_home() -> None:
    command = [sys.executable, "benchmarks/validation.py", "--plans", "20", "--points", "21", "--repeats", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    lines = done.stdout.splitlines()
    assert lines[0] == "20 plans of 21 points", done.stdout + done.stderr
    assert float(lines[2].split()[-4]) > 1
