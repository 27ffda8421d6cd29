"""Every EPICS datatype, read, described and set through the whole chain, as in process."""

from typing import Any

import pytest

from tests.iocs.hardware import Hardware

VALUES: dict[str, Any] = {
    "a_int": 50,
    "a_float": -1.25,
    "float_prec_0": 7,
    "a_str": "gold",
    "longstr": "l" * 60,
    "longstr2": "m" * 60,
    "a_bool": False,
    "enum": "Ccc",
    "enum2": "Aaa",
    "subset_enum": "Aaa",
    "enum_str_fallback": "Ccc",
    "bool_unnamed": False,
    "partialint": 11,
    "lessint": 12,
    "uint8a": [1, 255],
    "int16a": [-32768, 0, 32767],
    "int32a": [-(2**31), 2**31 - 1],
    "float32a": [0.5, -2.0],
    "float64a": [1e-300, 1e300],
    "stra": ["one", "two", "three"],
    "mbb_direct_bit": True,
}
PVA_VALUES: dict[str, Any] = VALUES | {
    "int8a": [-128, 127],
    "uint16a": [0, 65535],
    "uint32a": [0, 2**32 - 1],
    "int64a": [-(2**63), 2**63 - 1],
    "uint64a": [0, 2**64 - 1],
    "table": {
        "a_bool": [True, False],
        "a_int": [1, -2],
        "a_float": [0.5, -1.5],
        "a_str": ["u", "v"],
        "a_enum": ["Ccc", "Aaa"],
    },
}
pytestmark = pytest.mark.timeout(300)
READ_ONLY = ("mbb_direct_bit_r", "slowseq", "superset_enum", "ntndarray")
"""What is not set here: read-only ones, a sequence that takes its time, another view of `subset_enum`."""


@pytest.mark.parametrize(("device", "values"), [("ca_types", VALUES), ("pva_types", PVA_VALUES)])
def test_every_type_is_read_described_and_set_as_in_process(
    hardware: Hardware, device: str, values: dict[str, Any]
) -> None:
    infos = hardware.bl.devices.values()
    signals = [info.path for info in infos if info.path.startswith(f"{device}.") and "read" in info.methods]
    only_read = {name for name in READ_ONLY if name != "ntndarray" or device == "pva_types"}
    assert {path.removeprefix(f"{device}.") for path in signals} == {*values, *only_read}
    hardware.compare("count", signals)
    hardware.compare("set_and_read", [f"{device}.{name}" for name in values], list(values.values()))


def test_parts_that_only_the_ioc_tells_of_are_there(hardware: Hardware) -> None:
    """`extra_int` stands in no class: PV Access' directory (PVI) has it."""
    assert {"a_float", "table", "wo_float", "extra_int"} <= set(hardware.bl.devices["pvi"].children)
    hardware.compare("set_and_read", ["pvi.extra_int", "pvi.a_float"], [33, 4.5])


@pytest.mark.parametrize("signal", ["mode", "ca_station.mode", "pva_station.mode"])
def test_an_enumeration_is_set_by_its_words(hardware: Hardware, signal: str) -> None:
    for word in ("fast", "slow"):
        _, item = hardware.run("mv", signal, word)
        assert item.result is not None and item.result.exit_status == "completed", item.result
        assert hardware.soft.get("soft:MODE") == word.encode()


def test_a_command_is_triggered(hardware: Hardware) -> None:
    hardware.demo.put("demo:DET:Elapsed", 5.0)
    _, item = hardware.run("trigger_one", "counter.reset")
    assert item.result is not None and item.result.exit_status == "completed", item.result
    assert hardware.demo.get("demo:DET:Elapsed") == 0.0
