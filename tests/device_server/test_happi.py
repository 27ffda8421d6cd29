"""Devices of a happi database."""

import json
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.device_server import read
from bec_bluesky.device_server._construct import check, construct
from bec_bluesky.errors import SettingsError

DATABASE: dict[str, Any] = {
    "samx": {
        "_id": "samx",
        "active": True,
        "args": ["{{prefix}}"],
        "beamline": "MFX",
        "device_class": "ophyd.EpicsMotor",
        "documentation": None,
        "kwargs": {"name": "{{name}}", "labels": ["{{beamline}} motors"]},
        "name": "samx",
        "prefix": "MFX:M1",
        "type": "OphydItem",
        "z": 927.9,
    },
    "spare": {
        **{
            "_id": "spare",
            "active": False,
            "name": "spare",
            "beamline": "MFX",
            "device_class": "ophyd_async.sim.SimMotor",
        },
        **{"args": [], "kwargs": {"name": "{{name}}", "initial_value": "{{ z }}"}, "z": 1.5},
    },
    "uuid": {
        **{"_id": "fp", "name": "fp", "beamline": "MFX", "device_class": "ophyd_async.core.UUIDFilenameProvider"},
        **{"args": [], "kwargs": {}},
    },
    "paths": {
        **{"_id": "pp", "name": "pp", "beamline": "MFX", "device_class": "ophyd_async.core.StaticPathProvider"},
        **{"args": ["{{fp}}"], "kwargs": {"directory_path": "/data"}},
    },
    "cam": {
        **{"_id": "cam", "name": "cam", "beamline": "MFX", "device_class": "ophyd_async.sim.SimBlobDetector"},
        **{"args": ["{{pp}}"], "kwargs": {"name": "{{name}}"}},
    },
    "norm": {
        **{"_id": "norm", "name": "norm", "beamline": "MFX", "device_class": "ophyd.sim.SynGauss"},
        **{"args": ["norm", "{{spare}}", "samx"], "kwargs": {"center": 0, "Imax": 1}},
    },
    "note": {"_id": "note", "name": "note", "beamline": "MFX", "device_class": None},
    "other": {"_id": "other", "name": "other", "beamline": "XCS", "device_class": "no.such.Class"},
}


def write(directory: Path, database: Any, more: str = "") -> Path:
    (directory / "db.json").write_text(json.dumps(database, indent=4))
    path = directory / "devices.yaml"
    path.write_text(f"version: 1\nsources: [{{happi: db.json, where: {{beamline: MFX}}}}]\n{more}")
    return path


def test_items_become_devices(tmp_path: Path) -> None:
    specs = read(write(tmp_path, DATABASE))
    assert set(specs) == {"samx", "spare", "cam", "norm"}
    samx = specs["samx"]
    assert (samx.class_, samx.args, samx.kwargs) == ("ophyd:EpicsMotor", ["MFX:M1"], {"labels": ["MFX motors"]})
    assert (samx.metadata["z"], samx.metadata["prefix"], samx.metadata["beamline"]) == (927.9, "MFX:M1", "MFX")
    assert samx.enabled
    assert (specs["spare"].enabled, specs["spare"].kwargs) == (False, {"initial_value": 1.5})
    assert specs["norm"].args == ["norm", {"$ref": "spare"}, "samx"]
    for name, spec in specs.items():
        check(name, spec)


async def test_objects_for_others_are_made_with_the_device(tmp_path: Path) -> None:
    spec = read(write(tmp_path, DATABASE))["cam"]
    provider = {
        "$obj": "ophyd_async.core:StaticPathProvider",
        "$args": [{"$obj": "ophyd_async.core:UUIDFilenameProvider", "$args": []}],
        "directory_path": "/data",
    }
    assert spec.args == [provider]
    assert construct("cam", spec, {}, {}).name == "cam"


def test_the_device_file_adds_to_what_the_database_says(tmp_path: Path) -> None:
    more = "defaults: {timeout: 9}\ndevices:\n  samx: {limits: {low: -1, high: 1}, labels: [sample]}\n"
    path = write(tmp_path, DATABASE, more)
    samx = read(path)["samx"]
    assert (samx.class_, samx.args, samx.labels, samx.timeout) == ("ophyd:EpicsMotor", ["MFX:M1"], ["sample"], 9)
    assert samx.limits is not None and samx.limits.high == 1
    assert samx.file == path
    path.write_text(path.read_text().replace("labels: [sample]", "lables: [sample]"))
    with pytest.raises(SettingsError, match=r"devices\.yaml:5: device samx: no key 'lables'"):
        read(path)


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({"args": ["{{prefx}}"]}, "item 'samx': {{prefx}}: it has no field 'prefx': did you mean 'prefix'?"),
        ({"args": ["{{prefix|upper}}"]}, "only templates of the kind '{{prefix}}' are understood"),
        ({"args": "{{prefix}}"}, "args = '{{prefix}}': must be a list"),
        ({"device_class": "EpicsMotor"}, "device_class = 'EpicsMotor': must be 'package.module.Class'"),
        ({"name": "sam x"}, "device 'sam x': a name is made of letters"),
        ({"name": None}, "name = None: must be a text"),
        ({"name": "cam"}, "device cam: there is another one of that name"),
    ],
)
def test_a_mistake_in_a_database_is_told_with_its_line(tmp_path: Path, item: dict[str, Any], wanted: str) -> None:
    database = {
        "cam": DATABASE["cam"],
        "samx": DATABASE["samx"] | item,
        "fp": DATABASE["uuid"],
        "pp": DATABASE["paths"],
    }
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, database))
    line = (tmp_path / "db.json").read_text()[: (tmp_path / "db.json").read_text().index('"samx": {')].count("\n") + 1
    assert str(caught.value).startswith(f"{tmp_path}/db.json:{line}: ")
    assert wanted in str(caught.value)


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    with pytest.raises(SettingsError, match=r"db\.json:1: must be an object of items"):
        read(path)
    (tmp_path / "db.json").write_text('{\n"a": ,\n}')
    with pytest.raises(SettingsError, match=r"db\.json:2: is no JSON: Expecting value"):
        read(path)
    (tmp_path / "db.json").unlink()
    with pytest.raises(SettingsError, match=r"devices\.yaml:2: sources: .*db\.json is not there"):
        read(path)
