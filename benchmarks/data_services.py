"""A system with everything that takes documents, as processes; documents put on Redis by hand; what comes of them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from bec_bluesky.channels import DOCUMENTS, POINTS, RUNS, SERVICES, STORED
from bec_bluesky.cli._parts import parts
from bec_bluesky.cli._processes import step_back
from bec_bluesky.documents import find_catalog
from bec_bluesky.messages import encode, pack
from bec_bluesky.messages.products import RunClosed, RunOpened
from bec_bluesky.plugins import read_profile
from bec_bluesky.settings import DEFAULT_PROFILE, Settings

__all__ = ["Documents", "OnRedis", "running_writers", "until"]

ROOT = Path(__file__).resolve().parent.parent
Documents = list[tuple[str, dict[str, Any]]]
_PATIENCE = 120.0


def until(condition: Callable[[], object], what: str, *, pause: float = 0.02) -> None:
    """Wait until something holds; ends the program if it does not within two minutes."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {_PATIENCE:.0f} s: {what}")
        time.sleep(pause)


@contextlib.contextmanager
def running_writers(settings: Settings) -> Iterator[tuple[Settings, dict[str, int]]]:
    """Run the API and all that `profile_collection/profile.toml` hosts, as `bec-bluesky up` would.

    Gives their settings, and the pids by name. The device file of `device_server()` must be there already.
    """
    profile = settings.data_dir / "profile" / "profile_collection" / "profile.toml"
    profile.write_text((DEFAULT_PROFILE / "profile_collection" / "profile.toml").read_text())
    settings = settings.with_(profile=settings.data_dir / "profile")
    environment = os.environ | settings.environment() | {"PYTHONPATH": str(ROOT)}
    environment["TILED_PROFILES"] = str(settings.data_dir / "tiled")
    wanted = [
        part
        for part in parts(settings, read_profile(settings))
        if part.name == "api" or part.name.startswith("documents-")
    ]
    processes = [subprocess.Popen(part.command, env=environment, start_new_session=True) for part in wanted]
    for part, process in zip(wanted, processes, strict=True):
        step_back(process.pid, part.niceness)
    try:
        on_redis = OnRedis(settings)
        until(lambda: all(on_redis.beats(part.name) for part in wanted), "the services beat")
        until(lambda: find_catalog(settings) is not None, "Tiled answers")
        yield settings, {part.name: process.pid for part, process in zip(wanted, processes, strict=True)}
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30.0)
            except subprocess.TimeoutExpired:
                sys.stderr.write(f"{process.args} did not end\n")
                process.kill()


class OnRedis:
    """What a benchmark puts on Redis and reads from it, without asyncio, which would be slow."""

    def __init__(self, settings: Settings) -> None:
        self._beamline = settings.beamline
        self.redis = redis.Redis.from_url(settings.redis_url or "")
        self._numbers: dict[str, int] = {}

    def beats(self, service: str) -> bool:
        """Tell whether a service lives."""
        return bool(self.redis.exists(SERVICES.key(self._beamline, service=service)))

    def open(self, head: Documents) -> str:
        """Announce a run and publish its first documents; give its uid."""
        start = head[0][1]
        opened = RunOpened(run_uid=start["uid"], scan_id=start["scan_id"], time=time.time())
        self.redis.xadd(RUNS.key(self._beamline), {"m": encode(opened)})
        self._numbers[start["uid"]] = 0
        self.publish(start["uid"], head)
        return start["uid"]

    def publish(self, uid: str, documents: Documents) -> None:
        """Publish the next documents of a run."""
        key = DOCUMENTS.key(self._beamline, run=uid)
        pipe = self.redis.pipeline(transaction=False)
        for name, doc in documents:
            self._numbers[uid] += 1
            pipe.xadd(key, {"n": name, "d": pack(doc)}, id=f"{self._numbers[uid]}-0")
        pipe.execute()

    def close(self, uid: str, stop: Documents) -> None:
        """End a run."""
        self.publish(uid, stop)
        closed = RunClosed(run_uid=uid, time=time.time(), exit_status="success", documents=self._numbers[uid])
        self.redis.xadd(RUNS.key(self._beamline), {"m": encode(closed)})

    def next_point(self, uid: str, number: int) -> None:
        """Wait for a point of a run, by its number."""
        key = POINTS.key(self._beamline, run=uid)
        if not self.redis.xread({key: f"{number - 1}-0"}, count=1, block=int(_PATIENCE * 1e3)):
            raise SystemExit(f"point {number} of run {uid} did not come")

    def newest_run(self) -> str:
        """Give the uid of the run that was announced last."""
        from bec_bluesky.messages import decoder

        decode = decoder(RUNS.message).decode
        entries: Any = self.redis.xrevrange(RUNS.key(self._beamline), count=1)
        return decode(entries[0][1][b"m"]).run_uid

    def is_stored(self, uid: str, *consumers: str) -> bool:
        """Tell whether all of these have stored a run."""
        stored: Any = self.redis.hkeys(STORED.key(self._beamline, run=uid))
        return set(consumers) <= {name.decode() for name in stored}
