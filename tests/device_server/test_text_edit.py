"""Edits of a device file leave the rest of it as a person wrote it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bec_bluesky.device_server._content import plain
from bec_bluesky.device_server._text_edit import add_device, change_device, remove_device
from bec_bluesky.errors import RefusedError

TEXT = """\
# The instrument.
version: 1
defaults: {timeout: 5}        # seconds

devices:
  # ── motors ──
  samx:                       # the first
    class: 'ophyd.sim:SynAxis'
    labels: [motors,  "sample"]   # for people
    # moved by hand until 2024
    limits: {low: -10, high: 10}

  samy: {class: ophyd.sim:SynAxis, limits: {low: 0,  high: 1}}   # short


  # ── detectors ──
  det:
      class: ophyd.sim:SynGauss
      args:
      - "det"
      - $ref: samx
      kwargs:
        center: 0x10

# the end
"""


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """Give the lines that are gone and those that are new."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def devices(text: str) -> dict[str, Any]:
    return plain(YAML(typ="rt").load(text))["devices"]


def test_a_changed_key_changes_its_line_only() -> None:
    after = change_device(TEXT, "samx", {"limits.low": -5})
    assert changed_lines(TEXT, after) == (
        ["    limits: {low: -10, high: 10}"],
        ["    limits: {low: -5, high: 10}"],
    )
    assert after.splitlines()[:6] == TEXT.splitlines()[:6]


def test_a_new_key_is_one_more_line() -> None:
    after = change_device(TEXT, "samx", {"readout": "baseline", "labels": ["motors"]})
    gone, new = changed_lines(TEXT, after)
    assert gone == ['    labels: [motors,  "sample"]   # for people']
    assert new == ["    labels: [motors]              # for people", "    readout: baseline"]
    assert after.splitlines()[10:13] == ["    limits: {low: -10, high: 10}", "    readout: baseline", ""]


def test_a_device_in_braces_stays_so() -> None:
    after = change_device(TEXT, "samy", {"limits.high": 2, "set.velocity": 3.5})
    (line,) = changed_lines(TEXT, after)[1]
    assert line.startswith("  samy: {class: ophyd.sim:SynAxis, limits: {low: 0, high: 2}, set: {velocity: 3.5}}")
    assert line.endswith("# short")


def test_other_ways_of_writing_stay() -> None:
    after = change_device(TEXT, "det", {"kwargs.sigma": 2})
    assert changed_lines(TEXT, after) == ([], ["        sigma: 2"])
    assert "        center: 0x10\n" in after


def test_a_key_is_taken_away() -> None:
    after = change_device(TEXT, "samx", {}, ["labels", "limits.high"])
    assert devices(after)["samx"] == {"class": "ophyd.sim:SynAxis", "limits": {"low": -10}}
    assert "# moved by hand until 2024" in after
    with pytest.raises(RefusedError, match=r"device samx has no key 'label' in the file: did you mean 'labels'\?"):
        change_device(TEXT, "samx", {}, ["label"])
    with pytest.raises(RefusedError, match=r"'class\.x': 'class' is no mapping in the file"):
        change_device(TEXT, "samx", {"class.x": 1})


def test_a_device_is_added_at_the_end() -> None:
    entry = {"class": "ophyd.sim:SynAxis", "labels": ["a"], "limits": {"low": 0, "high": 1}}
    after = add_device(TEXT, "samz", entry)
    added = ["  samz:", "    class: ophyd.sim:SynAxis", "    labels: [a]", "    limits: {low: 0, high: 1}"]
    lines = after.splitlines()
    assert [line for line in lines if line not in added] == [line for line in TEXT.splitlines() if line not in added]
    assert lines[lines.index("  samz:") - 1] == "        center: 0x10"
    assert lines[-1] == "# the end"


def test_a_device_is_removed_and_the_comments_around_it_stay() -> None:
    after = remove_device(TEXT, "samy")
    assert changed_lines(TEXT, after) == (
        ["  samy: {class: ophyd.sim:SynAxis, limits: {low: 0,  high: 1}}   # short"],
        [],
    )
    after = remove_device(TEXT, "det")
    assert list(devices(after)) == ["samx", "samy"]
    assert "# ── detectors ──" in after
    assert after.endswith("\n# the end\n")


@pytest.mark.parametrize("empty", ["version: 1\ndevices: {}\n", "version: 1\n", "version: 1\ndevices:  # none\n"])
def test_the_first_device_is_added(empty: str) -> None:
    entry = {"class": "ophyd.sim:SynAxis", "labels": ["a"]}
    after = add_device(empty, "samz", entry)
    assert devices(after) == {"samz": entry}
    assert "  samz:\n    class: ophyd.sim:SynAxis\n    labels: [a]\n" in after
    assert not devices(remove_device(after, "samz"))


def test_what_lines_alone_cannot_say_is_still_right() -> None:
    anchored = "version: 1\n# c\ndevices:\n  a: &m {class: a:B, labels: [x]}\n  b: {<<: *m, labels: [y]}   # d\n"
    after = change_device(anchored, "b", {"readout": "baseline"})
    assert "readout: baseline" in after
    assert "# c" in after
    assert "<<: *m" in after
    braces = "version: 1\ndevices: {a: {class: a:B}, b: {class: a:C}}  # e\n"
    assert devices(change_device(braces, "a", {"timeout": 3}))["a"] == {"class": "a:B", "timeout": 3}
    assert list(devices(remove_device(braces, "a"))) == ["b"]
    assert list(devices(add_device(braces, "c", {"class": "a:D"}))) == ["a", "b", "c"]


def test_line_ends_and_indentation_stay() -> None:
    text = "version: 1\ndevices:\n    a:\n        class: a:B\n        args:\n          - 1\n    b: {class: a:B}\n"
    text = text.replace("\n", "\r\n")
    after = change_device(text, "a", {"timeout": 3})
    assert after == text.replace("          - 1\r\n", "          - 1\r\n        timeout: 3\r\n")


NAMES = st.sampled_from(["samx", "samy", "det"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("aé: #-{['\"\n1.", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, st.dictionaries(st.sampled_from(["labels", "kwargs", "metadata.a", "metadata.b"]), VALUES, max_size=3))
def test_whatever_is_set_is_read_back_and_nothing_else_changes(name: str, values: dict[str, Any]) -> None:
    after = devices(change_device(TEXT, name, values))
    expected = devices(TEXT)
    for key, value in values.items():
        first, _, rest = key.partition(".")
        if rest:
            expected[name].setdefault(first, {})[rest] = value
        else:
            expected[name][first] = value
    assert nearly(after) == nearly(expected)


def nearly(value: Any) -> Any:
    """Round numbers by a hair: the YAML reader multiplies mantissa and power, and may miss the last digit."""
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    return f"{value:.12g}" if isinstance(value, float) else value
