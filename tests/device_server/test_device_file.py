"""The device file: what is in it, and what it says of mistakes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from bec_bluesky.device_server import DeviceSpec, json_schema, read
from bec_bluesky.device_server._construct import check, construct
from bec_bluesky.device_server._content import plain
from bec_bluesky.device_server._needs import build_order
from bec_bluesky.errors import SettingsError
from bec_bluesky.settings import DEFAULT_PROFILE

X = "{class: 'ophyd.sim:SynAxis'}"


def write(directory: Path, text: str, name: str = "devices.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        (
            "version: 1\ndevices:\n  x: {class: 'ophyd.sim:SynAxis', lables: [a]}\n",
            3,
            "device x: no key 'lables': did you mean 'labels' or 'enabled'?",
        ),
        (
            "version: 1\ndevices:\n  x:\n    class: ophyd.sim:SynAxis\n    readout: often\n",
            5,
            "device x: readout = 'often': Input should be 'monitored'",
        ),
        (
            "version: 1\ndevices:\n  x:\n    class: ophyd.sim\n",
            4,
            "device x: class = 'ophyd.sim': must be 'package.module:Name'; do you mean 'ophyd:sim'?",
        ),
        ("version: 1\ndevices:\n  x: {labels: [a]}\n", 3, "device x: 'class' is missing"),
        (
            "version: 1\ndevices:\n  x:\n    class: a:B\n    limits: {low: 2, high: 1}\n",
            5,
            "device x: limits.high = 1: must be above low (2)",
        ),
        (
            "version: 1\ndevices:\n  x:\n    class: a:B\n    timeout: 0\n",
            5,
            "device x: timeout = 0: Input should be greater than 0",
        ),
        ("version: 1\ndevices:\n  1st: {class: 'a:B'}\n", 3, "device '1st': a name is made of letters"),
        ("version: 1\ndevices:\n  lambda: {class: 'a:B'}\n", 3, "device 'lambda': a name is no Python keyword"),
        ("version: 1\ndevices:\n  x: SynAxis\n", 3, "device x: must be a mapping with at least `class:`"),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', kwargs: {m: {$ref: samy}}}\n  samx: {class: 'a:B'}\n",
            3,
            "device x: no device 'samy' to refer to: did you mean 'samx'?",
        ),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', needs: [y]}\n",
            3,
            "device x: no device 'y' to refer to: there are x",
        ),
        ("version: 1\ndevises: {}\n", 2, "no key 'devises': did you mean 'devices'?"),
        ("version: 2\ndevices: {}\n", 1, "version is 2; this system reads `version: 1`"),
        ("devices: {}\n", None, "version is None; this system reads `version: 1`"),
        ("version: 1\ndevices: [a]\n", 2, "`devices:` must be a mapping of names to devices"),
        ("- a\n", None, "must be a mapping with `version: 1` and `devices:`"),
        ("version: 1\ndevices:\n  x: {class: 'a:B'\n", 4, "is no YAML: while parsing a flow mapping"),
        ("version: 1\ndevices:\n  x: {class: 'a:B'}\n  x: {class: 'a:C'}\n", 4, 'found duplicate key "x"'),
        ("version: 1\ndevices:\n\tx: {class: 'a:B'}\n", 3, "cannot start any token: indent by spaces"),
        ("version: 1\ndefaults: {timout: 3}\ndevices: {}\n", 2, "defaults: no key 'timout': did you mean 'timeout'"),
        ("version: 1\ndefaults: [a]\ndevices: {}\n", 2, "`defaults:` must be a mapping such as {timeout: 10}"),
        ("version: 1\ninclude: motors.yaml\n", 2, "`include:` must be a list of file names: [motors.yaml]"),
        ("version: 1\ninclude: [.]\n", None, "include: {directory}: Is a directory"),
        ("version: 1\nsources: [{hapi: db.json}]\n", 2, "sources: no key 'hapi': did you mean 'happi'?"),
        ("version: 1\nsources: [{}]\n", 2, "sources: name a database; write {happi: db.json}"),
        ("version: 1\ndevices:\n  get: {class: 'a:B'}\n", 3, "`bl.dev.get` is something else already"),
        ("version: 1\ndevices:\n  größe: {class: 'a:B'}\n", 3, "device 'größe': a name is made of letters"),
        ("version: 1\ndevices:\n  x: {class: 'a:B', labels: motors}\n", 3, "must be a list: [motors]"),
        ("version: 1\ndevices:\n  x: {class: 'a:B', limits: [1, 2]}\n", 3, "a mapping such as {low: -1, high: 1}"),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', limits: {low: 1, high: 2, hi: 2}}\n",
            3,
            "no key 'limits.hi'",
        ),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', limits: {low: .nan, high: 2}}\n",
            3,
            "limits.low = nan: is no",
        ),
        ("version: 1\ndevices:\n  x: {class: 'a:B', enabled: ja}\n", 3, "enabled = 'ja': must be true or false"),
        ("version: 1\ndevices:\n  x: {class: 'a:B', kwargs: {1: a}}\n", 3, "'1' is no name of an argument"),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', args: [{$reff: y}]}\n",
            3,
            "no directive '$reff': did you mean",
        ),
        ("version: 1\ndevices:\n  x: {class: 'a:B', args: [{$ref: y, z: 1}]}\n", 3, "$ref stands alone, with a text"),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', args: [{$obj: a.B}]}\n",
            3,
            "$obj: 'a.B' must be",
        ),
        ("version: 1\ndevices:\n  x: {class: 'a:B', args: [{$args: []}]}\n", 3, "$args is a list beside an $obj"),
        ("version: 1\ndevices:\n  x: {class: 'a:B', server: 'a b'}\n", 3, "a device server's name is made of letters"),
        ("version: 1\ndevices:\n  x: {class: 'a:B', needs: [x]}\n", 3, "devices need each other in a circle: x → x"),
        (
            "version: 1\ndevices:\n  x: {class: 'a:B', server: b}\n  y: {class: 'a:B', needs: [x]}\n",
            4,
            "device y: it needs 'x', which device server 'b' owns: give both the same `server:`",
        ),
        ("version: 1\ninclude: [more.yaml]\ndevices: {}\n", None, "include: {directory}/more.yaml is not there"),
        ("version: 1\ninclude: [devices.yaml]\ndevices: {}\n", None, "includes itself"),
    ],
)
def test_a_mistake_is_told_with_file_line_device_and_remedy(
    tmp_path: Path, text: str, line: int | None, wanted: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read(path)
    assert wanted.replace("{directory}", str(tmp_path)) in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else str(path))
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\ndevices:\n  x: {clas: 'a:B'}\n  y: {class: 'a:B', limits: {low: 1}}\n")
    with pytest.raises(SettingsError) as caught:
        read(path)
    told = str(caught.value).splitlines()
    assert [line.removeprefix(f"{path}:").partition(":")[0] for line in told] == ["3", "3", "4"]
    assert "device y: 'limits.high' is missing" in told[2]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"devices\.yaml is not there: a profile has one"):
        read(tmp_path / "devices.yaml")


def test_yaml_is_read_as_1_2(tmp_path: Path) -> None:
    """PyYAML reads `off` as False, `1e-3` as a text and `12:30:00` as 45000."""
    path = write(tmp_path, "version: 1\ndevices:\n  off: {class: 'a:B', kwargs: {a: 1e-3, b: 12:30:00, c: no}}\n")
    spec = read(path)["off"]
    assert spec.kwargs == {"a": 0.001, "b": "12:30:00", "c": "no"}


def test_defaults_and_included_files_hold(tmp_path: Path) -> None:
    write(tmp_path, f"version: 1\ndefaults: {{timeout: 3}}\ndevices:\n  samy: {X}\n", "motors.yaml")
    path = write(
        tmp_path,
        f"version: 1\ninclude: [motors.yaml]\ndefaults: {{timeout: 9, on_failure: buffer}}\ndevices:\n  samx: {X}\n"
        "  samz: {class: 'ophyd.sim:SynAxis', timeout: 1}\n",
    )
    specs = read(path)
    assert {name: spec.timeout for name, spec in specs.items()} == {"samy": 3, "samx": 9, "samz": 1}
    assert {name: spec.on_failure for name, spec in specs.items()} == {
        **{"samy": "raise", "samx": "buffer", "samz": "buffer"}
    }


def test_the_same_name_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, f"version: 1\ndevices:\n  samx: {X}\n", "motors.yaml")
    path = write(tmp_path, f"version: 1\ninclude: [motors.yaml]\ndevices:\n  samx: {X}\n")
    with pytest.raises(SettingsError, match=r"devices\.yaml:4: device samx: there is another one of that name"):
        read(path)


# ── arguments ──


def spec(class_: str, **more: Any) -> DeviceSpec:
    return DeviceSpec.model_validate({"class": class_, **more})


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (spec("ophyd_async.sim:SimMotr"), "ophyd_async.sim has no 'SimMotr': did you mean 'SimMotor'?"),
        (spec("no_such_package:X"), "no_such_package could not be imported (ModuleNotFoundError"),
        (
            spec("ophyd_async.sim:SimMotor", kwargs={"instand": True}),
            "takes no argument 'instand': did you mean 'instant'?",
        ),
        (
            spec("ophyd_async.sim:SimMotor", kwargs={"initial_value": "far"}),
            "initial_value = 'far': Input should be a valid number",
        ),
        (spec("ophyd_async.sim:SimMotor", args=[1, 2, 3, 4, 5]), "too many positional arguments"),
        (spec("ophyd_async.sim:SimBlobDetector"), "missing a required argument: 'path_provider'"),
        (spec("ophyd_async.core:soft_signal_rw", args=[{"$type": "flot"}]), "$type 'flot' is no type"),
        (
            spec("ophyd_async.sim:SimBlobDetector", kwargs={"path_provider": {"$obj": "devices.paths:DatedPaths"}}),
            "$obj devices.paths:DatedPaths(directory: pathlib.Path) -> None: missing a required argument: 'directory'",
        ),
        (
            spec("devices.sim:PatternMotor", kwargs={"pattern_generator": {"$ref": "x.y"}, "axis": "z"}),
            "axis = 'z': Input should be 'x' or 'y'",
        ),
    ],
)
def test_arguments_are_checked_before_anything_is_built(entry: DeviceSpec, wanted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check("samx", entry)
    assert str(caught.value).startswith("device samx: ")
    assert wanted in str(caught.value)


def typed(gain: float, where: Path, name: str, extra: list[int] | None = None) -> tuple[Any, ...]:
    return gain, where, name, extra


def test_arguments_become_what_the_annotations_say() -> None:
    entry = spec(f"{__name__}:typed", args=[2], kwargs={"where": "{data_dir}/x", "extra": ["1", 2]})
    gain, where, name, extra = construct("samx", entry, {}, {"data_dir": "/data"})
    assert (gain, type(gain)) == (2.0, float)
    assert where == Path("/data/x")
    assert name == "samx"
    assert extra == [1, 2]


def test_references_objects_and_types_are_filled_in() -> None:
    class Other:
        part = "the part"

    entry = spec(
        f"{__name__}:anything",
        args=[{"$ref": "other.part"}, {"$type": "float"}, {"deep": [{"$obj": "pathlib:Path", "$args": ["/a", "b"]}]}],
    )
    assert construct("samx", entry, {"other": Other()}, {}) == ("the part", float, {"deep": [Path("/a/b")]})


def anything(*args: Any) -> tuple[Any, ...]:
    return args


def test_devices_are_built_after_those_they_need() -> None:
    specs = {
        "a": spec("a:B", kwargs={"x": [{"$ref": "c.part"}]}),
        "b": spec("a:B", needs=["a"]),
        "c": spec("a:B"),
    }
    assert build_order(specs) == ["c", "a", "b"]
    specs["c"] = spec("a:B", needs=["b"])
    with pytest.raises(SettingsError, match="devices need each other in a circle: a → c → b → a"):
        build_order(specs)


@pytest.mark.parametrize("profile", [".", "mini_beamline"])
def test_the_device_files_that_come_with_the_package_are_right(profile: str) -> None:
    specs = read(DEFAULT_PROFILE / "profile_collection" / profile / "devices.yaml")
    for name, entry in specs.items():
        check(name, entry)
    assert {"blob", "stage_x", "stage_y"} <= specs.keys()


# ── the schema for editors ──


def with_sources(**more: Any) -> dict[str, Any]:
    return {"version": 1, "sources": [{"happi": "db.json", "where": {"beamline": "MFX"}}], **more}


def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("profile", [".", "mini_beamline"])
def test_the_schema_lets_good_files_pass(profile: str) -> None:
    path = DEFAULT_PROFILE / "profile_collection" / profile / "devices.yaml"
    validator().validate(plain(YAML(typ="rt").load(path)))
    validator().validate(with_sources(defaults={"timeout": 3}, devices={"samx": {"limits": {"low": 0, "high": 1}}}))
    validator().validate({"version": 1, "devices": None})


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"class": "a.B"},
        {"class": "a:B", "lables": []},
        {"class": "a:B", "labels": "motors"},
        {"class": "a:B", "readout": "often"},
        {"class": "a:B", "limits": {"low": 1}},
        {"class": "a:B", "limits": {"low": 1, "high": 2, "units": "mm"}},
        {"class": "a:B", "timeout": 0},
        {"class": "a:B", "server": "a b"},
    ],
)
def test_the_schema_finds_what_the_reader_finds(entry: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"version": 1, "devices": {"x": entry}}
    assert not validator().is_valid(wrong)
    with pytest.raises(SettingsError):
        read(write(tmp_path, json.dumps(wrong)))


def test_the_schema_knows_names_and_says_what_keys_mean() -> None:
    for name in ("get", "1st", "_x"):
        assert not validator().is_valid({"version": 1, "devices": {name: {"class": "a:B"}}})
    for wrong in ({"version": 2}, {"version": 1, "devises": {}}, {"version": 1, "defaults": {"class": "a:B"}}):
        assert not validator().is_valid(wrong)
    device = json_schema()["properties"]["devices"]["additionalProperties"]
    assert all(each.get("description") for each in device["properties"].values())
