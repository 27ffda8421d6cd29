"""IOCs as processes on loopback ports of their own, over Channel Access and PV Access."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ophyd_async.epics
from caproto import CaprotoError
from caproto.sync import client as channel_access

from tests.ports import free_ports

_OPHYD_ASYNC = Path(ophyd_async.epics.__file__).parent
_START_WITHIN = 60.0
"""Seconds."""
_ATTEMPT = 1.0
"""Seconds."""


@dataclass
class Ioc:
    """An IOC that can be started, killed and started again on the same ports."""

    command: list[str]
    pv: str = ""
    """One of its PVs, which answers once it runs, if it speaks Channel Access."""
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    """Of Channel Access, of PV Access searches, of PV Access."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def _environment(self) -> dict[str, str]:
        ca, broadcast, pva = map(str, self.ports)
        return {
            "EPICS_CA_SERVER_PORT": ca,
            "EPICS_CAS_SERVER_PORT": ca,
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_BROADCAST_PORT": broadcast,
            "EPICS_PVA_BROADCAST_PORT": broadcast,
            "EPICS_PVAS_SERVER_PORT": pva,
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,  # EPICS' shell ends when it has no input
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # some start a process of their own
        )

    def wait_until_there(self) -> None:
        deadline = time.monotonic() + _START_WITHIN
        while self.pv:
            try:
                self.get(self.pv, patience=0.0)
                return
            except CaprotoError:
                assert self.process is not None and self.process.poll() is None, f"{self.command} has ended"
                assert time.monotonic() < deadline, f"{self.command}: no {self.pv} within {_START_WITHIN:g} s"

    def end(self) -> None:
        """Kill it, as a crash would."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process = None

    def get(self, pv: str, patience: float = 40.0) -> Any:
        """Give the value of a PV, by a client that has nothing to do with ours."""
        return self._ask(lambda: channel_access.read(pv, timeout=_ATTEMPT, repeater=False), patience)

    def put(self, pv: str, value: Any) -> None:
        """Set a PV, by a client that has nothing to do with ours; waits until the record was processed."""
        self._ask(lambda: channel_access.write(pv, value, notify=True, timeout=_ATTEMPT, repeater=False), 40.0)

    def _ask(self, call: Callable[[], Any], patience: float) -> Any:
        """Call until there is an answer: caproto's client repeats a search that got lost only after half its time."""
        deadline = time.monotonic() + patience
        while True:
            try:
                with _looking_at(self):
                    answer = call()
                break
            except CaprotoError:
                if time.monotonic() > deadline:
                    raise
        data = getattr(answer, "data", None)
        return data[0] if data is not None and len(data) == 1 else data


def client_environment(iocs: Iterable[Ioc]) -> dict[str, str]:
    """Give the environment in which clients find these IOCs, and no other ones."""
    ports = [ioc.ports for ioc in iocs]
    return {
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_ADDR_LIST": " ".join(f"127.0.0.1:{ca}" for ca, _, _ in ports),
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": " ".join(f"127.0.0.1:{broadcast}" for _, broadcast, _ in ports),
    }


@contextlib.contextmanager
def _looking_at(ioc: Ioc) -> Iterator[None]:
    """Have caproto's client, which reads the environment at each call, find this IOC only."""
    before = dict(os.environ)
    os.environ.update(client_environment([ioc]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _caproto(example: str, prefix: str) -> list[str]:
    module = f"caproto.ioc_examples.{example}"
    return [sys.executable, "-m", module, "--interfaces", "127.0.0.1", "--prefix", prefix]


def mini_beamline() -> Ioc:
    """caproto's beamline: `mini:current`, `mini:ph:…`, `mini:dot:…`."""
    return Ioc(_caproto("mini_beamline", "mini:"), "mini:current")


def fake_motor_record(prefix: str = "sim:") -> Ioc:
    """caproto's motor records `mtr1` … `mtr3`.

    Its put completes at once and DMOV follows up to 0.1 s later; a STOP that comes when it stands still stays for as
    long, and may stop the next move (a RunEngine stops at the end of a plan whatever moved).
    """
    return Ioc(_caproto("fake_motor_record", prefix), f"{prefix}mtr1")


def demo() -> Ioc:
    """ophyd-async's demonstration on EPICS base: `demo:STAGE:{X,Y}:…`, `demo:DET:…`."""
    return Ioc([sys.executable, str(_OPHYD_ASYNC / "demo" / "_ioc.py"), "demo:", "3"], "demo:DET:3:Value")


def datatypes() -> Ioc:
    """ophyd-async's records of every type on EPICS base: `tst:ca:…`, `tst:pva:…`."""
    return Ioc([sys.executable, str(_OPHYD_ASYNC / "testing" / "_ioc.py"), "tst:"], "tst:pva:int")


def soft_ioc(prefix: str = "soft:") -> Ioc:
    """The one of `soft_ioc.py`."""
    return Ioc([sys.executable, str(Path(__file__).with_name("soft_ioc.py")), prefix], f"{prefix}COUNT")


def area_detector() -> Ioc:
    """pvapy's stand-in for an areaDetector: `adsim:image`, 48 rows of 64 pixels, ten times a second, PV Access only."""
    image = ["-nx", "64", "-ny", "48", "-dt", "uint8", "-nf", "3"]
    rate = ["-fps", "10", "-rt", "86400", "-dc"]
    return Ioc([sys.executable, "-m", "pvapy.cli.adSimServer", "-cn", "adsim:image", *image, *rate])
