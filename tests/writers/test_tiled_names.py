"""Names that SQL does not take are stored under others, always the same ones."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from writers._tiled_names import StoredNames, stored_names


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["det", "motor_setpoint", "det:x", "two words", "température", "order"], {}),
        (["Det", "det"], {"det": "det_2"}),
        (['a"b', "it's", "50%", "f(x)"], {'a"b': "a_b", "it's": "it_s", "50%": "x_50_", "f(x)": "f_x_"}),
        (["a", "ts_a", "a.b"], {"ts_a": "x_ts_a", "a.b": "a_b"}),
        (["1st", "Å", "", "_a"], {"1st": "x_1st", "Å": "x_Å", "": "x_", "_a": "x_a"}),
        (["time", "seq_num"], {}),
        (["x" * 300], {"x" * 300: "x" * 60}),
        (["w/ave", "w_ave"], {"w/ave": "w_ave_2"}),
    ],
)
def test_only_names_that_sql_refuses_are_changed(keys: list[str], expected: dict[str, str]) -> None:
    assert stored_names(keys) == expected


@given(st.sets(st.text(max_size=80), max_size=20))
def test_columns_never_collide_and_always_fit(keys: set[str]) -> None:
    names = stored_names(keys)
    stored = [names.get(key, key) for key in keys - {"time", "seq_num"}]
    columns = [name.lower() for name in stored] + [f"ts_{name.lower()}" for name in stored] + ["time", "seq_num"]
    assert len(set(columns)) == len(columns)
    assert all(len(f"ts_{name}".encode()) <= 63 for name in stored)


def test_a_descriptor_and_its_events_are_renamed_alike_and_the_rest_passes() -> None:
    names = StoredNames()
    descriptor: dict[str, Any] = {
        "uid": "d",
        "data_keys": {"a'b": {"dtype": "number"}, "c": {"dtype": "number"}},
        "object_keys": {"dev": ["a'b", "c"]},
        "hints": {"dev": {"fields": ["a'b"]}},
    }
    stored = names("descriptor", descriptor)
    assert stored["data_keys"] == {"a_b": {"dtype": "number", "data_key": "a'b"}, "c": {"dtype": "number"}}
    assert stored["object_keys"] == {"dev": ["a_b", "c"]}
    assert stored["hints"] == {"dev": {"fields": ["a_b"]}}
    event = {"descriptor": "d", "data": {"a'b": 1, "c": 2}, "timestamps": {"a'b": 3.0, "c": 4.0}}
    assert names("event", event)["data"] == {"a_b": 1, "c": 2}
    assert names("event", event)["timestamps"] == {"a_b": 3.0, "c": 4.0}
    assert descriptor["data_keys"].keys() == {"a'b", "c"}
    stop = {"uid": "s"}
    assert names("stop", stop) is stop
