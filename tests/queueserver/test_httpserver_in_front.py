"""bluesky-httpserver itself, a real process, in front of our 0MQ socket."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.http import REManagerAPI

from tests.live_system import System, until
from tests.patience import PATIENCE
from tests.ports import free_ports
from tests.queueserver.conftest import KEY


@pytest.fixture
def front(system: System) -> Iterator[str]:
    (port,) = free_ports(1)
    variables = {
        "QSERVER_ZMQ_CONTROL_ADDRESS": system.extra["BEC_BLUESKY_QSERVER_CONTROL_ADDRESS"],
        "QSERVER_ZMQ_INFO_ADDRESS": system.extra["BEC_BLUESKY_QSERVER_INFO_ADDRESS"],
        "QSERVER_HTTP_SERVER_SINGLE_USER_API_KEY": KEY,
    }
    command = [sys.executable, "-m", "uvicorn", "bluesky_httpserver.server:app", "--port", str(port)]
    process = subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/api/status", headers={"Authorization": f"ApiKey {KEY}"}).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, "bluesky-httpserver")
        yield url
    finally:
        process.terminate()
        process.wait(15)


def test_a_plan_runs_by_way_of_it_and_both_tell_the_same(front: str, http: httpx.Client) -> None:
    manager = REManagerAPI(http_server_uri=front, status_polling_period=0.1, timeout=PATIENCE)
    manager.set_authorization_key(api_key=KEY)
    try:
        manager.environment_open()
        manager.wait_for_idle(timeout=PATIENCE)
        manager.item_add(BPlan("count", ["det"]))
        assert manager.queue_get(reload=True)["items"] == http.get("/queue/get").json()["items"]
        manager.queue_start()
        manager.wait_for_idle(timeout=PATIENCE)
        assert manager.history_get(reload=True)["items"] == http.get("/history/get").json()["items"]
        for path in ("/plans/allowed", "/devices/allowed", "/plans/existing", "/devices/existing", "/permissions/get"):
            of_peer = httpx.get(f"{front}/api{path}", headers=http.headers).json()
            assert of_peer == http.get(path).json(), path
        in_short = {"reduced": True}
        of_peer = httpx.request("GET", f"{front}/api/plans/allowed", json=in_short, headers=http.headers).json()
        assert of_peer == http.request("GET", "/plans/allowed", json=in_short).json()
        manager.environment_close()
        manager.wait_for_idle(timeout=PATIENCE)
    finally:
        manager.close()
