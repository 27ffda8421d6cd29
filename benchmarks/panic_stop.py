"""How soon a panic stop reaches every mover: 2 device servers with 50 each, all of them moving, and devices in the way.

    python -m benchmarks.panic_stop [--repeats 5]

On each server one device blocks in `trigger`, and the `stop` of another takes 0.8 s. No scan server runs: none is
needed. Prints, for each repeat, the milliseconds from the call to the `stop` of the last mover, and to the answer.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import Status

from bec_bluesky.proxy import DeviceLink
from bec_bluesky.settings import Settings
from bec_bluesky.testing import private_system

SERVERS = ("main", "cryo")
MOVERS = 50
TARGET = 0.2
"""Seconds."""


class Mover(Device):
    """Moves until it is stopped, and knows when that was."""

    stopped = Component(Signal, value=0.0, kind="hinted")

    def __init__(self, prefix: str = "", *, name: str, delay: float = 0.0, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._delay = delay
        self._move: Status | None = None
        self._wake = threading.Event()

    def set(self, value: float) -> Status:
        self._move = Status()
        return self._move

    def trigger(self) -> Any:
        self._wake.wait(30.0)
        return super().trigger()

    def stop(self, *, success: bool = False) -> None:
        self.stopped.put(time.monotonic())
        time.sleep(self._delay)
        self._wake.set()
        if self._move is not None and not self._move.done:
            self._move.set_exception(RuntimeError(f"{self.name} was stopped"))


def _device_file() -> str:
    lines = ["version: 1", "devices:"]
    for server in SERVERS:
        names = [f"{server}_{number}" for number in range(MOVERS)]
        extra = {f"{server}_slow": ", kwargs: {delay: 0.8}", f"{server}_blocked": ""}
        for name in (*names, *extra):
            more = extra.get(name, "")
            lines.append(f'  {name}: {{class: "benchmarks.panic_stop:Mover", server: {server}{more}}}')
    return "\n".join(lines) + "\n"


def _start(settings: Settings, server: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-m", "bec_bluesky.device_server", "--server", server],
        env=os.environ | settings.environment() | {"PYTHONPATH": str(root)},
    )


async def _measure(settings: Settings, repeats: int) -> float:
    link = await DeviceLink.connect(settings.redis_url or "", settings.beamline)
    try:
        names = [f"{server}_{number}" for server in SERVERS for number in range(MOVERS)]
        async with asyncio.timeout(60.0):
            while not all(f"{server}_blocked" in link.devices and link.is_ready for server in SERVERS):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        worst = 0.0
        for repeat in range(repeats):
            proxies: dict[str, Any] = dict(link.devices)
            moves = [proxies[name].set(1.0) for name in names]
            moves += [proxies[f"{server}_blocked"].trigger() for server in SERVERS]
            await asyncio.sleep(0.5)
            begin = time.monotonic()
            report = await link.stop_all()
            answered = time.monotonic() - begin
            times = [(await link.request(f"{name}.stopped", "get")) - begin for name in names]
            assert report.is_complete and all(each > 0 for each in times), report
            await asyncio.gather(*moves, return_exceptions=True)
            worst = max(worst, *times)
            print(
                f"{repeat + 1}: {len(names)} movers: the first {1000 * min(times):.1f}, "
                f"the last {1000 * max(times):.1f}, the whole answer {1000 * answered:.0f} ms (one stop takes 800)"
            )
        return worst
    finally:
        await link.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as directory, private_system(Path(directory)) as system:
        profile = Path(directory) / "profile"
        profile.mkdir()
        (profile / "devices.yaml").write_text(_device_file())
        settings = system.with_(profile=profile)
        servers = [_start(settings, server) for server in SERVERS]
        try:
            worst = asyncio.run(_measure(settings, repeats))
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(20.0)
    print(f"the slowest: {1000 * worst:.0f} ms; target {1000 * TARGET:.0f} ms: {'met' if worst < TARGET else 'MISSED'}")
    return 0 if worst < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
