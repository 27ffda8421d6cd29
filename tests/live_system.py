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

from bec_bluesky import connect

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
DEVICES = """
version: 1
devices:
  motor: {class: "ophyd.sim:SynAxis", limits: {low: -10, high: 10}}
  det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: motor}, motor_field: motor, center: 1, Imax: 100, sigma: 1}}
"""
PATIENCE = 100.0


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
            timeout=200,
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

    def connect(self) -> Any:
        return connect("cli-test", data_dir=self.data)


def make_system(directory: Path, *, hosted: str = "") -> System:
    """Write a small profile; `hosted` is more of its `profile.toml`."""
    (directory / "profile").mkdir()
    (directory / "profile" / "profile.toml").write_text(PROFILE + hosted)
    (directory / "profile" / "devices.yaml").write_text(DEVICES)
    return System(directory)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
