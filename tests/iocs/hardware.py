"""The whole system on the IOCs, and a stock RunEngine beside it."""

import re
from pathlib import Path
from typing import Any

import redis
from pydantic import BaseModel

from bec_bluesky import embedded
from bec_bluesky.channels import document_stream
from bec_bluesky.client import Client, Item
from bec_bluesky.messages import unpack
from bec_bluesky.messages.queue import QueueItem
from tests.iocs import ioc
from tests.iocs.in_process import InProcess
from tests.live_system import System, until
from tests.patience import PATIENCE
from tests.proxy.canonical import Canonical

_FILES = Path(__file__).parent
_ROOT = Path(__file__).parents[2]
_PROFILE = """
title = "soft IOCs"
[[hosted]]
name = "nexus"
use = "writers.nexus:NexusWriter"
process = "files"
options = { directory = "{files_dir}" }
"""
Documents = list[tuple[str, Any]]
_OURS = frozenset({"item_id", "user", "versions", "scan_id"})
"""Keys of a start document that are the queue's own."""
_MOMENTARY = re.compile(r"(value=array\(.*?\)|(value|timestamp)=[^,)]*)(, )?")
"""What ophyd's `repr` of a signal says of this moment."""


class Hardware:
    """IOCs, a system whose device server owns devices on them, and the same devices in another process."""

    def __init__(self, directory: Path) -> None:
        self.sim = ioc.fake_motor_record()
        self.mini = ioc.mini_beamline()
        self.demo = ioc.demo()
        self.types = ioc.datatypes()
        self.soft = ioc.soft_ioc()
        self.iocs = (self.sim, self.mini, self.demo, self.types, self.soft, ioc.area_detector())
        self.system = System(directory)
        self.in_process: InProcess
        self.bl: Client

    def start(self) -> None:
        """Start everything at the same time, and wait for all devices."""
        for each in self.iocs:
            each.start()
        epics = ioc.client_environment(self.iocs)
        profile = self.system.directory / "profile"
        (profile / "startup").mkdir(parents=True)
        variables = epics | {"PYTHONPATH": str(_ROOT)}
        environment = "\n[environment]\n" + "\n".join(f'{name} = "{value}"' for name, value in variables.items())
        (profile / "profile.toml").write_text(_PROFILE + environment + "\n")
        (profile / "devices.yaml").write_text((_FILES / "devices.yaml").read_text())
        (profile / "startup" / "10-hardware.py").write_text((_FILES / "plans.py").read_text())
        self.in_process = InProcess(epics)
        up = self.system.call("up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        self.bl = self.system.connect()
        for each in self.iocs:
            each.wait_until_there()
        until(lambda: not self.missing(), "every device")

    def missing(self) -> dict[str, str]:
        """Give the devices that are not there, with their reasons."""
        return {path: info.reason for path, info in self.bl.devices.items() if info.state != "connected"}

    def end(self) -> None:
        if hasattr(self, "bl"):
            self.bl.close()
        self.system.call("down")
        if hasattr(self, "in_process"):
            self.in_process.end()
        for each in self.iocs:
            each.end()

    # ── plans ──

    def add(self, plan: str, *args: Any, **kwargs: Any) -> Item:
        """Have the queue run a plan, next."""
        return self.bl.queue.put(plan, args, kwargs, start=True)

    def run(self, plan: str, *args: Any, **kwargs: Any) -> tuple[Documents, QueueItem]:
        """Run a plan by the queue; give the documents of its runs, and the finished item."""
        done = self.add(plan, *args, **kwargs).wait(PATIENCE)
        return self.documents(done), done

    def compare(self, plan: str, *args: Any, **kwargs: Any) -> Documents:
        """Run a plan by the queue and in a stock RunEngine: the documents must be the same; give those of the queue."""
        self.settle()
        remote, item = self.run(plan, *args, **kwargs)
        self.settle()
        local, error = self.in_process.run(plan, *args, **kwargs)
        assert item.result is not None
        assert (item.result.exit_status, error) == ("completed", None), item.result.reason
        assert comparable(remote) == comparable(local)
        return remote

    def settle(self) -> None:
        """Have the axis of the soft IOC where monitors begin, and wait until the motor records stand still."""
        self.soft.put("soft:M1", 0.5)
        for motor in ("mtr1", "mtr2", "mtr3"):
            until(lambda motor=motor: self.stands(motor) and self.sim.get(f"sim:{motor}.STOP") == 0, f"{motor} at rest")

    def stands(self, motor: str) -> bool:
        """Tell whether a motor record stands still."""
        return self.sim.get(f"sim:{motor}.DMOV") == 1

    def tick(self, times: int) -> None:
        """Wait while an IOC counts so many tenths of a second."""
        before = self.soft.get("soft:COUNT")
        until(lambda: self.soft.get("soft:COUNT") >= before + times, "ticks")

    def documents(self, item: QueueItem) -> Documents:
        """Give the documents of an item's runs."""
        assert item.result is not None
        server = embedded.find(self.bl.settings)
        assert server is not None
        with redis.Redis.from_url(server.url) as connection:
            entries = [
                fields
                for run in item.result.run_uids
                for _, fields in connection.xrange(document_stream(self.bl.settings.beamline, run))
            ]
        return [(fields[b"n"].decode(), unpack(fields[b"d"])) for fields in entries]


def comparable(documents: Documents) -> Documents:
    """Take out of documents what must differ between two runs: uids, times, who asked, values within `repr`s."""
    canonical = Canonical(_FILES)
    found: Documents = []
    for name, document in documents:
        kept = canonical({key: value for key, value in document.items() if key not in _OURS or name != "start"})
        if "plan_args" in kept:
            kept["plan_args"] = _MOMENTARY.sub("", repr(kept["plan_args"]))
        if name == "event":  # a table is a pydantic model in process, and its columns on the wire
            kept["data"] = {key: canonical(_columns(value)) for key, value in kept["data"].items()}
        found.append((name, kept))
    return found


def _columns(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def events(documents: Documents, key: str) -> list[Any]:
    """Give the values of a data key, in order."""
    return [document["data"][key] for name, document in documents if name == "event" and key in document["data"]]


def stop(documents: Documents) -> dict[str, Any]:
    """Give the stop document of the only run."""
    (found,) = [document for name, document in documents if name == "stop"]
    return found
