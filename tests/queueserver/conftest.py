"""A whole system that clients of bluesky-queueserver talk to, on ports of its own."""

from collections.abc import Iterator

import httpx
import pytest

from tests.live_system import System, make_system, until
from tests.patience import PATIENCE
from tests.ports import free_ports

KEY = "test"  # what Finch shows unless it is told another one
STARTUP = '''
"""Functions and plans as an instrument has them."""
import time

import bluesky.plan_stubs as bps
from bluesky.utils import Msg


def wait_long(seconds: float = 60.0):
    """Wait in small steps, with checkpoints.

    Parameters
    ----------
    seconds: how long.
    """
    for _ in range(int(seconds / 0.05)):
        yield from bps.checkpoint()
        yield from bps.sleep(0.05)


def fail_at_once():
    """Fail, but not while it is checked."""
    yield Msg("null")
    if RE.state == "running":
        raise RuntimeError("the sample fell off")


def function_sleep(seconds):
    """Sleep, and say so."""
    print("function_sleep begins")
    time.sleep(seconds)
    return {"success": True, "time": seconds}
'''


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Up, with 0MQ and HTTP."""
    system = make_system(tmp_path_factory.mktemp("queueserver"))
    control, info, http = free_ports(3)
    system.extra.update(
        {
            "BEC_BLUESKY_QSERVER_CONTROL_ADDRESS": f"tcp://127.0.0.1:{control}",
            "BEC_BLUESKY_QSERVER_INFO_ADDRESS": f"tcp://127.0.0.1:{info}",
            "BEC_BLUESKY_QSERVER_HTTP_PORT": str(http),
            "QSERVER_HTTP_SERVER_SINGLE_USER_API_KEY": KEY,
            "QSERVER_HTTP_SERVER_ALLOW_ORIGINS": "http://finch.example",
            "QSERVER_EMERGENCY_LOCK_KEY_FOR_SERVER": "break-glass",
        }
    )
    startup = system.directory / "profile" / "startup"
    startup.mkdir()
    (startup / "10-plans.py").write_text(STARTUP)
    done = system.call("up", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        until(lambda: "control" in system.status()["services"].get("queueserver", {}).get("facts", {}), "queueserver")
        yield system
    finally:
        system.call("down")


@pytest.fixture
def url(system: System) -> str:
    return f"http://127.0.0.1:{system.extra['BEC_BLUESKY_QSERVER_HTTP_PORT']}"


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client with the key, which leaves an empty queue and no lock."""
    with httpx.Client(base_url=f"{url}/api", headers={"Authorization": f"ApiKey {KEY}"}, timeout=PATIENCE) as client:
        yield client
        client.post("/unlock", json={"lock_key": "break-glass"})
        client.post("/queue/clear")
