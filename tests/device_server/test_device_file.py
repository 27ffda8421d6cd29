"""The device file: what is in it, and what it says of mistakes."""

from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.device_server import DeviceSpec, json_schema, read
from bec_bluesky.device_server._construct import build_order, check, construct
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
            "device x: class = 'ophyd.sim': 'ophyd.sim' must be 'package.module:Name'",
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
        ("version: 1\ndevices:\n  lambda: {class: 'a:B'}\n", 3, "device 'lambda': a name is made of letters"),
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
        ("version: 2\ndevices: {}\n", None, "version is 2; this system reads `version: 1`"),
        ("devices: {}\n", None, "version is None; this system reads `version: 1`"),
        ("version: 1\ndevices: [a]\n", None, "`devices:` must be a mapping of names to devices"),
        ("- a\n", None, "must be a mapping with `version: 1` and `devices:`"),
        ("version: 1\ndevices:\n  x: {class: 'a:B'\n", None, "line 4"),
        ("version: 1\ndevices:\n  x: {class: 'a:B'}\n  x: {class: 'a:C'}\n", None, 'found duplicate key "x"'),
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
    assert wanted.format(directory=tmp_path) in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else str(path))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\ndevices:\n  x: {clas: 'a:B'}\n  y: {class: 'a:B', limits: {low: 1}}\n")
    with pytest.raises(SettingsError) as caught:
        read(path)
    told = str(caught.value).splitlines()
    assert [line.removeprefix(f"{path}:").partition(":")[0] for line in told] == ["3", "3", "4"]
    assert "device y: 'limits.high' is missing" in told[2]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"devices\.yaml is not there: a profile has a devices\.yaml"):
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


def test_editors_get_a_schema() -> None:
    schema = json_schema()
    device = schema["properties"]["devices"]["additionalProperties"]
    assert device["required"] == ["class"]
    assert {"readout", "limits", "connect"} <= device["properties"].keys()
