"""A whole system as a person uses it: the command line, real processes, a real Redis, simulated devices."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky import connect
from bec_bluesky.errors import RefusedError
from tests.patience import PATIENCE

PROFILE = """
title = "test"
[[hosted]]
name = "bundler"
use = "callbacks.bundler:ScanBundler"
process = "live"
[[hosted]]
name = "peaks"
use = "callbacks.peaks:PeakAnalysis"
process = "live"
required = false
[queues]
names = ["main", "align"]
[companions]
sleeper = ["{python}", "-c", "import time; time.sleep(3600)"]
"""
NEXUS = """
[[hosted]]
name = "nexus"
use = "writers.nexus:NexusWriter"
process = "files"
options = { directory = "{files_dir}" }
"""
"""More of a profile: the writer of NeXus files."""
DEVICES = """
version: 1
devices:
  motor: {class: "ophyd.sim:SynAxis", limits: {low: -10, high: 10}}
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: motor}, motor_field: motor, center: 1, Imax: 100, sigma: 1}}
"""


@dataclass
class System:
    """A system in a directory of its own, used as a person does."""

    directory: Path
    extra: dict[str, str] = field(default_factory=dict[str, str])
    """More environment variables."""

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "BEC_BLUESKY_DATA_DIR": str(self.directory / "data"),
            "BEC_BLUESKY_PROFILE": str(self.directory / "profile"),
            "BEC_BLUESKY_BEAMLINE": "cli-test",
            "BEC_BLUESKY_API_PORT": "0",
            "TILED_PROFILES": str(self.directory / "tiled"),
            **self.extra,
        }

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bec_bluesky", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bec_bluesky", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self.call("status", "--json").stdout)

    def warnings(self) -> list[str]:
        """Give the newest warnings of its services, for whoever reads why a test failed."""
        lines = [line for path in (self.data / "logs").glob("*.jsonl") for line in path.read_text().splitlines()]
        entries = sorted((json.loads(line) for line in lines), key=lambda entry: entry["time"])
        grave = [each for each in entries if each["level"] in ("warning", "error")]
        return [f"{each['service']}: {each['message']}" for each in grave[-5:]]

    def connect(self) -> Any:
        return connect("cli-test", data_dir=self.data)


def make_system(directory: Path, *, hosted: str = "") -> System:
    """Write a small profile; `hosted` is more of its `profile.toml`."""
    (directory / "profile").mkdir()
    (directory / "profile" / "profile.toml").write_text(PROFILE + hosted)
    (directory / "profile" / "devices.yaml").write_text(DEVICES)
    return System(directory)


def until(condition: Callable[[], object], what: str, system: System | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("; ".join([what, *(system.warnings() if system else [])]))
        time.sleep(0.05)


def is_catalogued(bl: Any, run_uid: str) -> bool:
    """Tell whether a run is in the catalogue, with its stop document."""
    try:
        return bl.data[run_uid].stop is not None
    except RefusedError:
        return False
