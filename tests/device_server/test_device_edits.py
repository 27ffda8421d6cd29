"""Edits of the device file and reloads while the server runs."""

import gc
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bec_bluesky import plugins
from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_CHANGES, DEVICES, READBACKS
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.errors import DeviceHeld, RefusedError, SettingsError, StaleDevice, UnknownDeviceError
from bec_bluesky.messages.devices import DeviceEdit
from bec_bluesky.settings import Settings, load
from tests.device_server import odd_devices
from tests.device_server.device_server_harness import Client, info, serving, until, with_devices

ODD = "tests.device_server.odd_devices"
DEVICES_YAML = f"""
samx: {{class: "ophyd.sim:SynAxis", limits: {{low: -5, high: 5}}}}  # the first
samy: {{class: "ophyd.sim:SynAxis"}}
det: {{class: "ophyd.sim:SynGauss", kwargs: {{motor: {{$ref: samx}}, motor_field: samx, center: 0, Imax: 10}}}}
soft: {{class: "ophyd_async.core:soft_signal_rw", args: [{{$type: float}}, 1.5]}}
slow: {{class: "ophyd_async.sim:SimMotor", kwargs: {{instant: false}}, set: {{velocity: 0.1, acceleration_time: 0.1}}}}
napper: {{class: "{ODD}:Napper", kwargs: {{pace: 0.1}}}}
"""
MINE = """
from devices.edit_base import Base
from ophyd import Component, Signal

class Gauge(Base):
    '''A gauge.'''
    pressure = Component(Signal, value=1.0, kind="hinted")
    USER_ACCESS = ("say",)

    def say(self):
        return "old " + self.word()
"""
BASE = """
from ophyd import Device

class Base(Device):
    def word(self):
        return "base"

class Other(Base):
    pass
"""


class Edited:
    """A running server with a device file and device classes that a person edits."""

    def __init__(self, server: DeviceServer, client: Client, profile: Path) -> None:
        self.server = server
        self.client = client
        self.file = profile / "profile_collection" / "devices.yaml"
        self.classes = profile / "devices"

    async def ask(self, verb: str, *args: Any) -> DeviceEdit:
        return msgspec.convert(await self.client.ask("", verb, *args), DeviceEdit)

    def objects(self) -> dict[str, Any]:
        """Give the devices themselves."""
        assert self.server._registry is not None
        return {name: entry.device for name, entry in self.server._registry.entries.items()}

    def unchanged(self, before: dict[str, Any]) -> set[str]:
        """Give the devices that are the same objects as before."""
        now = self.objects()
        return {name for name, device in before.items() if device is not None and now.get(name) is device}


@pytest.fixture
def mounted() -> Iterator[None]:
    """Take away again what a profile of a test mounts."""
    yield
    for name in [name for name in sys.modules if name.startswith("devices.edit_")]:
        del sys.modules[name]
    plugins.mount(load())


@pytest.fixture
async def edited(settings: Settings, bus: Bus, client: Client, tmp_path: Path, mounted: None) -> AsyncIterator[Edited]:
    settings = with_devices(settings, tmp_path, DEVICES_YAML)
    (settings.profile / "devices").mkdir()
    (settings.profile / "devices" / "edit_mine.py").write_text(MINE)
    (settings.profile / "devices" / "edit_base.py").write_text(BASE)
    async with serving(settings, bus) as server:
        yield Edited(server, client, settings.profile)


async def test_what_is_only_said_of_a_device_keeps_every_object(edited: Edited, bus: Bus) -> None:
    before, text = edited.objects(), edited.file.read_text()
    done = await edited.ask("change", {"samx": {"limits.high": 7, "labels": ["a"], "metadata.note": "x"}}, {})
    assert done == DeviceEdit(changed=["samx"])
    assert edited.unchanged(before) == before.keys()
    written = edited.file.read_text().replace(" #", "  #")  # its column is taken
    assert written == text.replace("high: 5}}", "high: 7}, labels: [a], metadata: {note: x}}")
    told = await info(bus, "samx")
    assert (told.limits, told.labels, told.metadata, told.generation) == ((-5, 7), ["a"], {"note": "x"}, 1)
    await edited.client.ask("samx", "set", 6)
    await edited.ask("change", {"samx": {"read_only": True}}, {"samx": ["limits"]})
    assert (await edited.client.failure("samx", "set", 1)).kind == "ophyd.utils.errors.ReadOnlyError"
    assert (await info(bus, "samx.velocity")).read_only


