"""Devices edited and reloaded in a whole system: command line, client, plans of a running worker, two servers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bec_bluesky.documents import api_key
from bec_bluesky.errors import DeviceHeld, RefusedError, SettingsError
from bec_bluesky.messages.products import Point
from bec_bluesky.settings import load
from tests.live_system import System, make_system, until

DEVICES = """\
version: 1
devices:
  # motors
  motor: {class: "ophyd.sim:SynAxis", limits: {low: -10, high: 10}}
  gauge: {class: "devices.live_gauge:Gauge"}
  cold: {class: "ophyd.sim:SynAxis", server: cryo}   # elsewhere
"""
GAUGE = """
from ophyd import Component, Device, Signal

class Gauge(Device):
    pressure = Component(Signal, value=1.0, kind="hinted")
    USER_ACCESS = ("say",)

    def say(self):
        return "old"
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = make_system(tmp_path_factory.mktemp("devices"))
    (system.directory / "profile" / "devices.yaml").write_text(DEVICES)
    (system.directory / "profile" / "devices").mkdir()
    gauge_file(system).write_text(GAUGE)
    up = system.call("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield system
    finally:
        system.call("down")


def gauge_file(system: System) -> Path:
    return system.directory / "profile" / "devices" / "live_gauge.py"


def device_file(system: System) -> Path:
    return system.directory / "profile" / "devices.yaml"


def said(system: System, *arguments: str, code: int = 0) -> str:
    done = system.call("device", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def pressures(bl: Any) -> dict[str, Any]:
    """Run a plan in the worker; give the values of its point."""
    item = bl.queue.add("count", ["gauge"])
    bl.queue.start()
    item.wait()
    (point,) = bl.points()
    assert isinstance(point, Point)
    return {key: value for key, value in point.data.items() if key.startswith("gauge")}


def test_a_class_is_edited_and_its_device_reloaded_under_a_running_worker(system: System) -> None:
    with system.connect() as bl:
        others = {path: info.generation for path, info in bl.devices.items() if not path.startswith("gauge")}
        assert pressures(bl) == {"gauge_pressure": 1.0}
        assert bl.dev.gauge.ask("say") == "old"
        new = GAUGE.replace("old", "new").replace("value=1.0, kind", "value=2.5, kind")
        gauge_file(system).write_text(
            new.replace("    USER_ACCESS", '    vacuum = Component(Signal, value=0.1, kind="hinted")\n    USER_ACCESS')
        )
        report = bl.device_file.reload("gauge")
        assert (report.rebuilt, report.failed, report.servers) == (["gauge"], {}, {})
        assert bl.dev.gauge.ask("say") == "new"
        assert pressures(bl) == {"gauge_pressure": 2.5, "gauge_vacuum": 0.1}
        assert {path: bl.devices[path].generation for path in others} == others
        gauge_file(system).write_text("raise OSError('no such crate')")
        with pytest.raises(RefusedError, match="cannot be imported: OSError: no such crate"):
            bl.device_file.reload("gauge")
        gauge_file(system).write_text(GAUGE)
        assert pressures(bl)["gauge_pressure"] == 2.5
        assert said(system, "reload", "gauge") == "built anew gauge\n"
        assert pressures(bl) == {"gauge_pressure": 1.0}


def test_a_device_of_a_running_plan_is_not_reloaded(system: System) -> None:
    with system.connect() as bl:
        item = bl.queue.add("count", ["gauge"], num=100_000, delay=0.02)
        bl.queue.start()
        until(lambda: bl.status.run_uid is not None, "the run")
        with pytest.raises(DeviceHeld, match=r"gauge is held by .*count"):
            bl.device_file.reload("gauge")
        assert bl.device_file.set("gauge", {"labels": ["vacuum"]}).changed == ["gauge"]
        bl.abort("enough")
        item.wait()
        assert bl.device_file.set("gauge", unset=["labels"]).changed == ["gauge"]


def test_devices_are_edited_over_http(system: System) -> None:
    before = device_file(system).read_text()
    url = system.status()["services"]["api"]["facts"]["url"]
    key = api_key(load(data_dir=system.data))
    with httpx.Client(base_url=f"{url}/api/v1/device_file", headers={"Authorization": f"Apikey {key}"}) as http:
        assert http.post("/devices/web", json={"class": "ophyd.sim:SynAxis"}).json()["added"] == ["web"]
        changed = http.patch("/devices/web", json={"set": {"limits": {"low": 0, "high": 1}, "labels": ["a"]}})
        assert changed.json()["changed"] == ["web"]
        assert http.get("/devices/web").json()["entry"]["labels"] == ["a"]
        replaced = http.put("/devices/web", json={"class": "ophyd.sim:SynAxis", "kwargs": {"value": 3}})
        assert replaced.json()["rebuilt"] == ["web"]
        assert http.get(f"{url}/api/v1/device_file").json()["devices"]["web"]["entry"] == {
            "class": "ophyd.sim:SynAxis",
            "kwargs": {"value": 3},
        }
        for answer, code, said in (
            (http.post("/devices/web", json={"class": "a:B"}), 409, "exists"),
            (http.patch("/devices/web", json={"set": {"lables": []}}), 422, "bad_value"),
            (http.patch("/devices/wep", json={"set": {"labels": []}}), 404, "unknown_device"),
            (http.get("/devices/wep"), 404, "unknown_device"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (code, said), answer.text
        assert http.post("/reload", json={"devices": ["web"]}).json()["rebuilt"] == ["web"]
        assert http.delete("/devices/web").json()["removed"] == ["web"]
        device_file(system).write_text(before + "# by hand\n")
        assert http.delete("/devices/gauge").json()["code"] == "file_changed"
        assert http.post("/reload", json={}).json()["changed"] == []
        device_file(system).write_text(before)
        http.post("/reload", json={})
        assert httpx.get(f"{url}/api/v1/device_file").status_code == 401


def test_devices_are_edited_from_the_command_line(system: System) -> None:
    before = device_file(system).read_text()
    assert said(system, "set", "motor", "limits.low=-5", "labels=[a,b]") == "changed motor\n"
    assert 'motor: {class: "ophyd.sim:SynAxis", limits: {low: -5, high: 10}, labels: [a, b]}' in (
        device_file(system).read_text()
    )
    refused = said(system, "set", "motor", "lables=[a]", code=1)
    assert "devices.yaml:4: device motor: no key 'lables': did you mean 'labels'" in refused
    assert refused.count("\n") == 1
    assert said(system, "set", "motor", "limits.low=-10", "--unset", "labels") == "changed motor\n"
    assert device_file(system).read_text() == before
    assert said(system, "add", "more", "ophyd.sim:SynAxis", "kwargs.value=2.5", "readout=baseline") == "added more\n"
    assert said(system, "read", "more").splitlines() == ["more = 2.5", "more_setpoint = 2.5"]
    assert said(system, "move", "more", "-1.5") == "more = -1.5\n"
    shown = said(system, "show", "more")
    assert "devices.yaml:7, device server main\nmore:\n  class: ophyd.sim:SynAxis\n" in shown
    with system.connect() as bl:
        assert bl.device_file.disable("more", "motor").rebuilt == ["more", "motor"]
        assert bl.devices["more"].state == "disabled"
        assert bl.device_file.enable("more", "motor").failed == {}
    assert json.loads(said(system, "list", "--json"))["more"]["state"] == "connected"
    assert said(system, "rm", "more") == "removed more\n"
    assert "3 devices, 0 mistakes" in said(system, "check")


def test_edits_reach_the_server_that_owns_the_device_and_the_others_read_the_file(system: System) -> None:
    with system.connect() as bl:
        assert bl.device_file.set("cold", {"limits": {"low": 0, "high": 300}}).changed == ["cold"]
        assert bl.device_file.set("motor", {"timeout": 4}).changed == ["motor"]
        assert bl.devices["cold"].limits == (0, 300)
        report = bl.device_file.set("cold", {"server": "main"})
        assert (report.rebuilt, report.added, report.removed) == (["cold"], [], [])
        assert bl.devices["cold"].server == "main"
        until(lambda: bl.dev.cold.info.server == "main", "the move to another server")
        bl.dev.cold.move(4.0)
        with pytest.raises(SettingsError, match="device server's name"):
            bl.device_file.set("cold", {"server": "a b"})
        report = bl.device_file.set("cold", {"server": "nowhere"})
        assert "does not run" in report.servers["nowhere"]
        assert bl.device_file.set("cold", {"server": "cryo"}).added == ["cold"]
        assert bl.device_file.show("cold")["entry"]["limits"] == {"low": 0, "high": 300}
