"""What a run needs in memory does not grow with the run."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

LONG_RUN = Path(__file__).with_name("long_run.py")
TOLERANCE = 8.0
"""MB. The documents of the shorter run are 45 MB of text; HDF5's own caches for either file would grow by 11 MB."""


@pytest.mark.parametrize(
    "events", [50_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_memory_is_the_same_after_a_tenth_of_a_run_and_at_its_end(root: Path, events: int) -> None:
    command = [sys.executable, str(LONG_RUN), str(root), str(events)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["late"] - found["early"] < TOLERANCE, found
    assert found["peak"] - found["early"] < 2 * TOLERANCE, found
    with h5py.File(found["path"]) as file:
        for stream, key in (("primary", "k9"), ("ring_monitor", "ring")):
            column = file["entry/streams"][stream][key]
            assert column.shape == (events,)
            assert (column[0], column[-1]) == (1.5, events + 0.5)
    Path(found["path"]).unlink()  # a gigabyte