async def test_other_arguments_build_a_device_and_those_that_need_it_anew(edited: Edited, bus: Bus) -> None:
    before = edited.objects()
    done = await edited.ask("change", {"samx": {"kwargs.value": 3.0}}, {})
    assert done == DeviceEdit(rebuilt=["det", "samx"])
    assert edited.unchanged(before) == before.keys() - {"samx", "det"}
    assert await edited.client.ask("samx", "get") == 3.0
    assert ((await info(bus, "samx")).generation, (await info(bus, "samy")).generation) == (2, 1)
    gone = weakref.ref(before.pop("samx"))
    before.clear()

    def is_free() -> bool:
        gc.collect()
        return gone() is None

    await until(is_free, "the old object is let go of")


async def test_devices_are_added_and_removed(edited: Edited, bus: Bus) -> None:
    text = edited.file.read_text()
    entry = {"class": "ophyd.sim:SynAxis", "labels": ["new"]}
    assert await edited.ask("add", "samz", entry) == DeviceEdit(added=["samz"])
    assert edited.file.read_text() == text + "  samz:\n    class: ophyd.sim:SynAxis\n    labels: [new]\n"
    await edited.client.ask("samz", "set", 1.0)
    await until(lambda: bus.field(READBACKS, "samz", server="main"), "a readback")
    assert await edited.ask("remove", "samz") == DeviceEdit(removed=["samz"])
    assert edited.file.read_text() == text
    assert "samz" not in await bus.fields(DEVICES, server="main")
    assert await bus.field(READBACKS, "samz", server="main") is None
    with pytest.raises(UnknownDeviceError):
        await edited.client.ask("samz", "read")
    assert await edited.ask("add", "samz", entry) == DeviceEdit(added=["samz"])
    told = [(each.state, each.generation) for _, each in await bus.read(DEVICE_CHANGES) if each.path == "samz"]
    assert told == [("connected", 1), ("removed", 1), ("connected", 2)]


async def test_disabling_and_enabling(edited: Edited, bus: Bus) -> None:
    before = edited.objects()
    done = await edited.ask("change", {"samx": {"enabled": False}, "samy": {"enabled": False}}, {})
    assert done.rebuilt == ["det", "samx", "samy"]
    assert done.failed == {"det": "it needs 'samx', which is disabled or failed"}
    assert ((await info(bus, "samx")).state, (await info(bus, "samx")).children) == ("disabled", [])
    assert "samx.velocity" not in await bus.fields(DEVICES, server="main")
    done = await edited.ask("change", {"samx": {"enabled": True}, "samy": {"enabled": True}}, {})
    assert not done.failed
    assert (await info(bus, "det")).state == "connected"
    assert edited.unchanged(before) == {"soft", "slow", "napper"}


@pytest.mark.parametrize(
    ("verb", "args", "wanted"),
    [
        ("change", [{"samx": {"lables": ["a"]}}, {}], r"devices\.yaml:3: device samx: no key 'lables': did you mean"),
        ("change", [{"samx": {"limits.low": 9}}, {}], r"limits\.high = 5: must be above low \(9\)"),
        ("change", [{"samx": {"class": "ophyd.sim:Nothing"}}, {}], "device samx: class ophyd.sim has no 'Nothing'"),
        ("change", [{"soft": {"kwargs.unit": "K"}}, {}], "takes no argument 'unit': did you mean 'units'?"),
        ("change", [{"samx": {"kwargs.value": 1}, "sam": {}}, {}], "no device 'sam': did you mean"),
        ("change", [{"samx": {}}, {"samx": ["readout"]}], "device samx has no key 'readout' in the file"),
        ("change", [{"samx": {"needs": ["det"]}}, {}], "devices need each other in a circle"),
        ("remove", ["samx"], "samx is needed by det: change or remove that first"),
        ("add", ["samx", {"class": "ophyd.sim:SynAxis"}], r"there is a device 'samx' already, in .*devices\.yaml:3"),
        ("add", ["get", {"class": "ophyd.sim:SynAxis"}], "`bl.dev.get` is something else already"),
        ("add", ["x", {"class": "ophyd.sim:SynAxis"}, "more.yaml"], "no file 'more.yaml' belongs to the device file"),
        ("reload", [["sam"]], "no device 'sam': did you mean"),
    ],
)
async def test_a_refused_edit_changes_neither_file_nor_devices(
    edited: Edited, verb: str, args: list[Any], wanted: str
) -> None:
    before, text = edited.objects(), edited.file.read_bytes()
    with pytest.raises((SettingsError, RefusedError), match=wanted):
        await edited.ask(verb, *args)
    assert edited.file.read_bytes() == text
    assert edited.unchanged(before) == before.keys()
    assert [path.name for path in edited.file.parent.iterdir()] == ["devices.yaml"]


async def test_a_file_that_a_person_edits_is_not_written_over(edited: Edited, bus: Bus) -> None:
    by_hand = edited.file.read_text().replace("high: 5", "high: 8")
    edited.file.write_text(by_hand)
    before = edited.objects()
    with pytest.raises(
        RefusedError, match="was changed on disk since it was read: nothing is written over it"
    ) as caught:
        await edited.ask("change", {"samx": {"labels": ["a"]}}, {})
    assert caught.value.code == "file_changed"
    assert edited.file.read_text() == by_hand
    assert await edited.ask("reload") == DeviceEdit(changed=["samx"])
    assert (await info(bus, "samx")).limits == (-5, 8)
    assert await edited.ask("change", {"samx": {"labels": ["a"]}}, {}) == DeviceEdit(changed=["samx"])
    edited.file.write_text(by_hand.replace("ophyd.sim:SynAxis", "ophyd.sim:SynAxes", 1))
    with pytest.raises(SettingsError, match=r"ophyd\.sim has no 'SynAxes'"):
        await edited.ask("reload")
    assert edited.unchanged(before) == before.keys()


async def test_an_edit_goes_into_the_file_that_has_the_device(edited: Edited) -> None:
    more = edited.file.with_name("more.yaml")
    more.write_text("version: 1\ndevices:\n  samz: {class: 'ophyd.sim:SynAxis'}   # here\n")
    edited.file.write_text("include: [more.yaml]\n" + edited.file.read_text())
    text = edited.file.read_text()
    assert await edited.ask("reload") == DeviceEdit(added=["samz"])
    await edited.ask("change", {"samz": {"timeout": 3}}, {})
    assert "samz: {class: 'ophyd.sim:SynAxis', timeout: 3} # here\n" in more.read_text()
    assert await edited.ask("add", "theta", {"class": "ophyd.sim:SynAxis"}, "more.yaml") == DeviceEdit(added=["theta"])
    assert "theta" in more.read_text()
    with pytest.raises(RefusedError, match="samz, samx stand in 2 files"):
        await edited.ask("change", {"samz": {"timeout": 4}, "samx": {"timeout": 4}}, {})
    assert edited.file.read_text() == text
    described = await edited.client.ask("", "device_file")
    assert described["files"] == ["devices.yaml", "more.yaml"]
    assert described["devices"]["samz"]["file"] == "more.yaml"
    assert described["devices"]["samz"]["entry"] == {"class": "ophyd.sim:SynAxis", "timeout": 3}


async def test_what_is_under_way_fails_and_subscriptions_go_on(edited: Edited) -> None:
    client = edited.client
    watched = client.op("soft", "subscribe")
    await client.send(watched)
    moving = await client.start("slow", "set", 100.0)
    await client.ask("slow", "locate")
    edit = client.op("", "change", {"soft": {"args": [{"$type": "float"}, 4.5]}, "slow": {"kwargs.units": "deg"}}, {})
    await client.send(edit)
    with pytest.raises(StaleDevice, match="device slow was built anew meanwhile"):
        await client.end(moving)
    await client.end(edit.id)
    assert await client.ask("soft", "get") == 4.5
    await client.ask("soft", "set", 5.5)

    def values() -> list[float]:
        return [each.payload["soft"]["value"] for each in client.of(watched.id, "value")]

    await until(lambda: values()[-1] == 5.5, "the subscription")
    assert values() == [1.5, 4.5, 5.5]


async def test_what_is_asked_of_a_device_that_is_built_anew_waits_for_it(edited: Edited) -> None:
    odd_devices.attempts.clear()
    odd_devices.let_go.set()
    await edited.ask("add", "late", {"class": f"{ODD}:Hanging"})
    odd_devices.let_go.clear()
    try:
        edit = edited.client.op("", "change", {"late": {"kwargs.labels": ["x"]}}, {})
        await edited.client.send(edit)
        await until(lambda: odd_devices.attempts["late"] == 2, "the second object")
        asked = await edited.client.start("late", "read")
        assert await edited.client.ask("samy", "get") == 0
        assert not edited.client.of(asked)
    finally:
        odd_devices.let_go.set()
    assert await edited.client.end(asked) == {}
    assert (await edited.client.end(edit.id))["rebuilt"] == ["late"]


async def test_a_device_that_somebody_holds_is_not_built_anew(edited: Edited) -> None:
    before, text = edited.objects(), edited.file.read_text()
    claim = edited.client.op("", "claim", ["det"], "count", 30.0, item_id="3f2a")
    await edited.client.send(claim, token="t")
    await edited.client.end(claim.id)
    for verb, args in {
        "change": [{"samx": {"kwargs.value": 2}}, {}],
        "remove": ["det"],
        "reload": [["det"]],
    }.items():
        with pytest.raises(DeviceHeld, match="det is held by count: wait for it to end, or stop it"):
            await edited.ask(verb, *args)
    assert edited.file.read_text() == text
    assert edited.unchanged(before) == before.keys()
    assert await edited.ask("change", {"det": {"labels": ["a"]}}, {}) == DeviceEdit(changed=["det"])
    release = edited.client.op("", "release")
    await edited.client.send(release, token="t")
    await edited.client.end(release.id)
    assert await edited.ask("remove", "det") == DeviceEdit(removed=["det"])


# ── classes ──


async def test_a_device_is_reloaded_with_its_edited_class(edited: Edited, bus: Bus) -> None:
    await edited.ask("add", "gauge", {"class": "devices.edit_mine:Gauge"})
    assert await edited.client.ask("gauge", "say") == "old base"
    before = edited.objects()
    (edited.classes / "edit_base.py").write_text(BASE.replace('"base"', '"BASE"'))  # as long as before, at once
    (edited.classes / "edit_mine.py").write_text(MINE.replace("old", "new").replace("pressure", "vacuum"))
    assert await edited.ask("reload", ["gauge"]) == DeviceEdit(rebuilt=["gauge"])
    assert await edited.client.ask("gauge", "say") == "new BASE"
    assert edited.unchanged(before) == before.keys() - {"gauge"}
    table = await bus.fields(DEVICES, server="main")
    assert {path for path in table if path.startswith("gauge")} == {"gauge", "gauge.vacuum"}
    assert table["gauge"].generation == 2
    gone = [each for _, each in await bus.read(DEVICE_CHANGES) if each.state == "removed"]
    assert [each.path for each in gone] == ["gauge.pressure"]


@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        ("def x(:", r"devices\.edit_mine cannot be imported: SyntaxError: .*edit_mine\.py, line 1"),
        ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(.*edit_mine\.py, line 1\)"),
        ("x = 1", "devices.edit_mine has no 'Gauge'"),
    ],
)
async def test_a_class_that_cannot_be_imported_leaves_the_old_device_alive(
    edited: Edited, broken: str, wanted: str
) -> None:
    await edited.ask("add", "gauge", {"class": "devices.edit_mine:Gauge"})
    before = edited.objects()
    (edited.classes / "edit_mine.py").write_text(broken)
    (edited.classes / "edit_base.py").write_text(BASE.replace('"base"', '"other"'))
    with pytest.raises((RefusedError, SettingsError), match=wanted):
        await edited.ask("reload", ["gauge"])
    assert edited.unchanged(before) == before.keys()
    assert await edited.client.ask("gauge", "say") == "old base"
    (edited.classes / "edit_mine.py").write_text(MINE)
    await edited.ask("reload", ["gauge"])
    assert await edited.client.ask("gauge", "say") == "old other"


async def test_devices_of_the_same_module_are_reloaded_together(edited: Edited) -> None:
    await edited.ask("add", "gauge", {"class": "devices.edit_mine:Gauge"})
    await edited.ask("add", "other", {"class": "devices.edit_base:Other"})
    before = edited.objects()
    with pytest.raises(
        RefusedError, match=r"devices\.edit_base also makes other, which would keep the old class"
    ) as caught:
        await edited.ask("reload", ["gauge"])
    assert caught.value.code == "shares_module"
    assert edited.unchanged(before) == before.keys()
    assert (await edited.ask("reload", ["gauge"], True)).rebuilt == ["gauge", "other"]
    assert edited.unchanged(before) == before.keys() - {"gauge", "other"}
    assert (await edited.ask("reload", ["gauge", "other"])).rebuilt == ["gauge", "other"]
    assert (await edited.ask("reload", ["samx"])).rebuilt == ["det", "samx"]
    assert "ophyd.sim" in sys.modules
